"""Contrastive representation distillation: the student tells an example's own teacher embedding from many others.

Tian, Krishnan and Isola, 2020, "Contrastive Representation Distillation", arXiv:1910.10699, section 3.

    o1_k = exp(M_t[k] · v_s / τ) / Z,    o2_k = exp(M_s[k] · v_t / τ) / Z,    a = K / n
    h(o) = −log(o_0 / (o_0 + a + ε)) − Σ_{k=1..K} log(a / (o_k + a + ε)),    ε = 1e-7
    L = (1/B) Σ_b h(o1) + h(o2)

v are the embeddings of unit norm that the head `Contrast` learns of both models, M its memory of n rows of each, k = 0
the example itself, and the K others are drawn.

Departures: Z = n exp(1 / (2 D τ²)), D the width of v. The public code takes n times the mean of exp over the first
batch and keeps it, which depends on how that batch is cut; ours is what that mean is near to: the memory starts with
entries uniform in ±√(3/D), so M · v has mean 0 and variance 1/D, and is nearly normal. Where the memory is a queue, the
positive pair is that of the batch itself, with gradient to both.
Needs: the head Contrast; student (v_s, v_t), teacher (M_s, M_t, chosen), one class for each example.
Cost: heavy, O(B n D) for a memory of n rows of width D.
Paper setting: weight 0.8, temperature=0.07, embeddings before the classifier, head Contrast(examples, width=128,
negatives=16384, momentum=0.5).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import check_positive, is_tensor, mismatch
from distill.numerics import widen, without_autocast

EPSILON = 1e-7
_LARGEST = 2**25  # elements of the products with a memory at once: 128 MiB of float32


def log_partition(rows: int, width: int, temperature: float) -> float:
    """log Z: the logarithm of the expected sum of exp(M · v / τ) over a memory at its random start."""
    return math.log(rows) + 1 / (2 * width * temperature**2)


class _Mistaken(torch.autograd.Function):
    """Σ_k softplus(v · M[k] / τ − shift) over the chosen rows M[k], (B,), and at once its gradient at v.

    All products v Mᵀ are one matrix product, as the weights times M are in the gradient: faster than to copy K rows of
    M for each example, and only a tensor of v's size is kept. Rows equal to −1 are left out.
    """

    @staticmethod
    def forward(
        ctx: Any, v_BD: Tensor, memory_ND: Tensor, chosen_BK: Tensor, temperature: float, shift: float
    ) -> Tensor:
        costs, gradients = [], []
        for v, chosen in zip(_parts(v_BD, len(memory_ND)), _parts(chosen_BK, len(memory_ND)), strict=True):
            products = v @ memory_ND.T
            places = chosen.clamp_min(0)
            logits = products.gather(1, places).div_(temperature).sub_(shift).masked_fill_(chosen < 0, -math.inf)
            costs.append(-F.logsigmoid(-logits).sum(1))
            if ctx.needs_input_grad[0]:
                weights = products.zero_().scatter_add_(1, places, logits.sigmoid_().div_(temperature))
                gradients.append(weights @ memory_ND)
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(costs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (by_v_BD,) = ctx.saved_tensors
        return gradients[0][:, None] * by_v_BD, None, None, None, None


def _parts(x: Tensor, rows: int) -> tuple[Tensor, ...]:
    """The examples cut so that a part's products with the memory's rows stay small."""
    return torch.split(x, max(1, _LARGEST // rows))


def contrast(v_BD: Tensor, other_BD: Tensor, memory_ND: Tensor, chosen: Tensor, *, temperature: float) -> Tensor:
    """h of each example, (B,): `v` against the chosen rows of the other model's memory.

    chosen: int64 (B, 1 + K); first the row of the example itself, or −1 where it is `other`; then K others, where −1
    leaves one out.
    """
    chosen_B, chosen_BK = chosen[:, 0], chosen[:, 1:]
    rows, width = memory_ND.shape
    share = chosen_BK.shape[1] / rows
    shift = log_partition(rows, width, temperature) + math.log(share + EPSILON)
    own_BD = torch.where(chosen_B[:, None] < 0, other_BD, memory_ND[chosen_B.clamp_min(0)])
    known_B = -F.logsigmoid((v_BD * own_BD).sum(1) / temperature - shift)
    with without_autocast(v_BD):
        mistaken_B: Tensor = _Mistaken.apply(v_BD, memory_ND, chosen_BK, temperature, shift)
    return known_B + mistaken_B + (chosen_BK >= 0).sum(1) * math.log1p(EPSILON / share)


@dataclass(frozen=True)
class CRD:
    """How badly each model's embedding tells its own pair from others; of the head Contrast and its memory.

    student: (v_s, v_t), both (B, D) of unit norm, with gradient. teacher: (M_s, M_t, chosen), the memories (n, D) and
    the numbers int64 (B, 1 + K) of the rows to compare with.

    temperature: τ > 0; a lower one looks at the closest embeddings only.

    Raises: ValueError where these are not what the head Contrast gives.
    """

    temperature: float = 0.07

    def __post_init__(self) -> None:
        check_positive("CRD.temperature", self.temperature)

    def __call__(self, student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor, Tensor], batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not (_are_tensors(student, 2) and _are_tensors(teacher, 3) and _meet(student, teacher)):
            way_out = "Add head=Contrast(examples=...), with the number of training examples."
            needs = "CRD compares (B, D) twice with memories (n, D) twice at the rows (B, 1 + K)"
            raise mismatch(needs, student, teacher, way_out)
        of_student, of_teacher = map(widen, student)
        memory_of_student, memory_of_teacher = (widen(x.detach()).to(of_student.dtype) for x in teacher[:2])
        first = contrast(of_student, of_teacher, memory_of_teacher, teacher[2], temperature=self.temperature)
        second = contrast(of_teacher, of_student, memory_of_student, teacher[2], temperature=self.temperature)
        return first + second


def _are_tensors(value: object, count: int) -> TypeGuard[Sequence[Tensor]]:
    return isinstance(value, Sequence) and len(value) == count and all(is_tensor(x, 2) for x in value)


def _meet(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> bool:
    (of_student, of_teacher), (memory, other_memory, chosen) = student, teacher
    widths = {of_student.shape[1], of_teacher.shape[1], memory.shape[1], other_memory.shape[1]}
    rows = len(of_student) == len(of_teacher) == len(chosen) and len(memory) == len(other_memory)
    return len(widths) == 1 and rows and chosen.shape[1] >= 2
