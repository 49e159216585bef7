"""Attention relation: which tokens' queries, keys and values are alike in the teacher are alike in the student.

Wang, Wei, Dong, Bao, Yang and Zhou, 2020, "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of
Pre-Trained Transformers", arXiv:2002.10957, sections 3.1 and 3.2; Wang, Bao, Huang, Dong and Wei, 2021, "MiniLMv2:
Multi-Head Self-Attention Relation Distillation for Compressing Pretrained Transformers", arXiv:2012.15828, section 3.

    R^mn = softmax(X_m X_nᵀ / √d_r),    X = queries, keys or values cut into A_r relation heads of width d_r = D / A_r
    L = (1/B) Σ_b Σ_mn Σ_heads Σ_rows KL(R_t^mn ‖ R_s^mn) / (A_r · length)

Departures: the relations are summed with one weight, that of the term; MiniLMv2 weighs each. Padding is left out of
rows and columns.
Needs: queries, keys and values (B, T, D) of one layer of each model, of any widths that `heads` divides, and
`batch.mask` where lengths differ.
Cost: moderate, O(B·T²·D) for each relation.
Paper setting: weight 1, relations=("qk", "vv"), heads as many as both models have, the last layer of both (MiniLM);
weight 0.33, relations=("qq", "kk", "vv"), heads=48 for a teacher of base size and 64 for a large one, whose layer is
the last for base and an upper middle one for large (MiniLMv2).
"""

import math
from dataclasses import dataclass
from itertools import product

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import is_tensor, mismatch
from distill.losses.kinds import HonoursMask
from distill.losses.relations.tokens.masks import counted_positions
from distill.numerics import widen, without_autocast

_PARTS = "qkv"
RELATIONS = tuple("".join(pair) for pair in product(_PARTS, repeat=2))
Tokens = tuple[Tensor, Tensor, Tensor]


def log_relation(first_BTD: Tensor, second_BTD: Tensor, mask_BT: Tensor, *, heads: int) -> Tensor:
    """Log of how each token of the first attends to the counted ones of the second, (B, heads, T, T)."""
    first_BHTR, second_BHTR = (rearrange(x, "b t (h r) -> b h t r", h=heads) for x in (first_BTD, second_BTD))
    with without_autocast(first_BHTR):
        scores_BHTT = first_BHTR @ second_BHTR.mT / math.sqrt(first_BHTR.shape[3])
    lowest = torch.finfo(scores_BHTT.dtype).min / 2  # finite: a row whose columns are all masked stays finite
    return F.log_softmax(scores_BHTT.masked_fill(~mask_BT[:, None, None, :], lowest), 3)


def relation_divergence(
    student: Tokens, teacher: Tokens, mask_BT: Tensor, *, relations: tuple[str, ...], heads: int
) -> Tensor:
    """Σ over relations of the divergence of the rows, averaged over heads and the example's own tokens, (B,)."""
    left_out_BT1 = ~mask_BT[:, :, None]  # as zeros their rows are even in both models, and add nothing
    student_of = dict(zip(_PARTS, (x.masked_fill(left_out_BT1, 0) for x in student), strict=True))
    teacher_of = dict(zip(_PARTS, (x.masked_fill(left_out_BT1, 0) for x in teacher), strict=True))
    total_B = student[0].new_zeros(len(mask_BT))
    for first, second in map(tuple, relations):
        student_BHTT = log_relation(student_of[first], student_of[second], mask_BT, heads=heads)
        teacher_BHTT = log_relation(teacher_of[first], teacher_of[second], mask_BT, heads=heads)
        divergences_BHTT = F.kl_div(student_BHTT, teacher_BHTT, reduction="none", log_target=True)
        total_B = total_B + divergences_BHTT.sum((1, 2, 3))
    return total_B / (heads * mask_BT.sum(1).clamp_min(1))


@dataclass(frozen=True)
class AttentionRelation(HonoursMask):
    """Divergence of the softened similarities between tokens; student and teacher are (query, key, value).

    student, teacher: tuples of three tensors (B, T, D), the outputs of one attention layer's three projections; the
        teacher's width may differ from the student's. Positions that `batch.mask` (B, T) leaves out have no influence;
        an example without any position has loss 0.
    relations: which of q, k and v meet, as a tuple of names such as "qk" (queries against keys).
    heads: number of relation heads, which divides both widths; the default is that of BERT-base, where MiniLMv2 has 48.

    Raises: ValueError where these are not three tensors of one shape each, or where `heads` does not divide a width.
    """

    relations: tuple[str, ...] = ("qq", "kk", "vv")
    heads: int = 12

    def __post_init__(self) -> None:
        names = self.relations if isinstance(self.relations, tuple) else ()
        if not names or len(set(names)) < len(names) or any(name not in RELATIONS for name in names):
            raise ValueError(
                "AttentionRelation.relations must be a tuple of one or more different names out of "
                f"{', '.join(RELATIONS)}, got {self.relations!r}."
            )
        if self.heads < 1 or self.heads != int(self.heads):
            raise ValueError(f"AttentionRelation.heads must be a whole number of at least 1, got {self.heads}.")

    def __call__(self, student: Tokens, teacher: Tokens, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not (_are_tokens(student) and _are_tokens(teacher) and student[0].shape[:2] == teacher[0].shape[:2]):
            way_out = "Tap the projections of one attention layer of each model, on the same text."
            needs = "AttentionRelation compares tuples (query, key, value) of tokens (B, T, D)"
            raise mismatch(needs, student, teacher, way_out)
        widths = student[0].shape[2], teacher[0].shape[2]
        if any(width % self.heads for width in widths):
            way_out = f"Set heads to a divisor of both widths, {widths[0]} and {widths[1]}."
            raise mismatch(f"AttentionRelation takes widths that {self.heads} heads divide", student, teacher, way_out)
        mask = counted_positions("AttentionRelation", batch, student[0])
        wide = tuple(widen(x) for x in student), tuple(widen(x.detach()) for x in teacher)
        return relation_divergence(*wide, mask, relations=self.relations, heads=self.heads)  # type: ignore[arg-type]


def _are_tokens(tokens: object) -> bool:
    return (
        isinstance(tokens, tuple | list)
        and len(tokens) == len(_PARTS)
        and all(is_tensor(x, 3) and x.shape == tokens[0].shape for x in tokens)
    )
