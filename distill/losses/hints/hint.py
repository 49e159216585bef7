"""Hint: the student's features, mapped to the teacher's shape, equal the teacher's.

Romero, Ballas, Ebrahimi Kahou, Chassang, Gatta and Bengio, 2015, "FitNets: Hints for Thin Deep Nets", arXiv:1412.6550,
eq. 3.

    L = mean over examples and elements of (r(f_s) − f_t)²

Departures: mean of squares, as in all public code, where the paper has half the squared norm: a weight. The regressor r
is a mapping head and no part of the loss. One stage; the paper's two stages are two stages of a recipe.
Needs: one tensor of each, of equal shape (B, ...).
Cost: light, O(B·D) for D elements an example.
Paper setting: weight 100 (CIFAR-100, as in the literature's tables), features of the second stage, head Regressor().
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import is_tensor, mismatch, same_examples
from distill.numerics import widen


def squared_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of each example over all its elements, (B,)."""
    # In one operation, which keeps no difference for the backward pass.
    return F.mse_loss(student, teacher, reduction="none").reshape(len(student), -1).mean(1)


@dataclass(frozen=True)
class Hint:
    """Mean squared difference between student and teacher of equal shape (B, ...).

    Raises: ValueError where the shapes differ.
    """

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not same_examples(student, teacher) or student.shape != teacher.shape:
            raise mismatch("Hint compares equal shapes", student, teacher, _way_out(student, teacher))
        return squared_difference(widen(student), widen(teacher.detach()))


def _way_out(student: object, teacher: object) -> str:
    if is_tensor(student, 4) and is_tensor(teacher, 4):
        return "Add head=Conv1x1()." if student.shape[2:] == teacher.shape[2:] else "Add head=Regressor()."
    return "Add head=Linear(), or tap tensors of one form."
