"""Inter-channel correlation: which channels of the teacher's map are alike are alike in the student's.

Liu, Huang, Lin, Xie, Wang, Chang and Liang, 2021, "Exploring Inter-Channel Correlation for Diversity-preserved
Knowledge Distillation", arXiv:2202.03680, section 3.

    G = F Fᵀ with every row divided by its L2 norm,    F = map of one example as (C, H·W)
    L = (1/B) Σ_b ‖G_s − G_t‖²_F / C

Departures: divided by C and with normalised rows, as in the authors' code; the paper divides by C². Where two maps
differ in size the larger is averaged down. A dead channel has an all-zero row, and gradient 0.
Needs: one feature map (B, C, H, W) of each model, with equal channels.
Cost: moderate, O(B·C²·H·W).
Paper setting: weight 2.5, the last feature map, head Conv1x1() (CIFAR-100, the authors' code).
"""

from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import mismatch, same_examples
from distill.losses.hints.attention_transfer import pooled
from distill.numerics import unit, widen, without_autocast


def channel_correlation(map_BCHW: Tensor) -> Tensor:
    """How each channel goes with the others, (B, C, C), each row of unit norm; a dead channel's row is zero."""
    map_BCN = map_BCHW.flatten(2)
    with without_autocast(map_BCN):
        return unit(map_BCN @ map_BCN.mT)


def correlation_difference(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """Squared difference of each example's channel correlations over C, (B,); maps of one size."""
    off_BCC = channel_correlation(student_BCHW) - channel_correlation(teacher_BCHW)
    return off_BCC.square().sum(2).mean(1)


@dataclass(frozen=True)
class InterChannel:
    """Squared difference of the channels' normalised products, over C; maps (B, C, H, W), sizes may differ.

    Raises: ValueError where the arguments are not maps of equal channels.
    """

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not same_examples(student, teacher, 4) or student.shape[1] != teacher.shape[1]:
            way_out = "Add head=Conv1x1()."
            raise mismatch("InterChannel compares maps (B, C, H, W) of equal channels", student, teacher, way_out)
        size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
        return correlation_difference(pooled(widen(student), size), pooled(widen(teacher.detach()), size))
