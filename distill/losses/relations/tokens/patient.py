"""Patient knowledge distillation: at several layers the student's vector of the text points where the teacher's does.

Sun, Cheng, Gan and Liu, 2019, "Patient Knowledge Distillation for BERT Model Compression", arXiv:1908.09355,
section 3.2.

    L = (1/B) Σ_b Σ_layers ‖h_s / ‖h_s‖ − h_t / ‖h_t‖‖²,    h = the hidden state of the first token, [CLS]

Departures: the mean over examples where the paper has their sum. The authors' code averages over layers and dimensions
as well: its weight is this one's times layers and width. A zero vector stays zero, with gradient 0.
Needs: hidden states (B, D), or (B, T, D) with the text's token first, of one or more layers, equal in shape.
Cost: light, O(B·D) for each layer.
Paper setting: weight 0.026 (100 in the authors' form, over five layers times a width of 768; they try 10 to 1000)
beside cross-entropy and softened predictions; a student of six layers, its first five against layers 2, 4, 6, 8 and 10
of the teacher's twelve (Skip), or against 7 to 11 (Last).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import is_tensor, mismatch, same_examples
from distill.losses.kinds import HonoursMask
from distill.numerics import unit, widen


def direction_difference(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Squared distance of each example's normalised vectors, (B,): 2 − 2 cosine."""
    return (unit(student_BD) - unit(teacher_BD)).square().sum(1)


@dataclass(frozen=True)
class PatientKD(HonoursMask):
    """Squared distance of the normalised vectors of the whole text, summed over layers.

    student, teacher: one tensor, or equally long tuples of tensors, one a layer: (B, D), or tokens (B, T, D) of which
        the first one is taken ([CLS]); the i-th ones have equal shapes.

    Raises: ValueError where the forms or the shapes differ.
    """

    def __call__(
        self, student: Tensor | tuple[Tensor, ...], teacher: Tensor | tuple[Tensor, ...], batch: Batch
    ) -> Tensor:
        """The loss of each example, (B,)."""
        students, teachers = _layers(student), _layers(teacher)
        alike = isinstance(student, Tensor) == isinstance(teacher, Tensor) and len(students) == len(teachers) > 0
        if not alike or not all(map(_comparable, students, teachers)) or len({len(x) for x in students}) > 1:
            needs = "PatientKD compares (B, D) or (B, T, D) of equal shape, or equally long tuples of them"
            raise mismatch(needs, student, teacher, "Add head=Linear(), and tap as many layers of each.")
        each = zip(students, teachers, strict=True)
        return torch.stack([direction_difference(_text(one), _text(other.detach())) for one, other in each]).sum(0)


def _layers(value: object) -> Sequence[Tensor]:
    return [value] if isinstance(value, Tensor) else value if isinstance(value, Sequence) else []


def _comparable(student: object, teacher: object) -> bool:
    if not (is_tensor(student) and is_tensor(teacher) and same_examples(student, teacher)):
        return False
    return student.shape == teacher.shape and student.ndim in (2, 3)


def _text(hidden: Tensor) -> Tensor:
    """The vector of the whole text, wide: that of the first token where there are tokens."""
    return widen(hidden if hidden.ndim == 2 else hidden[:, 0])
