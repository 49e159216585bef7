"""Factor transfer: the student's factors, made by a translator, are the teacher's, made by a paraphraser.

Kim, Park and Kwak, 2018, "Paraphrasing Complex Network: Network Compression via Factor Transfer", arXiv:1802.04977,
section 3.

    L = mean over examples and elements of |F_t / ‖F_t‖ − F_s / ‖F_s‖|,    F = factor, flattened

Departures: averaged over elements, as in the authors' code, with p = 1. A zero factor stays zero, with gradient 0.
Public code for CIFAR-100 averages the squared channels to one attention map before normalising: another quantity.
Paraphraser and translator are mapping heads and no part of the loss.
Needs: factors (B, ...) of equal shape, such as the two that the head Factors gives.
Cost: light, O(B · elements).
Paper setting: weight 500 (CIFAR-10), the last feature map, head Factors(rate=0.5), after a stage of Hint with the head
Paraphraser(rate=0.5).
"""

from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import mismatch, same_examples
from distill.numerics import unit, widen


def factor_difference(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean absolute difference of the factors divided by their norms, (B,)."""
    return (unit(teacher_BD, 1) - unit(student_BD, 1)).abs().mean(1)


@dataclass(frozen=True)
class FactorTransfer:
    """Mean absolute difference of the normalised factors of student and teacher, of equal shape (B, ...).

    Raises: ValueError where the shapes differ.
    """

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not same_examples(student, teacher) or student.shape != teacher.shape or student.ndim < 2:
            raise mismatch("FactorTransfer compares factors of equal shape", student, teacher, "Add head=Factors().")
        return factor_difference(widen(student).flatten(1), widen(teacher.detach()).flatten(1))
