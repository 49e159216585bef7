"""Singular vectors: how the main directions of one layer's channels go with another's is as in the teacher.

Lee, Kim and Song, 2018, "Self-supervised Knowledge Distillation Using Singular Value Decomposition", ECCV 2018,
arXiv:1807.06819, section 3.

    V = the k right singular vectors of a map as (H·W, C) with the largest values σ, times σ_t / ‖σ_t‖
    R(i, i−1) = exp(−(v_i − v'_{i−1})² / 8),    each entry of v_i with each of v'_{i−1}, vector by vector
    L = (1/B) Σ_b Σ_consecutive layers ‖R_s − R_t‖²

Of the student k + 3 vectors are taken; each of the teacher's meets the one with the largest |cosine|, turned to its
side. Both are multiplied by the teacher's σ, so only their directions differ.

Departures: (H·W, C), as in RepDistiller; another public code has (C·H, W), which compares columns of pixels. The sign
of a singular vector is arbitrary, and R depends on it: the teacher's vectors are turned so that their entries sum to 0
or more. Vectors that a map does not have (k above its rank, or σ² below 1e-6 of Σ σ²) are zero. The gradient of a
vector leaves out the directions whose σ² is within about 1e-5 (of Σ σ²) of its own: there the vector is not determined,
and its gradient is without bound.
Needs: equally many maps (B, C, H, W), two or more, of each model; the channels of the i-th maps equal.
Cost: heavy, O(B·min(C, H·W)³) for each layer and O(B·C²·k) for each pair.
Paper setting: weight 1, rank=1, the last map of each stage.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import are_maps, mismatch
from distill.numerics import unit, widen, without_autocast

_MORE = 3  # vectors that the student offers beyond the teacher's
_GAP = 1e-5  # of σ² over Σ σ²: below it two vectors count as one plane
_ABSENT = 1e-6  # of σ² over Σ σ²: below it a vector counts as none; float32 cannot tell it from rounding


def leading_eigenvectors(symmetric_BNN: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues (B, count), detached, and eigenvectors (B, N, count) of the largest ones, largest first.

    The gradient is that of first-order perturbation, dv_i = Σ_j v_j (v_jᵀ dA v_i) / (λ_i − λ_j), where 1 / gap is
    gap / (gap² + ε²): it is 0 for equal eigenvalues, where autograd gives NaN.
    """
    fixed_BNN = symmetric_BNN.detach()
    values_BN, vectors_BNN = (x.flip(-1) for x in torch.linalg.eigh(fixed_BNN))
    values_BK, vectors_BNK = values_BN[:, :count], vectors_BNN[:, :, :count]
    gaps_BNK = values_BK[:, None, :] - values_BN[:, :, None]
    change_BNK = vectors_BNN.mT @ (symmetric_BNN - fixed_BNN) @ vectors_BNK  # zero, but its gradient is not
    return values_BK, vectors_BNK + vectors_BNN @ (change_BNK * gaps_BNK / (gaps_BNK.square() + _GAP**2))


