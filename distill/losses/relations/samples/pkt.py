"""Probabilistic knowledge transfer: an example's chances of meeting each other one are the student's as the teacher's.

Passalis and Tefas, 2018, "Learning Deep Representations with Probabilistic Knowledge Transfer", arXiv:1803.10837,
section 3.

    K_ij = (cos(f_i, f_j) + 1) / 2,    P_ij = K_ij / Σ_k K_ik,    ε = 1e-7
    L = (1/B²) Σ_ij P_t,ij log((P_t,ij + ε) / (P_s,ij + ε))

Departures: an example's chance of meeting itself is counted and the sum is divided by B², as in all public code; the
paper leaves the first out and does not divide. Norms are not enlarged by 1e-7, so that a row of zeros has gradient 0
instead of 1e7; rounding cannot make K negative, which would make the logarithm NaN for opposite examples. Example i's
share is the mean over j, at least −ε. A batch of one has no relation: its loss and gradient are 0.
Needs: embeddings (B, D); widths may differ.
Cost: moderate, O(B² D).
Paper setting: weight 30000, embeddings before the classifier.
"""

from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import check_scope, mismatch, same_examples
from distill.losses.kinds import Coupled, Scope
from distill.losses.rows import meeting_rows
from distill.numerics import unit, without_autocast

EPSILON = 1e-7


def chances(features_BD: Tensor, rows: slice) -> Tensor:
    """The chosen examples' chances of meeting each example, (rows, B), each row with sum 1."""
    units_BD = unit(features_BD, 1)
    with without_autocast(units_BD):
        cosines_RB = units_BD[rows] @ units_BD.T
    kernel_RB = ((cosines_RB + 1) / 2).clamp_min(0)
    return kernel_RB / kernel_RB.sum(1, keepdim=True)


@dataclass(frozen=True)
class PKT(Coupled):
    """Divergence of the chances by which examples meet; embeddings (B, D), widths may differ.

    scope: "global" compares the examples of all processes, "local" those of one.

    Raises: ValueError where the arguments are not embeddings of equally many examples.
    """

    scope: Scope = "global"

    def __post_init__(self) -> None:
        check_scope("PKT.scope", self.scope)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The share of each example, (B,)."""
        if not same_examples(student, teacher, 2):
            raise mismatch("PKT compares embeddings (B, D)", student, teacher, 'Tap "embedding".')
        student, teacher, own = meeting_rows(student, teacher, self.scope)
        student_RB, teacher_RB = chances(student, own), chances(teacher, own)
        return (teacher_RB * ((teacher_RB + EPSILON).log() - (student_RB + EPSILON).log())).mean(1)
