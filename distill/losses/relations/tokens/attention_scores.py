"""Attention scores: before the softmax, the student's tokens attend to each other as the teacher's do.

Jiao, Yin, Shang, Jiang, Chen, Li, Wang and Liu, 2020, "TinyBERT: Distilling BERT for Natural Language Understanding",
arXiv:1909.10351, eq. 7.

    L = (1/h) Σ_heads mean over pairs of tokens of (A_s − A_t)²,    A = Q Kᵀ / √d, 0 where it is ≤ −100

Departures: with `batch.mask` the mean is over the pairs of the example's own tokens, where the authors' code keeps the
padding in the mean. Scores of −100 and less, where a model masks its padding, count as 0 on both sides, as in the
authors' code.
Needs: one layer's attention scores (B, H, T, T) of each model, with the same heads, and `batch.mask` where lengths
differ.
Cost: light, O(B·H·T²).
Paper setting: weight 1 for each layer of the student against every second or third of the teacher.
"""

from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import mismatch, same_examples
from distill.losses.kinds import HonoursMask
from distill.losses.relations.tokens.masks import counted_positions, masked_mean
from distill.numerics import widen

_PADDING = -100.0  # scores at or below it are a model's own mask


def score_differences(student_BHTT: Tensor, teacher_BHTT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean squared difference of each example's scores over heads and pairs of its own tokens, (B,)."""
    student_BHTT = student_BHTT.masked_fill(student_BHTT <= _PADDING, 0)
    teacher_BHTT = teacher_BHTT.masked_fill(teacher_BHTT <= _PADDING, 0)
    counted_B1TT = mask_BT[:, None, :, None] & mask_BT[:, None, None, :]
    return masked_mean((student_BHTT - teacher_BHTT).masked_fill(~counted_B1TT, 0).square(), counted_B1TT)


@dataclass(frozen=True)
class AttentionScores(HonoursMask):
    """Mean squared difference of raw attention scores (B, H, T, T) of equal shape, before the softmax.

    Rows and columns that `batch.mask` (B, T) leaves out have no influence; without a mask all count.

    Raises: ValueError where the shapes differ.
    """

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if (
            not same_examples(student, teacher, 4)
            or student.shape != teacher.shape
            or student.shape[2] != student.shape[3]
        ):
            way_out = "Use AttentionRelation where the numbers of heads differ."
            raise mismatch("AttentionScores compares scores (B, H, T, T) of equal shape", student, teacher, way_out)
        mask = counted_positions("AttentionScores", batch, student.transpose(1, 2))
        return score_differences(widen(student), widen(teacher.detach()), mask)
