"""Every transferability score of a candidate, with an interval from half-samples of the examples."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distill import metrics
from distill.rank.candidate import Seen
from distill.transferability import h_score, leep, logme, nce, regularized_h_score, transrate

SCORES: Mapping[str, str] = {
    "logme": "LogME",
    "leep": "LEEP",
    "nce": "NCE",
    "h_score": "H-score",
    "regularized_h_score": "reg. H-score",
    "transrate": "TransRate",
    "knn": "k-NN",
}
RESAMPLES = 10
NEIGHBOURS = 10
_OF_ANSWERS = ("leep", "nce")
_NORMAL = 1.96
_ROWS = 1_000


@dataclass(frozen=True)
class Score:
    """A score and its interval; NaN where it can't be had, for the reason in `why`.

    halves: of each half-sample, the same for every candidate.
    """

    value: float
    low: float
    high: float
    halves: tuple[float, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Scored:
    """A candidate with all of its scores. pass_seconds: of its features. score_seconds: of the scores."""

    name: str
    scores: Mapping[str, Score]
    accuracy: float | None
    width: int
    pass_seconds: float
    score_seconds: float


def scored(seen: Seen, *, seed: int, resamples: int = RESAMPLES) -> Scored:
    """All scores of a candidate.

    The interval is 1.96 standard deviations of the score over half-samples, drawn without repeats, to either side.
    Halves drawn so spread as a bootstrap's whole sets do (Politis and Romano, 1994, doi:10.1214/aos/1176325770), and
    hold no example twice, which would be its own nearest neighbour.
    """
    began = time.perf_counter()
    count = len(seen.labels)
    draw = torch.Generator().manual_seed(seed)
    halves = [torch.randperm(count, generator=draw)[: count // 2] for _ in range(resamples)]
    found = {name: _score(name, seen, halves) for name in SCORES}
    seconds = time.perf_counter() - began
    return Scored(seen.name, found, seen.accuracy, seen.features.shape[1], seen.seconds, seconds)


def _score(name: str, seen: Seen, halves: Sequence[Tensor]) -> Score:
    given = seen.probabilities if name in _OF_ANSWERS else seen.features
    if given is None:
        return Score(math.nan, math.nan, math.nan, why="it answers several labels, which are no classes")
    value = one(name, given, seen.labels)
    parts = tuple(one(name, given[which], seen.labels[which]) for which in halves)
    reach = _NORMAL * float(torch.tensor(parts, dtype=torch.float64).std()) if len(parts) > 1 else math.nan
    return Score(value, value - reach, value + reach, parts)


def one(name: str, given: Tensor, labels: Tensor) -> float:
    """One score of features (N, D), of probabilities (N, Z) for LEEP and NCE; with several labels their mean."""
    if name == "knn":
        return knn(given, labels)
    function: Callable[[Tensor, Tensor], float] = {
        "logme": logme, "leep": leep, "nce": nce, "h_score": h_score, "regularized_h_score": regularized_h_score,
        "transrate": transrate,
    }[name]  # fmt: skip
    if not labels.is_floating_point():
        return function(given, labels)
    values = []
    for column in labels.T:
        known = ~column.isnan()
        if bool((column[known] == 1).any()) and bool((column[known] == 0).any()):
            values.append(function(given[known], column[known].long()))
    return sum(values) / len(values) if values else math.nan


def knn(features: Tensor, labels: Tensor, *, neighbours: int = NEIGHBOURS) -> float:
    """How well an example's nearest others tell its label, by cosine, each example left out in turn.

    labels: class numbers, whose accuracy by the neighbours' votes, weighted by their similarity, it is; or several
    labels, whose mean AUROC by the share of neighbours that have them it is, those that nobody knows left out.
    """
    units = F.normalize(features.float() - features.float().mean(0), dim=1)
    several = labels.is_floating_point()
    truth = labels if several else F.one_hot(labels.long()).float()
    votes = []
    for start in range(0, len(units), _ROWS):
        near = units[start : start + _ROWS] @ units.T
        near[torch.arange(len(near)), torch.arange(start, start + len(near))] = -torch.inf
        weight, places = near.topk(min(neighbours, len(units) - 1), dim=1)
        chosen = truth[places]
        known = (~chosen.isnan()).float() * weight.clamp_min(1e-6)[..., None]
        votes.append((chosen.nan_to_num() * known).sum(1) / known.sum(1).clamp_min(1e-12))
    found = torch.cat(votes)
    if several:
        return metrics.mean_defined(metrics.auroc(found, labels))
    return float((found.argmax(1) == labels).double().mean())
