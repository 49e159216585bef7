"""Two models on the same examples of one label: are their AUROCs further apart than chance puts them?"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.metrics.checks import check_finite, check_labelled


@dataclass(frozen=True)
class DeLong:
    """AUROC of two models on the same examples, and what its difference, second less first, is sure of.

    z: difference over standard_error. p: two-sided, of no difference. Where the areas differ though no example makes a
    difference to it (one model is always right, the other always wrong) standard_error is 0, and z and p are NaN.
    """

    first: float
    second: float
    difference: float
    standard_error: float
    z: float
    p: float


def delong(first: Tensor, second: Tensor, labels: Tensor) -> DeLong:
    """Compare two models' AUROC on one label by DeLong's test; ties count by half, unknown labels are left out.

    It takes the examples for independent draws, which several images of one patient are not: its p is then too small.
    Give the interval of `resample` beside it, which draws patients.

    first, second: logits (N,). labels: (N,), 1, 0 or NaN. All NaN where the known examples are of one class only; the
    standard error, z and p also where a class has a single example and the models differ there.

    DeLong, DeLong and Clarke-Pearson, 1988, "Comparing the Areas under Two or More Correlated Receiver Operating
    Characteristic Curves: A Nonparametric Approach", doi:10.2307/2531595; by sorting, in O(N log N), as Sun and Xu,
    2014, "Fast Implementation of DeLong's Algorithm for Comparing the Areas Under Correlated Receiver Operating
    Characteristic Curves", doi:10.1109/LSP.2014.2337313.

    Raises:
        ValueError: no examples, shapes that do not meet, labels that are not 1, 0 or NaN, or logits that are not
            finite.
    """
    for name, logits in (("The first model's logits", first), ("The second model's logits", second)):
        if logits.ndim != 1:
            raise ValueError(f"DeLong compares logits (N,) of one label, got {tuple(logits.shape)}.")
        check_labelled(logits, labels)
        check_finite(name, logits)
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    if positives == 0 or negatives == 0:
        return DeLong(*[math.nan] * 6)
    (above_1, over_1), (above_2, over_2) = _wins(first, labels), _wins(second, labels)
    pairs = positives * negatives
    # Halves of whole numbers until here, so that what does not vary has a variance of exactly 0.
    variance = (
        _variance(above_2 - above_1) / negatives**2 / positives + _variance(over_2 - over_1) / positives**2 / negatives
    )
    difference = float((above_2 - above_1).sum()) / pairs
    error = math.sqrt(variance)
    z, p = _test(difference, error)
    return DeLong(float(above_1.sum()) / pairs, float(above_2.sum()) / pairs, difference, error, z, p)


def _wins(logits_N: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """How many negatives each positive stands above, and how many positives each negative; ties by half."""
    positive, negative = logits_N[labels_N == 1], logits_N[labels_N == 0]
    return _below(negative, positive), _below(positive, negative)


def _below(others: Tensor, values: Tensor) -> Tensor:
    """How many of the others each value stands above, those equal to it by half, float64."""
    ordered = others.sort().values
    return (torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)).double() / 2


def _variance(values: Tensor) -> float:
    """Of a sample, with n - 1; 0 where nothing differs from 0, else NaN of a single one."""
    if not bool(values.any()):
        return 0.0
    return float((values - values.mean()).square().sum()) / (len(values) - 1) if len(values) > 1 else math.nan


def _test(difference: float, error: float) -> tuple[float, float]:
    if error == 0:
        return (0.0, 1.0) if difference == 0 else (math.nan, math.nan)
    z = difference / error
    return z, math.erfc(abs(z) / math.sqrt(2))
