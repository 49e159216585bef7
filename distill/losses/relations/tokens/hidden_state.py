"""Hidden state: each token's vector in the student, mapped to the teacher's width, equals the teacher's.

Jiao, Yin, Shang, Jiang, Chen, Li, Wang and Liu, 2020, "TinyBERT: Distilling BERT for Natural Language Understanding",
arXiv:1909.10351, eq. 8 and 9.

    L = mean over examples, tokens and dimensions of (h_s W − h_t)²

Departures: with `batch.mask` the mean is over the example's own tokens, where the authors' code averages over the
padding too: how far a batch is padded changes nothing. The map W is a mapping head and no part of the loss; the paper
has one W for all layers.
Needs: one layer's hidden states (B, T, D) of each model, of one shape, and `batch.mask` where lengths differ.
Cost: light, O(B·T·D).
Paper setting: weight 1 for the embeddings and for each layer of the student against every second or third of the
teacher, head Linear().
"""

from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import mismatch, same_examples
from distill.losses.kinds import HonoursMask
from distill.losses.relations.tokens.masks import counted_positions, masked_mean
from distill.numerics import widen


def token_differences(student_BTD: Tensor, teacher_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean squared difference of each example over its own tokens and all dimensions, (B,)."""
    counted_BT1 = mask_BT[:, :, None]
    return masked_mean((student_BTD - teacher_BTD).masked_fill(~counted_BT1, 0).square(), counted_BT1)


@dataclass(frozen=True)
class HiddenState(HonoursMask):
    """Mean squared difference of the tokens' vectors; student and teacher are hidden states (B, T, D) of one shape.

    Positions that `batch.mask` (B, T) leaves out have no influence; without a mask all count.

    Raises: ValueError where the shapes differ.
    """

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not same_examples(student, teacher, 3) or student.shape != teacher.shape:
            way_out = "Add head=Linear(), and tap tokens of the same text."
            raise mismatch("HiddenState compares tokens (B, T, D) of equal shape", student, teacher, way_out)
        mask = counted_positions("HiddenState", batch, student)
        return token_differences(widen(student), widen(teacher.detach()), mask)
