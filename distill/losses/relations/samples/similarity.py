"""Similarity preserving: examples that activate the teacher alike activate the student alike.

Tung and Mori, 2019, "Similarity-Preserving Knowledge Distillation", arXiv:1907.09682, section 3.

    G = F Fᵀ with every row divided by its L2 norm,    F = features flattened to (B, D), not normalised
    L = (1/B²) ‖G_t − G_s‖²_F

Departures: none. Example i's share is (1/B) Σ_j (G_t − G_s)²_ij. A batch of one has no relation: its loss and gradient
are 0.
Needs: one tensor (B, ...) of each; shapes may differ.
Cost: moderate, O(B²·D).
Paper setting: weight 3000, the last feature map.
"""

from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import check_scope, mismatch, same_examples
from distill.losses.kinds import Coupled, Scope
from distill.losses.rows import meeting_rows
from distill.numerics import unit, without_autocast


def similarities(features: Tensor, rows: slice) -> Tensor:
    """Similarity of the chosen examples to all, (rows, B), each row with unit norm, from features (B, ...)."""
    features_BD = features.flatten(1)
    with without_autocast(features_BD):
        return unit(features_BD[rows] @ features_BD.T, 1)


@dataclass(frozen=True)
class SimilarityPreserving(Coupled):
    """Mean squared difference of the normalised similarities between examples; any (B, ...), and widths may differ.

    scope: "global" compares the examples of all processes, "local" those of one.

    Raises: ValueError where the numbers of examples differ.
    """

    scope: Scope = "global"

    def __post_init__(self) -> None:
        check_scope("SimilarityPreserving.scope", self.scope)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The share of each example, (B,)."""
        if not same_examples(student, teacher) or student.ndim < 2 or teacher.ndim < 2:
            raise mismatch(
                "SimilarityPreserving compares features (B, ...)", student, teacher, "Tap one tensor of each."
            )
        student, teacher, own = meeting_rows(student, teacher, self.scope)
        return (similarities(student, own) - similarities(teacher, own)).square().mean(1)
