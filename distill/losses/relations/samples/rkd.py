"""Relational knowledge distillation: distances and angles between the student's examples are as between the teacher's.

Park, Kim, Lu and Cho, 2019, "Relational Knowledge Distillation", arXiv:1904.05068, sections 3.2.1 and 3.2.2.

    D_ij = ‖f_i − f_j‖ / μ,    μ = mean of ‖f_i − f_j‖ over i ≠ j
    L = (1/B²) Σ_ij h(D_s − D_t)                                              RKDDistance
    A_ijk = e_ij · e_ik,    e_ij = (f_j − f_i) / ‖f_j − f_i‖, or 0 where the two coincide
    L = (1/B³) Σ_ijk h(A_s − A_t)                                             RKDAngle
    h(x) = x²/2 for |x| ≤ 1, |x| − 1/2 beyond

Departures: averaged over all B² or B³ entries, zeros included, as in the authors' code. Coinciding examples stay in μ,
as in the paper. Example i's share is the mean over the other indices. A batch of one, or of equal examples, has loss
and gradient 0 against one like it.
Needs: one embedding (B, D) of each; widths may differ.
Cost: moderate, O(B²·D).
Cost of RKDAngle: heavy, O(B³) time in O(B²) memory.
Paper setting: weight 25 for RKDDistance and 50 for RKDAngle, embeddings before the classifier, not normalised.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import check_scope, mismatch, same_examples
from distill.losses.kinds import Coupled, Scope
from distill.losses.rows import meeting_rows


def distances(features_BD: Tensor) -> Tensor:
    """Euclidean distances (B, B), exactly zero where rows coincide: no cancellation as in |a|² + |b|² − 2ab."""
    return torch.cdist(features_BD, features_BD, compute_mode="donot_use_mm_for_euclid_dist")


def _inverse(distances_BB: Tensor) -> Tensor:
    return torch.where(distances_BB > 0, distances_BB.reciprocal(), torch.zeros_like(distances_BB))


def _squares_and_inverses(features_BD: Tensor) -> tuple[Tensor, Tensor]:
    distances_BB = distances(features_BD)
    return distances_BB.square(), _inverse(distances_BB)


def _weighted_differences(weights_BB: Tensor, features_BD: Tensor) -> Tensor:
    """Σ_j (w_ij + w_ji) (f_i − f_j) for each i: what a gradient of each pair's distance gives each row. (B, D)."""
    both_BB = weights_BB + weights_BB.T
    centred_BD = features_BD - features_BD.mean(0)
    return both_BB.sum(1, keepdim=True) * centred_BD - both_BB @ centred_BD


class _Distances(torch.autograd.Function):
    """`distances` with a gradient in B² memory; that of `torch.cdist` takes B² D on a GPU."""

    @staticmethod
    def forward(ctx: Any, features_BD: Tensor) -> Tensor:
        distances_BB = distances(features_BD)
        ctx.save_for_backward(features_BD, distances_BB)
        return distances_BB

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        features_BD, distances_BB = ctx.saved_tensors
        return _weighted_differences(gradients[0] * _inverse(distances_BB), features_BD)


def relative_distances(features_BD: Tensor) -> Tensor:
    """Distances (B, B) over their mean of different examples; zeros where all coincide."""
    distances_BB: Tensor = _Distances.apply(features_BD)
    total = distances_BB.sum()
    pairs = len(features_BD) * (len(features_BD) - 1)
    return distances_BB * torch.where(total > 0, pairs / total.where(total > 0, torch.ones_like(total)), 0)


def distance_shares(student_BD: Tensor, teacher_BD: Tensor, rows: slice) -> Tensor:
    """RKDDistance's share of the chosen rows, (rows,); widths may differ."""
    student_BB, teacher_BB = relative_distances(student_BD)[rows], relative_distances(teacher_BD)[rows]
    return F.smooth_l1_loss(student_BB, teacher_BB, reduction="none").mean(1)


def cosines(squares_BB: Tensor, inverse_BB: Tensor, anchors: slice) -> Tensor:
    """Cosines e_ij · e_ik of the angles at the chosen anchors i, (anchors, B, B), by the law of cosines.

    cos = (d_ij² + d_ik² − d_jk²) / (2 d_ij d_ik): the Gram matrix of f_j − f_i, without its D-wide vectors.
    squares_BB, inverse_BB: d² and 1 / d, where 1 / 0 counts as 0.
    """
    near_AB, inverse_AB = squares_BB[anchors], inverse_BB[anchors]
    sums_ABB = near_AB[:, :, None] + near_AB[:, None, :]
    return sums_ABB.sub_(squares_BB).mul_(inverse_AB[:, :, None] / 2).mul_(inverse_AB[:, None, :])


