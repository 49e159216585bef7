"""Variational information distillation: the student's features tell as much as they can about the teacher's.

Ahn, Hu, Damianou, Lawrence and Dai, 2019, "Variational Information Distillation for Knowledge Transfer",
arXiv:1904.05835, section 2.

    L = mean over examples and elements of ½ [(μ(f_s) − f_t)² / σ² + log σ²],    one variance σ² for each channel

The negative logarithm of a normal density of the teacher's features, without its constant ½ log 2π. It can be negative.

Departures: averaged over elements, as in public code. σ² counts as 1e-5 where it is smaller, so that the loss has a
minimum, ½ log 1e-5; the head's never is. Mean μ and variance σ² are the mapping head VIDRegressor; both are learned.
Needs: the student's pair (mean, variance) and the teacher's map or embedding.
Cost: light, O(B · elements).
Paper setting: weight 1 for the last map of every stage, head VIDRegressor().
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import is_tensor, mismatch, same_examples
from distill.numerics import widen

_SMALLEST = 1e-5


def normal_cost(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    """½ [(mean − target)² / variance + log variance], averaged over the elements of each example, (B,)."""
    variance = variance.clamp_min(_SMALLEST)
    cost = ((mean - target).square() / variance + variance.log()) / 2
    return cost.reshape(len(mean), -1).mean(1)


@dataclass(frozen=True)
class VID:
    """Negative log-likelihood of the teacher's features under the normal density that the head predicts.

    student: the pair (mean, scale) of the head VIDRegressor: the mean (B, C, H, W) or (B, D), and the variance σ², one
        for each channel (C,) or of any shape that broadcasts to the mean's, such as (B, C, 1, 1).
    teacher: of the mean's shape.

    Raises: ValueError where the student's value is no such pair, or where the shapes differ.
    """

    def __call__(self, student: tuple[Tensor, Tensor], teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not (isinstance(student, Sequence) and len(student) == 2 and all(map(is_tensor, student))):
            needs = "VID takes the student's pair (mean, variance) and the teacher's features"
            raise mismatch(needs, student, teacher, "Add head=VIDRegressor().")
        mean, variance = student
        if variance.ndim == 1:
            variance = variance.reshape(-1, *[1] * (mean.ndim - 2))
        if not same_examples(mean, teacher) or mean.shape != teacher.shape or not _broadcasts(variance, mean):
            needs = "VID compares features with a mean of their shape and one variance a channel"
            raise mismatch(needs, student, teacher, "Add head=VIDRegressor().")
        return normal_cost(widen(mean), widen(variance), widen(teacher.detach()))


def _broadcasts(variance: Tensor, mean: Tensor) -> bool:
    sides = zip(reversed(variance.shape), reversed(mean.shape), strict=False)
    return 2 <= mean.ndim >= variance.ndim and all(own in (1, side) for own, side in sides)
