"""Flow of solution procedure: how one layer's channels go with another's is the same in student and teacher.

Yim, Joo, Bae and Kim, 2017, "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer
Learning", CVPR 2017 (not on arXiv), eq. 1 and 2.

    G_ij = (1 / (H·W)) Σ_hw F1_i(h,w) F2_j(h,w)
    L = (1/B) Σ_b Σ_pairs ‖G_t − G_s‖²_F

Departures: the pairs' weights λ are 1; the pairs are the consecutive maps of the tuple. Where two maps of a pair differ
in size the larger is max-pooled to the smaller. Public code averages over the entries of G instead, or leaves out the
square.
Needs: a tuple of two or more maps (B, C, H, W) of each, channels equal map by map.
Cost: moderate, O(B·C1·C2·H·W) a pair.
Paper setting: weight 1, in a first stage of its own; then the student is trained on the task.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import are_maps, mismatch
from distill.numerics import widen, without_autocast


def flow(first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
    """The flow between two maps of one model, (B, C1, C2): mean over positions, max-pooled to the smaller size."""
    size = (min(first_BCHW.shape[2], second_BCHW.shape[2]), min(first_BCHW.shape[3], second_BCHW.shape[3]))
    first_BCN = _pooled(first_BCHW, size).flatten(2)
    second_BCN = _pooled(second_BCHW, size).flatten(2)
    with without_autocast(first_BCN):
        return first_BCN @ second_BCN.mT / first_BCN.shape[2]


def _pooled(map_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    return map_BCHW if map_BCHW.shape[2:] == size else F.adaptive_max_pool2d(map_BCHW, size)


@dataclass(frozen=True)
class FSP:
    """Squared difference of the flows between consecutive maps, summed over pairs and entries.

    student, teacher: tuples of two or more maps (B, C, H, W); the channels of the i-th maps must be equal, their sizes
    need not.

    Raises: ValueError where these are not tuples of maps of equal channels.
    """

    def __call__(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not (are_maps(student) and are_maps(teacher) and len(student) == len(teacher)):
            way_out = 'Tap several layers, as student=("layer1", "layer2").'
            raise mismatch(
                "FSP compares equally long tuples of two or more maps (B, C, H, W)", student, teacher, way_out
            )
        if any(one.shape[:2] != other.shape[:2] for one, other in zip(student, teacher, strict=True)):
            raise mismatch("FSP compares maps of equal channels", student, teacher, "Add head=Conv1x1().")
        pairs = zip(pairwise(map(widen, student)), pairwise(widen(x.detach()) for x in teacher), strict=True)
        return torch.stack([(flow(*one) - flow(*other)).square().sum((1, 2)) for one, other in pairs]).sum(0)