class _AngleShares(torch.autograd.Function):
    """RKDAngle's share of the chosen anchors, a few at a time, and again in the gradient: no B³ tensor is ever kept.

    In float64: where two examples nearly coincide the law of cosines takes the difference of two nearly equal squares.
    """

    @staticmethod
    def forward(ctx: Any, student_BD: Tensor, teacher_BD: Tensor, rows: slice) -> Tensor:
        wide_BD = student_BD.double()
        student, teacher = _squares_and_inverses(wide_BD), _squares_and_inverses(teacher_BD.double())
        ctx.save_for_backward(wide_BD, *student, *teacher)
        ctx.dtype = student_BD.dtype
        ctx.rows = rows
        shares = [
            F.smooth_l1_loss(cosines(*student, part), cosines(*teacher, part), reduction="none").mean((1, 2))
            for part in _parts(rows, student_BD)
        ]
        return torch.cat(shares).to(student_BD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        student_BD, squares_BB, inverse_BB, teacher_squares_BB, teacher_inverse_BB = ctx.saved_tensors
        by_square_BB = torch.zeros_like(squares_BB)  # the gradient of each d_jk², as if d_jk and d_kj were two numbers
        for part in _parts(ctx.rows, student_BD):
            cosines_ABB, inverse_AB = cosines(squares_BB, inverse_BB, part), inverse_BB[part]
            upstream_A = gradients[0][part.start - ctx.rows.start : part.stop - ctx.rows.start] / len(student_BD) ** 2
            off_ABB = cosines_ABB - cosines(teacher_squares_BB, teacher_inverse_BB, part)
            by_cosine_ABB = off_ABB.clamp_(-1, 1).mul_(upstream_A[:, None, None])
            # cos_jk = (d_ij² + d_ik² − d_jk²) r_j r_k / 2, r = 1 / d_i: d_ij² acts in the sum and in r_j = (d_ij²)^−½.
            by_sum_AB = inverse_AB * (by_cosine_ABB @ inverse_AB[:, :, None])[:, :, 0]
            by_length_AB = inverse_AB.square() * cosines_ABB.mul_(by_cosine_ABB).sum(2)
            by_square_BB[part] += by_sum_AB - by_length_AB
            by_square_BB -= by_cosine_ABB.mul_(inverse_AB[:, :, None]).mul_(inverse_AB[:, None, :]).sum(0) / 2
        return (2 * _weighted_differences(by_square_BB, student_BD)).to(ctx.dtype), None, None


def _parts(rows: slice, features_BD: Tensor) -> list[slice]:
    """The rows in parts whose (part, B, B) tensors stay small: within a CPU's cache, or enough to fill a GPU."""
    elements = 2**17 if features_BD.device.type == "cpu" else 2**21
    size = max(1, elements // len(features_BD) ** 2)
    return [slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]


def angle_shares(student_BD: Tensor, teacher_BD: Tensor, rows: slice) -> Tensor:
    """RKDAngle's share of the chosen rows as anchors, (rows,); widths may differ. O(B³) time, O(B²) memory."""
    shares: Tensor = _AngleShares.apply(student_BD, teacher_BD, rows)
    return shares


@dataclass(frozen=True)
class RKDDistance(Coupled):
    """Smooth L1 between the relative distances of the examples; embeddings (B, D), widths may differ.

    scope: "global" relates the examples of all processes, "local" those of one.

    Raises: ValueError where the arguments are not embeddings of equally many examples.
    """

    scope: Scope = "global"

    def __post_init__(self) -> None:
        check_scope("RKDDistance.scope", self.scope)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The share of each example, (B,)."""
        if not same_examples(student, teacher, 2):
            raise mismatch("RKDDistance compares embeddings (B, D)", student, teacher, 'Tap "embedding".')
        return distance_shares(*meeting_rows(student, teacher, self.scope))


@dataclass(frozen=True)
class RKDAngle(Coupled):
    """Smooth L1 between the cosines of the angles at each example; embeddings (B, D), widths may differ.

    scope: "global" relates the examples of all processes, "local" those of one.

    Raises: ValueError where the arguments are not embeddings of equally many examples.
    """

    scope: Scope = "global"

    def __post_init__(self) -> None:
        check_scope("RKDAngle.scope", self.scope)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The share of each example as the anchor, (B,)."""
        if not same_examples(student, teacher, 2):
            raise mismatch("RKDAngle compares embeddings (B, D)", student, teacher, 'Tap "embedding".')
        return angle_shares(*meeting_rows(student, teacher, self.scope))
