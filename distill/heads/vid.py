"""The head of variational information distillation: a mean and a variance of the teacher's map."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.heads.checks import check_maps, got

_SMALLEST, _FIRST = 1e-5, 5.0  # variances


@dataclass(frozen=True)
class VIDRegressor:
    """The mean of each value of the teacher's map (B, C, H, W), given the student's, and the variance of each channel.

    Its module gives the pair (mean, variance) that the loss VID takes: (B, C, H, W) and (B, C, 1, 1), the same variance
    for all examples. The mean is three 1x1 convolutions with ReLUs in between; a larger map of the student is averaged
    to the teacher's size before them. The variance log(1 + exp(α)) + 1e-5 is learned and is 5 at first, as in Ahn et
    al., 2019, "Variational Information Distillation for Knowledge Transfer", arXiv:1904.05835, section 2, and in the
    public code.

    hidden: channels between the convolutions; None takes the teacher's.

    Raises: ValueError where these are not maps, or where the student's is smaller than the teacher's.
    """

    hidden: int | None = None

    def __post_init__(self) -> None:
        if self.hidden is not None and self.hidden < 1:
            raise ValueError(
                f"VIDRegressor.hidden is a number of channels of at least 1, or None for the teacher's, "
                f"got {self.hidden}."
            )

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """The mean's convolutions and the variances."""
        check_maps("VIDRegressor", student, teacher)
        if any(s < t for s, t in zip(student[2:], teacher[2:], strict=True)):
            raise ValueError(
                f"VIDRegressor needs a student's map not smaller than the teacher's, {got(student, teacher)}. "
                "Tap an earlier layer of the student or a later one of the teacher."
            )
        pool = nn.Identity() if student[2:] == teacher[2:] else nn.AdaptiveAvgPool2d(tuple(teacher[2:]))
        return _Density(pool, student[1], self.hidden or teacher[1], teacher[1])


class _Density(nn.Module):
    def __init__(self, pool: nn.Module, in_channels: int, hidden: int, channels: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            pool,
            nn.Conv2d(in_channels, hidden, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )
        self.alpha = nn.Parameter(torch.full((channels, 1, 1), math.log(math.expm1(_FIRST - _SMALLEST))))

    def forward(self, student: Tensor) -> tuple[Tensor, Tensor]:
        variance = F.softplus(self.alpha) + _SMALLEST
        return self.mean(student), variance.expand(len(student), -1, -1, -1)
