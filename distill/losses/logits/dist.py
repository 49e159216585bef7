"""DIST: the student's probabilities correlate with the teacher's, over the classes and over the examples.

Huang, You, Wang, Qian and Xu, 2022, "Knowledge Distillation from A Stronger Teacher", arXiv:2205.10536, section 4.

    Y = softmax(z / T), B x K,    ρ = Pearson's correlation
    L = β (1 − mean over rows of ρ(Y_s, Y_t)) + γ (1 − mean over columns of ρ(Y_s, Y_t))

Departures: no T², as in the paper, where some public code has it. 1 − ρ is computed as ½ ‖u − v‖² of the centred rows
or columns at unit norm, exact near its minimum; public code adds 1e-8 to the product of the norms instead, which hides
the classes that all examples find unlikely. A constant row or column has no correlation: beside another constant one it
counts 0, beside a varying one ½, without gradient. So the second part is 0 in a batch of one. With two classes the
first part sees only which class is the likelier and has no gradient.
Needs: logits (B, K) of the same two or more classes.
Cost: light, O(B·K).
Paper setting: weight 2 beside cross-entropy 1, temperature=1.0, inter_weight=1.0, intra_weight=1.0 (ImageNet).
"""

from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import check_positive, check_scope, check_weight
from distill.losses.kinds import Coupled, Exclusive, Scope
from distill.losses.logits.kd import check_logits
from distill.losses.rows import meeting_rows
from distill.numerics import unit, widen


def centred(x: Tensor, dim: int) -> Tensor:
    """x less its mean along `dim`, at unit norm; zeros where x is constant."""
    # Less its first value before, so that a constant becomes exact zeros and not the rounding error of its mean.
    x = x - x.narrow(dim, 0, 1).detach()
    return unit(x - x.mean(dim, keepdim=True), dim)


def decorrelation(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """1 − ρ of Pearson's correlation along `dim`, from 0 to 2."""
    return (centred(student, dim) - centred(teacher, dim)).square().sum(dim) / 2


@dataclass(frozen=True)
class DIST(Coupled, Exclusive):
    """1 − correlation of the class probabilities over classes plus that over examples; logits (B, K).

    The first part is each example's own; the second is one number for the batch, and the share of every example in it.

    temperature: T > 0 of the softmax.
    inter_weight: weight of the correlation over the classes, for each example.
    intra_weight: weight of the correlation over the examples, for each class.
    scope: "global" correlates over the examples of all processes, "local" over those of one.

    Raises: ValueError where the shapes differ, or for fewer than two classes.
    """

    temperature: float = 1.0
    inter_weight: float = 1.0
    intra_weight: float = 1.0
    scope: Scope = "global"

    def __post_init__(self) -> None:
        check_positive("DIST.temperature", self.temperature)
        check_weight("DIST.inter_weight", self.inter_weight)
        check_weight("DIST.intra_weight", self.intra_weight)
        check_scope("DIST.scope", self.scope)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The share of each example, (B,)."""
        check_logits("DIST", student, teacher)
        student_BK = (widen(student) / self.temperature).softmax(1)
        teacher_BK = (widen(teacher.detach()) / self.temperature).softmax(1)
        all_student, all_teacher, _ = meeting_rows(student_BK, teacher_BK, self.scope)
        inter = decorrelation(student_BK, teacher_BK, 1)
        return self.inter_weight * inter + self.intra_weight * decorrelation(all_student, all_teacher, 0).mean()
