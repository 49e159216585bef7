"""A linear projection of embeddings whose outcome, and the teacher's, are normalised over the batch."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.heads.checks import got
from distill.heads.kinds import Meeting


class _Projection(nn.Module):
    def __init__(self, student: int, teacher: int, *, norm: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(student, teacher, bias=False)
        self.norm_student = _over_batch(teacher) if norm else nn.Identity()
        self.norm_teacher = _over_batch(teacher) if norm else nn.Identity()

    def forward(self, student: Tensor, teacher: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.norm_student(self.linear(student)), self.norm_teacher(teacher)


def _over_batch(width: int) -> nn.Module:
    return nn.BatchNorm1d(width, eps=1e-4, affine=False)


@dataclass(frozen=True)
class Projector(Meeting):
    """A linear map of embeddings (B, D) to the teacher's width, both sides normalised over the batch.

    Miles and Mikolajczyk, 2024, "Understanding the Role of the Projector in Knowledge Distillation", arXiv:2303.11098,
    section 3: one linear layer, then batch normalisation without learned scale or shift, of the projected student and
    of the teacher. The linear layer has no bias, which the normalisation would take away; the 1e-4 in the root is that
    of the authors' code. Means and deviations are those of one forward pass, of two or more examples: of a micro-batch
    on one process.

    norm: normalise both sides over the batch; without it the head is the linear map alone, and the teacher stays.

    Raises: ValueError where these are not embeddings.
    """

    norm: bool = True

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """A projection from the student's width to the teacher's; called with both sides, gives both."""
        if len(student) != 2 or len(teacher) != 2:
            way_out = "Use head=Conv1x1()." if len(student) == len(teacher) == 4 else 'Tap "embedding".'
            raise ValueError(f"Projector maps embeddings (B, D), {got(student, teacher)}. {way_out}")
        return _Projection(student[1], teacher[1], norm=self.norm)
