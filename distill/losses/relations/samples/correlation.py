"""Correlation congruence: the kernel between any two examples is as large in the student as in the teacher.

Peng, Jin, Liu, Li, Wu, Liu, Zhou and Zhang, 2019, "Correlation Congruence for Knowledge Distillation",
arXiv:1904.01802, section 3.

    K(x, y) = e^(−2γ) Σ_{p=0..P} (2γ)^p / p! (x · y)^p,    x, y of unit norm
    L = (1/B²) ‖K(F_t) − K(F_s)‖²_F

K is the Taylor series of the Gaussian kernel exp(−γ ‖x − y‖²), up to order P.

Departures: rows have unit norm, without which K is not that series. The authors' code has no kernel, and other public
code leaves out the square and the norm: three losses of one name. Example i's share is (1/B) Σ_j (K_t − K_s)²_ij. A
batch of one has no relation: its loss and gradient are 0.
Needs: embeddings (B, D); widths may differ.
Cost: moderate, O(B² D).
Paper setting: weight 0.003 on the root of ours over B (the public kernel form), gamma=0.4, order=2, embeddings before
the classifier; the tables' CC row is the form without a kernel, weight 0.02.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import check_positive, check_scope, mismatch, same_examples
from distill.losses.kinds import Coupled, Scope
from distill.losses.rows import meeting_rows
from distill.numerics import unit, without_autocast


def kernel(features_BD: Tensor, rows: slice, *, gamma: float, order: int) -> Tensor:
    """The Gaussian kernel's series between the chosen examples and all, (rows, B), of rows set to unit norm."""
    units_BD = unit(features_BD, 1)
    with without_autocast(units_BD):
        cosines_RB = units_BD[rows] @ units_BD.T
    # e^(−2γ) (2γ)^p / p! by its logarithm, since the factors leave float's range before their product does.
    terms = [math.exp(p * math.log(2 * gamma) - 2 * gamma - math.lgamma(p + 1)) for p in range(order + 1)]
    kernel_RB = torch.full_like(cosines_RB, terms[-1])
    for term in reversed(terms[:-1]):
        kernel_RB = kernel_RB * cosines_RB + term
    return kernel_RB


@dataclass(frozen=True)
class CorrelationCongruence(Coupled):
    """Mean squared difference of the Gaussian kernels between examples; embeddings (B, D), widths may differ.

    gamma: γ > 0 of the kernel exp(−γ ‖x − y‖²); a higher one looks at close neighbours only.
    order: P ≥ 1, the highest power of the kernel's series.
    scope: "global" compares the examples of all processes, "local" those of one.

    Raises: ValueError where the arguments are not embeddings of equally many examples.
    """

    gamma: float = 0.4
    order: int = 2
    scope: Scope = "global"

    def __post_init__(self) -> None:
        check_positive("CorrelationCongruence.gamma", self.gamma)
        if not (isinstance(self.order, int) and self.order >= 1):
            raise ValueError(f"CorrelationCongruence.order must be a whole number of at least 1, got {self.order}.")
        check_scope("CorrelationCongruence.scope", self.scope)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The share of each example, (B,)."""
        if not same_examples(student, teacher, 2):
            raise mismatch("CorrelationCongruence compares embeddings (B, D)", student, teacher, 'Tap "embedding".')
        student, teacher, own = meeting_rows(student, teacher, self.scope)
        student_RB = kernel(student, own, gamma=self.gamma, order=self.order)
        teacher_RB = kernel(teacher, own, gamma=self.gamma, order=self.order)
        return (student_RB - teacher_RB).square().mean(1)
