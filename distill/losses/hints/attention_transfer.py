"""Attention transfer: where the student's feature map is active, the teacher's is.

Zagoruyko and Komodakis, 2017, "Paying More Attention to Attention: Improving the Performance of Convolutional Neural
Networks via Attention Transfer", arXiv:1612.03928, eq. 2.

    Q(f) = v / ‖v‖,    v = vec(mean over channels of |f|^p)
    L = mean over examples and positions of (Q(f_s) − Q(f_t))²

Departures: squared and averaged over positions, as in the authors' code and every other; eq. 2 has the norm, not
squared. Maps of different height or width are averaged down to the smaller one first.
Needs: one map (B, C, H, W) of each; channels and sizes may differ.
Cost: light, O(B·C·H·W).
Paper setting: weight 1000 for each of the last map of every stage, power=2.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import mismatch, same_examples
from distill.numerics import unit, widen


def pooled(map_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """The map averaged to a height and width; the map itself where it has them."""
    return map_BCHW if map_BCHW.shape[2:] == size else F.adaptive_avg_pool2d(map_BCHW, size)


def attention(map_BCHW: Tensor, *, power: float) -> Tensor:
    """Where a map is active: mean over channels of |f|^power, as (B, H·W) of unit norm; a dead map gives zeros."""
    return unit(map_BCHW.abs().pow(power).mean(1).flatten(1), 1)


@dataclass(frozen=True)
class AttentionTransfer:
    """Mean squared difference of the normalised attention of two maps (B, C, H, W); channels and sizes may differ.

    power: p of |f|^p, at least 1; a higher one looks at the strongest channels.

    Raises: ValueError where the arguments are not maps of equally many examples.
    """

    power: float = 2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.power) and self.power >= 1):
            raise ValueError(f"AttentionTransfer.power must be a finite number of at least 1, got {self.power}.")

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not same_examples(student, teacher, 4):
            raise mismatch(
                "AttentionTransfer compares maps (B, C, H, W)", student, teacher, "Tap one feature map of each."
            )
        size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
        student_BN = attention(pooled(widen(student), size), power=self.power)
        teacher_BN = attention(pooled(widen(teacher.detach()), size), power=self.power)
        return (student_BN - teacher_BN).square().mean(1)