def right_singular_vectors(map_BCHW: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Singular values (B, count), detached, and right singular vectors (B, C, count) of a map as (H·W, C).

    The values are over the norm of the map. Vectors that the map does not have are zero, as are their values.
    """
    map_BCN = map_BCHW.flatten(2)
    map_BCN = map_BCN / _norm_or_one(map_BCN.detach())  # vectors do not depend on it: no gradient
    present = min(count, *map_BCN.shape[1:])
    with without_autocast(map_BCN):
        if map_BCN.shape[1] <= map_BCN.shape[2]:
            squares_BK, vectors_BCK = leading_eigenvectors(map_BCN @ map_BCN.mT, present)
        else:  # the smaller of the two matrices: its eigenvectors are the left singular vectors u, and v = Xᵀ u / σ
            squares_BK, left_BNK = leading_eigenvectors(map_BCN.mT @ map_BCN, present)
            vectors_BCK = unit(map_BCN @ left_BNK, 1)
    there_BK = squares_BK > _ABSENT
    values_BK = squares_BK.where(there_BK, torch.zeros_like(squares_BK)).sqrt()
    vectors_BCK = vectors_BCK.where(there_BK[:, None], torch.zeros_like(vectors_BCK))
    return F.pad(values_BK, (0, count - present)), F.pad(vectors_BCK, (0, count - present))


def _norm_or_one(map_BCN: Tensor) -> Tensor:
    norm_B11: Tensor = torch.linalg.vector_norm(map_BCN, dim=(1, 2), keepdim=True)
    return norm_B11.where(norm_B11 > 0, torch.ones_like(norm_B11))


def turned(vectors_BCK: Tensor) -> Tensor:
    """Each vector with the sign that makes its entries sum to 0 or more."""
    sums_B1K = vectors_BCK.sum(1, keepdim=True)
    return torch.where(sums_B1K < 0, -vectors_BCK, vectors_BCK)


def aligned(student_BCM: Tensor, teacher_BCK: Tensor) -> Tensor:
    """For each of the teacher's vectors the student's of largest |cosine| with it, turned to its side, (B, C, K)."""
    with without_autocast(student_BCM):
        cosines_BMK = student_BCM.detach().mT @ teacher_BCK
    nearest_B1K = cosines_BMK.abs().argmax(1, keepdim=True)
    signs_B1K = cosines_BMK.gather(1, nearest_B1K).sign()
    return student_BCM.gather(2, nearest_B1K.expand(-1, student_BCM.shape[1], -1)) * signs_B1K


def relation(first_BCK: Tensor, second_BCK: Tensor) -> Tensor:
    """exp(−(difference)² / 8) of each entry of the second with each of the first, (B, C2, C1, K)."""
    return (-(second_BCK[:, :, None] - first_BCK[:, None]).square() / 8).exp()


@dataclass(frozen=True)
class SingularVectors:
    """Squared difference of the relations between consecutive maps' singular vectors, summed over pairs and entries.

    student, teacher: tuples of two or more maps (B, C, H, W); the channels of the i-th maps must be equal, their sizes
        need not.
    rank: number of singular vectors of each map of the teacher, at least 1.

    Raises: ValueError where these are not tuples of maps of equal channels.
    """

    rank: int = 1

    def __post_init__(self) -> None:
        if self.rank < 1 or self.rank != int(self.rank):
            raise ValueError(f"SingularVectors.rank must be a whole number of at least 1, got {self.rank}.")

    def __call__(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not (are_maps(student) and are_maps(teacher) and len(student) == len(teacher)):
            way_out = 'Tap several layers, as student=("layer1", "layer2").'
            needs = "SingularVectors compares equally long tuples of two or more maps (B, C, H, W)"
            raise mismatch(needs, student, teacher, way_out)
        if any(one.shape[:2] != other.shape[:2] for one, other in zip(student, teacher, strict=True)):
            raise mismatch("SingularVectors compares maps of equal channels", student, teacher, "Add head=Conv1x1().")
        layers = [
            _directions(widen(one), widen(other.detach()), self.rank)
            for one, other in zip(student, teacher, strict=True)
        ]
        differences = [
            (relation(student_1, student_2) - relation(teacher_1, teacher_2)).square().sum((1, 2, 3))
            for (student_1, teacher_1), (student_2, teacher_2) in pairwise(layers)
        ]
        return torch.stack(differences).sum(0)


def _directions(student_BCHW: Tensor, teacher_BCHW: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The student's and the teacher's vectors of one layer, aligned and times the teacher's values, (B, C, rank)."""
    values_BK, teacher_BCK = right_singular_vectors(teacher_BCHW, rank)
    teacher_BCK = turned(teacher_BCK)
    _, student_BCM = right_singular_vectors(student_BCHW, rank + _MORE)
    weights_B1K = unit(values_BK)[:, None]
    return aligned(student_BCM, teacher_BCK) * weights_B1K, teacher_BCK * weights_B1K
