"""Cosine hint: the student's feature vectors point where the teacher's do, whatever their lengths.

Ranzinger, Heinrich, Kautz and Molchanov, 2023, "AM-RADIO: Agglomerative Vision Foundation Model -- Reduce All Domains
Into One", arXiv:2312.06709, section 3.

    L = mean over examples and positions of 1 − f_s · f_t / (‖f_s‖ ‖f_t‖)

Departures: the paper's second part, a smooth L1 distance that also compares lengths, is left out. A zero vector has
cosine 0 to every other, so it costs 1, with gradient 0.
Needs: features of equal shape; vectors lie along the last dimension, or along the channels of maps.
Cost: light, O(B · elements).
Paper setting: weight 1 for the summary embedding, 0.9 for the tokens beside 0.1 of smooth L1, head MLP().
"""

from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import mismatch, same_examples
from distill.numerics import unit, widen


def cosine_distance(student: Tensor, teacher: Tensor, *, dim: int) -> Tensor:
    """1 − cosine of the vectors along `dim`, averaged over each example's positions, (B,); 1 where one is zero."""
    cosine = (unit(student, dim) * unit(teacher, dim)).sum(dim)
    return (1 - cosine).reshape(len(student), -1).mean(1)


@dataclass(frozen=True)
class CosineHint:
    """1 − cosine between the vectors of student and teacher, of equal shape: (B, D), (B, T, D) or maps (B, C, H, W).

    Maps are compared over their channels, all else over the last dimension; positions are averaged.

    Raises: ValueError where the shapes differ.
    """

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not same_examples(student, teacher) or student.shape != teacher.shape or student.ndim < 2:
            way_out = "Add head=Linear() or head=Conv1x1(), or tap tensors of one form."
            raise mismatch("CosineHint compares equal shapes (B, ..., D) or (B, C, H, W)", student, teacher, way_out)
        return cosine_distance(widen(student), widen(teacher.detach()), dim=1 if student.ndim == 4 else -1)
