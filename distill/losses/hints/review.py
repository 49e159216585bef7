"""Knowledge review's hierarchical context loss: maps agree as a whole, and averaged to coarser and coarser grids.

Chen, Liu, Zhao and Jia, 2021, "Distilling Knowledge via Knowledge Review", arXiv:2104.09044, section 3.

    L = Σ_stages Σ_l w_l · mean (pool_l(f_s) − pool_l(f_t))² / Σ_l w_l,    w = 1 for the whole map, then ½, ¼, ⅛, ...

pool_l averages a map to l x l, for the levels l smaller than its sides; the first of these has the weight ½.

Departures: none; for maps that are not square, l must be smaller than both sides. The fusion of the student's stages is
the mapping head ReviewFusion and no part of the loss.
Needs: a map (B, C, H, W), or a tuple of one map a stage, of equal shapes.
Cost: light, O(B · elements).
Paper setting: weight 5 (1 for other pairs on CIFAR-100), rising over the first 20 epochs, levels=(4, 2, 1), the maps of
all stages and the pooled one, the teacher's from before the ReLU, head ReviewFusion().
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import mismatch, same_examples
from distill.numerics import widen


def hierarchical_context(difference_BCHW: Tensor, *, levels: Sequence[int]) -> Tensor:
    """Weighted mean over the levels of the mean square of a difference of maps, averaged to each level, (B,).

    Averaging is linear, so the difference is averaged and not each map.
    """
    fitting = [level for level in levels if level < min(difference_BCHW.shape[2:])]
    grids = [difference_BCHW, *(F.adaptive_avg_pool2d(difference_BCHW, level) for level in fitting)]
    weights = [0.5**position for position in range(len(grids))]
    parts = [weight * grid.square().mean((1, 2, 3)) for weight, grid in zip(weights, grids, strict=True)]
    return torch.stack(parts).sum(0) / sum(weights)


@dataclass(frozen=True)
class ReviewHCL:
    """Mean squared difference of whole and averaged maps, summed over stages.

    student, teacher: a map (B, C, H, W) each, or equally long tuples of maps, one a stage; equal shapes.

    levels: sides of the grids that the maps are averaged to, from the one that counts most to the one that counts
        least.

    Raises: ValueError where these are not maps, or where the shapes differ.
    """

    levels: tuple[int, ...] = (4, 2, 1)

    def __post_init__(self) -> None:
        if not all(level >= 1 for level in self.levels):
            raise ValueError(f"ReviewHCL.levels must be whole numbers of at least 1, got {self.levels}.")

    def __call__(
        self, student: Tensor | tuple[Tensor, ...], teacher: Tensor | tuple[Tensor, ...], batch: Batch
    ) -> Tensor:
        """The loss of each example, (B,)."""
        ours, theirs = _stages(student), _stages(teacher)
        if isinstance(student, Tensor) != isinstance(teacher, Tensor) or not _agree(ours, theirs):
            raise mismatch(
                "ReviewHCL compares maps (B, C, H, W) of equal shapes", student, teacher, "Add head=ReviewFusion()."
            )
        differences = [widen(one) - widen(other.detach()) for one, other in zip(ours, theirs, strict=True)]
        return torch.stack([hierarchical_context(x, levels=self.levels) for x in differences]).sum(0)


def _stages(maps: object) -> Sequence[Tensor]:
    if isinstance(maps, Tensor):
        return (maps,)
    return maps if isinstance(maps, Sequence) else ()


def _agree(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> bool:
    return len(ours) == len(theirs) > 0 and all(
        same_examples(one, other, 4) and one.shape == other.shape and len(one) == len(ours[0])
        for one, other in zip(ours, theirs, strict=True)
    )
