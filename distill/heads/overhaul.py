"""The head of the comprehensive overhaul: the student's map is connected, and the teacher's is raised to its margin."""

import math
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.batch import Batch
from distill.heads.checks import check_maps, got
from distill.heads.kinds import Meeting
from distill.messages import nearest


def batch_norm_margin(weight_C: Tensor, bias_C: Tensor) -> Tensor:
    """What is expected of each channel's negative values behind a batch normalisation, (C,), from its weight and bias.

    E[x | x < 0] of a normal x with mean β (the bias) and deviation |γ| (the weight): β − |γ| φ(β/γ) / Φ(−β/|γ|), or
    −3 |γ| where negative values are rarer than one in a thousand.

    Heo et al., 2019, "A Comprehensive Overhaul of Feature Distillation", arXiv:1904.01866, section 3.
    """
    deviation, mean = weight_C.detach().abs().double(), bias_C.detach().double()
    ratio = mean / deviation.clamp_min(torch.finfo(torch.float64).tiny)
    share = torch.special.ndtr(-ratio)
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    expected = mean - deviation * density / share.clamp_min(1e-3)
    margin = torch.where(share > 1e-3, expected, -3 * deviation)
    return margin.clamp_max(0).to(bias_C.dtype)


@dataclass(frozen=True)
class Connector(Meeting):
    """The student's map (B, C, H, W) by a 1x1 convolution and batch normalisation, and the teacher's, with its margin.

    Its module gives the pair that the loss Overhaul takes: the student's map in the teacher's channels, and the
    teacher's, averaged to the student's size where it is larger and raised to the margin: to what
    `batch_norm_margin` expects of the negative values of the batch normalisation in front of the tap.

    norm: path of that batch normalisation in the teacher, such as "layer3.0.bn2".

    Raises: ValueError where these are not maps, or where the teacher's is smaller than the student's.
    """

    norm: str

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """A convolution to the teacher's channels, and the margins, still to be read."""
        check_maps("Connector", student, teacher)
        if any(s > t for s, t in zip(student[2:], teacher[2:], strict=True)):
            raise ValueError(
                f"Connector needs a teacher's map not smaller than the student's, {got(student, teacher)}. "
                "Tap a later layer of the student or an earlier one of the teacher."
            )
        return _Connection(self.norm, student[1], teacher[1])


class _Connection(nn.Module):
    margin: Tensor

    def __init__(self, norm: str, in_channels: int, channels: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(in_channels, channels, 1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
        self.student = nn.Sequential(convolution, nn.BatchNorm2d(channels))
        self.norm = norm
        self.register_buffer("margin", torch.full((1, channels, 1, 1), math.nan))
        self._was_read = False

    def read_teacher(self, teacher: nn.Module) -> None:
        """Take the margins from the teacher's batch normalisation.

        Raises:
            ValueError: the teacher has no such module, or it is no batch normalisation of as many channels; names the
            nearest that is.
        """
        channels, modules = self.margin.shape[1], dict(teacher.named_modules())
        found = modules.get(self.norm)
        if not _fits(found, channels):
            fitting = [name for name, module in modules.items() if _fits(module, channels)]
            what = "which is not there" if found is None else f"a {type(found).__name__}"
            raise ValueError(
                f"Connector.norm must be a BatchNorm2d of the teacher with {channels} channels, weight and bias, "
                f"got '{self.norm}', {what}. Nearest: {nearest(self.norm, fitting)}."
            )
        self.margin.copy_(batch_norm_margin(found.weight, found.bias).view_as(self.margin))

    def forward(self, student: Tensor, teacher: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        if not self._was_read:  # asked until it was: on a GPU the question waits for the device
            if bool(self.margin.isnan().any()):
                raise ValueError(f"The margin of '{self.norm}' was not read. Call read_teacher(teacher) first.")
            self._was_read = True
        if teacher.shape[2:] != student.shape[2:]:
            teacher = F.adaptive_avg_pool2d(teacher, (student.shape[2], student.shape[3]))
        return self.student(student), teacher.maximum(self.margin)


def _fits(module: nn.Module | None, channels: int) -> TypeGuard[nn.BatchNorm2d]:
    return isinstance(module, nn.BatchNorm2d) and module.affine and module.num_features == channels
