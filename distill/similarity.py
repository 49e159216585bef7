"""How alike two networks represent the same examples: linear CKA, in whole and from batches.

CKA is 1 for representations that differ by a rotation and a scale, and near 0 for independent ones; widths may differ.
In whole it is Kornblith, Norouzi, Lee and Hinton, 2019, "Similarity of Neural Network Representations Revisited",
arXiv:1905.00414, section 3. Its minibatch estimate is that of Nguyen, Raghu and Kornblith, 2021, "Do Wide and Deep
Networks Learn the Same Things?", arXiv:2010.15327, section 3: with K and L the products XXᵀ and YYᵀ of a batch,

    CKA = Σ HSIC₁(K, L) / (Σ HSIC₁(K, K) · Σ HSIC₁(L, L))^½,   each sum over batches, and with K̃ = K of zero diagonal

    HSIC₁(K, L) = (tr(K̃L̃) + 1ᵀK̃1·1ᵀL̃1 / ((n−1)(n−2)) − 2/(n−2)·1ᵀK̃L̃1) / (n(n−3)),   n ≥ 4.

HSIC₁ is unbiased, so batches of any size estimate the same number, and the three sums are additive over batches and
processes. It is also the inner product of two matrices that are centred each for itself (Székely and Rizzo, 2014,
arXiv:1310.2926, section 3): `gram_vector` gives such a matrix, and all pairs of many layers are one matrix product.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from distill.numerics import widen, without_autocast

_LEAST = 4


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Linear CKA of the representations (N, ...) of the same N examples, a number in [0, 1].

    ‖XᵀY‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) with each column of mean 0; 0 where one of them is the same for all examples. It is
    computed through products of examples (N, N) where a representation is wider than N. With N of the order of the
    widths it is well above 0 for independent representations; the estimate from batches (`CkaSums`) has no such bias.

    Raises:
        ValueError: numbers of examples differ, or are below three: two examples are alike in every representation.
    """
    if len(x) != len(y) or len(x) < 3:
        raise ValueError(
            f"CKA compares two representations of the same three or more examples, got {len(x)} and {len(y)}. "
            "Give both the same examples."
        )
    x, y = _centred(x), _centred(y)
    with without_autocast(x):
        if max(x.shape[1], y.shape[1]) > len(x):
            k, m = (x @ x.T).double(), (y @ y.T).double()
            cross, own, other = (k * m).sum(), k.square().sum(), m.square().sum()
        else:
            cross, own, other = ((a.T @ b).double().square().sum() for a, b in ((x, y), (x, x), (y, y)))
    return cross * _inverse_root(own) * _inverse_root(other)


def gram_vector(features: Tensor) -> Tensor:
    """The products of n examples (n, ...) with each other, as a vector (n(n−1)/2,) in float64.

    The inner product of two such vectors is HSIC₁ of the two representations of one batch. Memory is n by n however
    wide the features are, and since products are symmetric, only those above the diagonal are kept.

    Raises:
        ValueError: the batch has fewer than four examples.
    """
    n = len(features)
    if n < _LEAST:
        raise ValueError(f"CKA from batches needs {_LEAST} examples or more in each, got {n}. Leave a smaller one out.")
    centred = _centred(features)
    with without_autocast(centred):
        gram = (centred @ centred.T).double()
    gram.fill_diagonal_(0)
    rows = gram.sum(1) / (n - 2)
    gram = gram - rows[:, None] - rows + rows.sum() / (n - 1)
    above = torch.triu_indices(n, n, offset=1, device=gram.device)
    return gram[above[0], above[1]] * math.sqrt(2 / (n * (n - 3)))


@dataclass(frozen=True)
class CkaSums:
    """The sums over batches from which the CKA of S layers of a student with T layers of a teacher follows.

    cross: HSIC₁ of each pair (S, T). student, teacher: that of each layer with itself (S,) and (T,). All are float64,
    and `a + b` holds the batches of both.
    """

    cross: Tensor
    student: Tensor
    teacher: Tensor

    @classmethod
    def zeros(cls, student: int, teacher: int) -> "CkaSums":
        """The sums over no batch, for so many layers of each."""
        shapes = ((student, teacher), (student,), (teacher,))
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    @classmethod
    def of_grams(cls, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> "CkaSums":
        """The sums over one batch, from the `gram_vector` of each layer."""
        student_SP, teacher_TP = torch.stack(list(student)), torch.stack(list(teacher))
        return cls(student_SP @ teacher_TP.T, student_SP.square().sum(1), teacher_TP.square().sum(1))

    @classmethod
    def of_batch(cls, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> "CkaSums":
        """The sums over one batch, from the features (n, ...) of each layer.

        Raises:
            ValueError: the batch has fewer than four examples.
        """
        return cls.of_grams([gram_vector(x) for x in student], [gram_vector(x) for x in teacher])

    def __add__(self, other: "CkaSums") -> "CkaSums":
        return CkaSums(self.cross + other.cross, self.student + other.student, self.teacher + other.teacher)

    def to(self, device: torch.device | str) -> "CkaSums":
        """The same sums on another device."""
        return CkaSums(*(tensor.to(device) for tensor in (self.cross, self.student, self.teacher)))

    def over_ranks(self) -> "CkaSums":
        """The sums over the batches of all processes, which may hold different numbers of them, or none."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return self
        sums = tuple(tensor.clone() for tensor in (self.cross, self.student, self.teacher))
        for tensor in sums:
            dist.all_reduce(tensor)
        return CkaSums(*sums)

    def cka(self) -> Tensor:
        """The estimates (S, T), each in [-1, 1], 0 for a layer that is the same for all examples."""
        return self.cross * _inverse_root(self.student)[:, None] * _inverse_root(self.teacher)


def _centred(features: Tensor) -> Tensor:
    """Features (N, ...) as (N, D), each column with mean 0; zeros where the rows differ by rounding alone."""
    x = widen(features.flatten(1))
    centred = x - x.mean(0)
    rounding = 16 * torch.finfo(x.dtype).eps * x.norm()
    return torch.where(centred.norm() <= rounding, torch.zeros_like(centred), centred)  # what is not finite stays so


def _inverse_root(x: Tensor) -> Tensor:
    return torch.where(x == 0, torch.zeros_like(x), x.rsqrt())
