"""What scores say together: an order, where they disagree, and whether the first source stands out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from scipy.stats import kendalltau

from distill.rank.scores import SCORES, Scored

# Two scores whose orders are less alike than this disagree.
_ALIKE = 0.5


@dataclass(frozen=True)
class Ranking:
    """Candidates from best to worst by one score. by: that score. sentences: what is to be known of the order."""

    by: str
    sources: tuple[Scored, ...]
    sentences: tuple[str, ...]


def ranked(found: Sequence[Scored], by: str) -> Ranking:
    """The order by one score, and what the others say of it.

    Raises:
        ValueError: a source does not have that score.
    """
    for one in found:
        if not math.isfinite(one.scores[by].value):
            why = one.scores[by].why or "it is not a finite number"
            raise ValueError(f"{one.name} has no {SCORES[by]}: {why}. Take another --by.")
    ordered = tuple(sorted(found, key=lambda one: -one.scores[by].value))
    return Ranking(by, ordered, (_stands_out(ordered, by), *_disagreements(ordered, by), *_known(ordered)))


def agreement(found: Sequence[Scored], one: str, other: str) -> float:
    """Kendall's tau of two scores' orders; NaN where one of them has none."""
    values = [[source.scores[name].value for source in found] for name in (one, other)]
    if not all(math.isfinite(value) for of_score in values for value in of_score):
        return math.nan
    return float(kendalltau(*values).statistic)


def _stands_out(ordered: Sequence[Scored], by: str) -> str:
    """By the difference of the first two on the same half-samples."""
    first, second = ordered[0], ordered[1]
    halves = [torch.tensor(one.scores[by].halves, dtype=torch.float64) for one in (first, second)]
    difference = first.scores[by].value - second.scores[by].value
    reach = 1.96 * float((halves[0] - halves[1]).std()) if len(halves[0]) > 1 else math.nan
    if difference > reach:
        return (
            f"{first.name} stands out by {SCORES[by]}: {difference:.4g} above {second.name}, give or take {reach:.2g}."
        )
    return (
        f"No source stands out by {SCORES[by]}: {first.name} is {difference:.2g} above {second.name}, give or take "
        f"{reach:.2g}."
    )


def _disagreements(ordered: Sequence[Scored], by: str) -> list[str]:
    named = [name for name in SCORES if all(math.isfinite(one.scores[name].value) for one in ordered)]
    best = {name: max(ordered, key=lambda one: one.scores[name].value).name for name in named}
    others = [SCORES[name] for name in named if best[name] != best[by]]
    lines = []
    if others:
        firsts = ", ".join(f"{best[name]} ({SCORES[name]})" for name in named if best[name] != best[by])
        lines.append(f"Scores disagree about the best source: {best[by]} by {SCORES[by]}, but {firsts}.")
    pairs = [(one, other, agreement(ordered, one, other)) for one, other in combinations(named, 2)]
    apart = [(one, other, tau) for one, other, tau in pairs if tau < _ALIKE]
    if apart and len(ordered) > 2:
        worst = min(apart, key=lambda pair: pair[2])
        lines.append(
            f"{len(apart)} of {len(pairs)} pairs of scores order the sources differently (Kendall's tau below "
            f"{_ALIKE}); most of all {SCORES[worst[0]]} and {SCORES[worst[1]]}, {worst[2]:.2f}."
        )
    return lines


def _known(ordered: Sequence[Scored]) -> list[str]:
    return [
        f"{one.name} answers the target's classes: {100 * one.accuracy:.1f}% of these training examples right."
        for one in ordered
        if one.accuracy is not None
    ]
