"""Token cosine: each token's vector in the student points where the teacher's does.

Sanh, Debut, Chaumond and Wolf, 2019, "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter",
arXiv:1910.01108, section 2.

    L = mean over examples and tokens of 1 − cos(h_s, h_t)

Departures: each example is the mean over its own tokens, so that every example weighs the same; the authors' code
averages over all tokens of the batch. A zero vector has cosine 0 with everything, and gradient 0.
Needs: one layer's hidden states (B, T, D) of each model, of one shape, and `batch.mask` where lengths differ.
Cost: light, O(B·T·D).
Paper setting: weight 1 beside 5 for the softened predictions and 2 for the masked words (the authors' code), the last
hidden state.
"""

from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import mismatch, same_examples
from distill.losses.kinds import HonoursMask
from distill.losses.relations.tokens.masks import counted_positions, masked_mean
from distill.numerics import unit, widen


def token_cosine_distances(student_BTD: Tensor, teacher_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean of 1 − cosine over each example's own tokens, (B,)."""
    left_out_BT1 = ~mask_BT[:, :, None]
    student_BTD, teacher_BTD = student_BTD.masked_fill(left_out_BT1, 0), teacher_BTD.masked_fill(left_out_BT1, 0)
    return masked_mean(1 - (unit(student_BTD) * unit(teacher_BTD)).sum(2), mask_BT)


@dataclass(frozen=True)
class TokenCosine(HonoursMask):
    """Mean of 1 − cosine over tokens; student and teacher are hidden states (B, T, D) of one shape.

    Positions that `batch.mask` (B, T) leaves out have no influence; without a mask all count.

    Raises: ValueError where the shapes differ.
    """

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not same_examples(student, teacher, 3) or student.shape != teacher.shape:
            way_out = "Add head=Linear(), and tap tokens of the same text."
            raise mismatch("TokenCosine compares tokens (B, T, D) of equal shape", student, teacher, way_out)
        mask = counted_positions("TokenCosine", batch, student)
        return token_cosine_distances(widen(student), widen(teacher.detach()), mask)
