"""Neuron selectivity transfer: the student's channels respond to the same positions as the teacher's, as a whole.

Huang and Wang, 2017, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", arXiv:1707.01219,
section 4.

    a_c = v / ‖v‖,    v = the values of channel c at all positions,    k(a, b) = (a · b)²
    L = mean k(a_t, a_t) + mean k(a_s, a_s) − 2 mean k(a_s, a_t),    means over examples and all pairs of channels

Departures: the teacher's own term is kept, so that the minimum is 0; it has no gradient. The paper's ½ is a weight.
Maps of different height or width are averaged down to the smaller one first. A dead channel has a = 0.
Needs: one map (B, C, H, W) of each; channels and sizes may differ.
Cost: moderate, O(C · H·W · min(C, H·W)) an example.
Paper setting: weight 50 for the last map of every stage (CIFAR-100, as in the literature's tables).
"""

from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import mismatch, same_examples
from distill.losses.hints.attention_transfer import pooled
from distill.numerics import unit, widen, without_autocast


def selectivity_discrepancy(student_BCN: Tensor, teacher_BCN: Tensor) -> Tensor:
    """Squared maximum mean discrepancy, under k(a, b) = (a · b)², of two sets of unit vectors over N positions, (B,).

    Vectors a and b as columns of A and B: Σ (a · b)² = ‖Aᵀ B‖² = ⟨A Aᵀ, B Bᵀ⟩. So it is also the squared difference of
    the two mean Gram matrices over positions, which is taken where there are fewer positions than channels.
    """
    with without_autocast(student_BCN):
        if student_BCN.shape[2] <= max(student_BCN.shape[1], teacher_BCN.shape[1]):
            return (_mean_gram(student_BCN) - _mean_gram(teacher_BCN)).square().sum((1, 2))
        own = _mean_kernel(student_BCN, student_BCN) + _mean_kernel(teacher_BCN, teacher_BCN)
        return own - 2 * _mean_kernel(student_BCN, teacher_BCN)


def _mean_kernel(one_BCN: Tensor, other_BCN: Tensor) -> Tensor:
    return (one_BCN @ other_BCN.mT).square().mean((1, 2))


def _mean_gram(vectors_BCN: Tensor) -> Tensor:
    return vectors_BCN.mT @ vectors_BCN / vectors_BCN.shape[1]


@dataclass(frozen=True)
class NST:
    """Discrepancy between the sets of channels of two maps (B, C, H, W); channels and sizes may differ.

    Raises: ValueError where the arguments are not maps of equally many examples.
    """

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not same_examples(student, teacher, 4):
            raise mismatch("NST compares maps (B, C, H, W)", student, teacher, "Tap one feature map of each.")
        size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
        student_BCN = unit(pooled(widen(student), size).flatten(2), 2)
        teacher_BCN = unit(pooled(widen(teacher.detach()), size).flatten(2), 2)
        return selectivity_discrepancy(student_BCN, teacher_BCN)
