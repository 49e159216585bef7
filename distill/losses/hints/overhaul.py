"""Overhaul: before the ReLU, the student follows the teacher where it is active and stays below it where it is not.

Heo, Kim, Yun, Park, Kwak and Choi, 2019, "A Comprehensive Overhaul of Feature Distillation", arXiv:1904.01866,
section 3.

    T' = max(T, m),    m ≤ 0 the margin of the channel
    L = (1/B) Σ_b Σ_chw (S − T')² · [S > T' or T' > 0]

Departures: none; a sum over elements, so the weight depends on the layer's size. The student's 1x1 convolution and
norm, and the margin E[x | x < 0] of the teacher's batch normalisation, are the mapping head Connector.
Needs: maps (B, C, H, W) of equal shape from before the ReLU.
Cost: light, O(B · elements).
Paper setting: weight 1e-3 for the last stage, halved for each stage before it, each map before its ReLU, head
Connector(norm=...) with the norm in front of that ReLU.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import mismatch, same_examples
from distill.numerics import widen


def partial_distance(student_BCHW: Tensor, raised_BCHW: Tensor) -> Tensor:
    """Squared distance of each example, (B,), without the elements where both are negative and the student's is lower.

    raised_BCHW: the teacher's map, raised to its margin.
    """
    counts = (student_BCHW > raised_BCHW) | (raised_BCHW > 0)
    return ((student_BCHW - raised_BCHW).square() * counts).sum((1, 2, 3))


@dataclass(frozen=True)
class Overhaul:
    """Partial squared distance, summed over elements, of maps (B, C, H, W) of equal shape from before the ReLU.

    margin: what the teacher's values are raised to, at most 0: one number, or one for each channel; None where the head
        Connector has raised them.

    Raises: ValueError where the shapes differ, or where there are not as many margins as channels.
    """

    margin: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        margins = self.margin if isinstance(self.margin, tuple) else (self.margin or 0.0,)
        if not margins or not all(math.isfinite(margin) and margin <= 0 for margin in margins):
            raise ValueError(
                "Overhaul.margin must be a finite number of at most 0, one for each channel, or None, "
                f"got {self.margin}."
            )

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not same_examples(student, teacher, 4) or student.shape != teacher.shape:
            raise mismatch(
                "Overhaul compares maps (B, C, H, W) of equal shape", student, teacher, "Add head=Connector(norm=...)."
            )
        if isinstance(self.margin, tuple) and len(self.margin) != student.shape[1]:
            needs = f"Overhaul compares maps of as many channels as it has margins, {len(self.margin)}"
            raise mismatch(needs, student, teacher, "Give one margin for each channel of the teacher.")
        return partial_distance(widen(student), self._raised(widen(teacher.detach())))

    def _raised(self, teacher_BCHW: Tensor) -> Tensor:
        if self.margin is None:
            return teacher_BCHW
        if isinstance(self.margin, tuple):
            return teacher_BCHW.maximum(teacher_BCHW.new_tensor(self.margin)[:, None, None])
        return teacher_BCHW.clamp_min(self.margin)
