"""Whether a label's probability says how often it holds: reliability in bins, and the expected calibration error.

Guo, Pleiss, Sun and Weinberger, 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599, eq. 3, here of the
probability of one label and not of the top class.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.metrics.checks import check_labelled, check_table

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Known examples whose probability lies in [low, high), the last bin with its end.

    confidence: their mean probability. frequency: how often the label holds. Both are NaN where `count` is 0.
    """

    low: float
    high: float
    count: int
    confidence: float
    frequency: float


def reliability(logits: Tensor, labels: Tensor, *, bins: int = BINS) -> tuple[Bin, ...]:
    """All bins of probability from 0 to 1, equally wide, of one label (N,), or of all pooled where they are (N, K).

    Raises:
        ValueError: no examples, shapes that do not meet, labels that are not 1, 0 or NaN, or no bins.
    """
    check_labelled(logits, labels)
    if bins < 1:
        raise ValueError(f"Reliability needs at least one bin, got {bins}.")
    known = ~labels.isnan()
    probability_M, label_M = logits[known].double().sigmoid(), labels[known].double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    place_M = (torch.bucketize(probability_M, edges, right=True) - 1).clamp(max=bins - 1)
    count = torch.bincount(place_M, minlength=bins)
    confidence, frequency = (
        (torch.bincount(place_M, weights=values, minlength=bins) / count).tolist()
        for values in (probability_M, label_M)
    )
    rows = zip(edges[:-1].tolist(), edges[1:].tolist(), count.tolist(), confidence, frequency, strict=True)
    return tuple(Bin(*row) for row in rows)


def label_calibration_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Expected calibration error of each label, float64 (K,), in [0, 1]: over 15 bins of its probability.

    The distance between mean probability and frequency in each bin, weighted by the share of its examples; NaN where
    no example is known.

    Raises:
        ValueError: no examples, shapes that do not meet, or labels that are not 1, 0 or NaN.
    """
    check_table(logits, labels)
    errors = [_error(reliability(*of_label)) for of_label in zip(logits.unbind(1), labels.unbind(1), strict=True)]
    return torch.tensor(errors, dtype=torch.float64)


def _error(bins: tuple[Bin, ...]) -> float:
    filled = [one for one in bins if one.count > 0]
    total = sum(one.count for one in filled)
    gaps = sum(one.count * abs(one.confidence - one.frequency) for one in filled)
    return gaps / total if total > 0 else math.nan
