"""How sure AUROC and average precision are, by drawing the patients anew.

Images of one patient are alike, so it is patients that are drawn, with all their images; and the same patients for all
models and labels, so that two models, or two labels, can be compared within each draw. Efron and Tibshirani, 1993, "An
Introduction to the Bootstrap" (not on arXiv), chapters 8 and 13.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from distill.metrics.checks import check_finite, check_patients, check_table

RESAMPLES = 1000
TAILS = (0.025, 0.975)
# As many as keep the weights of some thousand patients in the processor's cache.
_AT_ONCE = 50

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Resamples:
    """AUROC and average precision of M models in R resamples of K labels, float64 (M, R, K).

    NaN where a resample has one class only of a label. Index r is the same patients for all models and labels.
    """

    auroc: Tensor
    average_precision: Tensor


@dataclass(frozen=True)
class Bounds:
    """What holds the true value with 95% confidence, and the standard error."""

    low: float
    high: float
    standard_error: float


def resample(
    scores: Sequence[Tensor], labels: Tensor, patient: Tensor, *, resamples: int = RESAMPLES, seed: int = 0
) -> Resamples:
    """AUROC and average precision of each model and label on patients drawn with replacement.

    scores: of each model, logits (N, K). labels: (N, K), 1, 0 or NaN. patient: int64 (N,), whose each example is.

    Raises:
        ValueError: no model, no examples, shapes that do not meet, labels that are not 1, 0 or NaN, logits that are not
            finite, or no resamples.
    """
    if not scores or resamples < 1:
        raise ValueError(f"A bootstrap needs a model and a resample, got {len(scores)} models, resamples={resamples}.")
    for logits in scores:
        check_table(logits, labels)
        check_finite("The logits", logits)
    check_patients(patient, len(labels))
    whose_N = np.unique(patient.numpy(), return_inverse=True)[1]
    patients = int(whose_N.max()) + 1
    places = [
        [_places(of_label, truth, whose_N, patients) for of_label, truth in zip(*columns, strict=True)]
        for columns in ((logits.unbind(1), labels.unbind(1)) for logits in scores)
    ]
    areas = np.empty((2, len(scores), resamples, labels.shape[1]))
    for rows, drawn_PR in _draws(patients, resamples, seed):
        for model, of_model in enumerate(places):
            for label, place in enumerate(of_model):
                areas[:, model, rows, label] = _areas(place, drawn_PR)
    return Resamples(*torch.from_numpy(areas))


def interval(values: Tensor) -> Bounds:
    """Percentiles 2.5 and 97.5 of resampled values (R,), and their standard deviation; those that are NaN do not count.

    All NaN where fewer than half of the resamples have a value, or fewer than two.

    Raises:
        ValueError: values that are not (R,).
    """
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"An interval is of resampled values (R,), at least one, got {tuple(values.shape)}.")
    defined = values[~values.isnan()].double()
    if 2 * len(defined) < len(values) or len(defined) < 2:
        return Bounds(math.nan, math.nan, math.nan)
    low, high = defined.quantile(torch.tensor(TAILS, dtype=torch.float64)).tolist()
    return Bounds(low, high, float(defined.std()))


def mean_over_labels(values: Tensor) -> Tensor:
    """Mean of each row of (R, K) over what is not NaN, (R,); NaN where nothing is."""
    return values.nanmean(1)


def labels_above_chance(logits: Tensor, labels: Tensor, patient: Tensor) -> bool:
    """Whether the mean AUROC over labels is above 0.5 with 95% confidence, by 1000 resamples of patients.

    Raises:
        ValueError: as `resample`.
    """
    return interval(mean_over_labels(resample([logits], labels, patient).auroc[0])).low > 0.5


@dataclass(frozen=True)
class _Places:
    """Where the patients' known examples of one label stand in a model's order: all that the two areas depend on.

    positives: (U, P), how many examples of each patient are positive and have the u-th lowest score of a positive.
    negatives: (2 U + 1, P), likewise between those scores (even rows) and at them (odd rows).
    """

    positives: csr_array
    negatives: csr_array


def _places(logits_N: Tensor, labels_N: Tensor, whose_N: NDArray[np.int64], patients: int) -> _Places:
    score_N, truth_N = logits_N.double().numpy(), labels_N.numpy()
    levels_U, positive = np.unique(score_N[truth_N == 1], return_inverse=True)
    negative = sum(np.searchsorted(levels_U, score_N[truth_N == 0], side) for side in ("left", "right"))
    return _Places(
        _counts(positive, whose_N[truth_N == 1], (len(levels_U), patients)),
        _counts(negative, whose_N[truth_N == 0], (2 * len(levels_U) + 1, patients)),
    )


def _counts(rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]) -> csr_array:
    """How often each pair of row and column occurs."""
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def _draws(patients: int, resamples: int, seed: int) -> Iterator[tuple[slice, Floats]]:
    """Some resamples at a time: which, and how often each patient was drawn in them, (P, R)."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, _AT_ONCE):
        rows = slice(start, min(start + _AT_ONCE, resamples))
        drawn_RP = generator.integers(patients, size=(rows.stop - rows.start, patients))
        weights = [np.bincount(of_one, minlength=patients) for of_one in drawn_RP]
        yield rows, np.stack(weights, axis=1).astype(np.float64)


def _areas(places: _Places, drawn_PR: Floats) -> tuple[Floats, Floats]:
    """AUROC and average precision in each resample, (R,) both, from sums of weights, which are exact."""
    positive_UR = places.positives @ drawn_PR
    at_most_VR = (places.negatives @ drawn_PR).cumsum(0)
    below_UR, until_UR, negatives_R = at_most_VR[:-1:2], at_most_VR[1::2], at_most_VR[-1]
    found_UR = positive_UR[::-1].cumsum(0)[::-1]
    positives_R = positive_UR.sum(0)
    known = (positives_R > 0) & (negatives_R > 0)
    pairs_R = np.where(known, positives_R * negatives_R, math.nan)
    auroc_R = (positive_UR * (below_UR + until_UR)).sum(0) / 2 / pairs_R
    # Nothing is found at a score above all positives of the resample: no precision, and no step in recall.
    answered_UR = np.maximum(found_UR + negatives_R - below_UR, 1)
    precision_R = (positive_UR * found_UR / answered_UR).sum(0) / np.where(known, positives_R, math.nan)
    return auroc_R, precision_R
