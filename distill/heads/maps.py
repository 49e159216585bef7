"""Heads over the channels of feature maps (B, C, H, W)."""

from dataclasses import dataclass

import torch
from torch import nn

from distill.heads.checks import check_maps, got


@dataclass(frozen=True)
class Conv1x1:
    """A 1x1 convolution of maps (B, C, H, W) to the teacher's channels; height and width stay.

    norm: batch normalisation after it, in place of a bias.

    Raises: ValueError where these are not maps of one size.
    """

    norm: bool = True

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """A convolution from the student's channels to the teacher's."""
        check_maps("Conv1x1", student, teacher)
        if student[2:] != teacher[2:]:
            raise ValueError(f"Conv1x1 keeps height and width, {got(student, teacher)}. Use head=Regressor().")
        convolution = nn.Conv2d(student[1], teacher[1], 1, bias=not self.norm)
        return nn.Sequential(convolution, nn.BatchNorm2d(teacher[1])) if self.norm else convolution


@dataclass(frozen=True)
class Regressor:
    """FitNets' regressor of maps (B, C, H, W) to the teacher's channels, height and width, normalised, with a ReLU.

    The convolution has stride 2 where the student's map is twice the teacher's, is transposed where it is half of it,
    and otherwise has the kernel 1 + s − t that makes the larger student's side s the teacher's t, as in Romero et al.,
    2015, "FitNets: Hints for Thin Deep Nets", arXiv:1412.6550, section 2.2, and in the public code.

    relu: a ReLU at the end, for a teacher's map taken after its own.

    Raises: ValueError where these are not maps, or where the student's map is the smaller one but not half the
    teacher's.
    """

    relu: bool = True

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """A convolution to the teacher's channels, height and width, then batch normalisation and ReLU."""
        check_maps("Regressor", student, teacher)
        convolution = _resizing(student, teacher)
        last = [nn.ReLU()] if self.relu else []
        return nn.Sequential(convolution, nn.BatchNorm2d(teacher[1]), *last)


def _resizing(student: torch.Size, teacher: torch.Size) -> nn.Module:
    channels, sides = (student[1], teacher[1]), list(zip(student[2:], teacher[2:], strict=True))
    if all(s == 2 * t for s, t in sides):
        return nn.Conv2d(*channels, 3, stride=2, padding=1, bias=False)
    if all(2 * s == t for s, t in sides):
        return nn.ConvTranspose2d(*channels, 4, stride=2, padding=1, bias=False)
    if all(s >= t for s, t in sides):
        height, width = (1 + s - t for s, t in sides)
        return nn.Conv2d(*channels, (height, width), bias=False)
    raise ValueError(
        f"Regressor needs a student's map half the teacher's or not smaller than it, {got(student, teacher)}. "
        "Tap an earlier layer of the student or a later one of the teacher."
    )
