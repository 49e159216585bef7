"""The head of knowledge review: the student's stages are fused, from the deepest to the first."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.heads.kinds import Joint


@dataclass(frozen=True)
class ReviewFusion(Joint):
    """Attention-based fusion of two or more stages (B, C, H, W) of the student, given from the first to the deepest.

    Its module takes the tuple of the student's maps and gives as many in the teacher's shapes, for the loss ReviewHCL.
    Each stage is brought to a common width, fused with the deeper one's result, and convolved to the teacher's
    channels, as in Chen et al., 2021, "Distilling Knowledge via Knowledge Review", arXiv:2104.09044, section 3. Maps
    are resized by nearest neighbours.

    width: channels at which stages are fused; those of the student's deepest stage where they are fewer.

    Raises: ValueError for a single stage, and where these are not maps.
    """

    width: int = 512

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"ReviewFusion.width must be a number of channels of at least 1, got {self.width}.")

    def __call__(self, student: tuple[torch.Size, ...], teacher: tuple[torch.Size, ...]) -> nn.Module:
        """One fusion for each stage."""
        if len(student) != len(teacher) or len(student) < 2 or any(len(shape) != 4 for shape in (*student, *teacher)):
            shapes = " and teacher ".join(str([tuple(shape) for shape in shapes]) for shapes in (student, teacher))
            raise ValueError(
                f"ReviewFusion maps two or more maps (B, C, H, W) together, got student {shapes}. "
                'Tap one map a stage, as student=("layer1", "layer2").'
            )
        width = min(self.width, student[-1][1])
        deepest = len(student) - 1
        stages = zip(student, teacher, strict=True)
        return _Fusion(_Stage(ours, theirs, width, fuses=i < deepest) for i, (ours, theirs) in enumerate(stages))


class _Fusion(nn.Module):
    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, student: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outputs: list[Tensor] = []
        deeper: Tensor | None = None
        for stage, x in reversed(list(zip(self.stages, student, strict=True))):
            output, deeper = stage(x, deeper)
            outputs.append(output)
        return tuple(reversed(outputs))


class _Stage(nn.Module):
    """One stage: (its map, the deeper stage's fused map or None) to (map in the teacher's shape, fused map)."""

    def __init__(self, student: torch.Size, teacher: torch.Size, width: int, *, fuses: bool) -> None:
        super().__init__()
        self.size = None if student[2:] == teacher[2:] else tuple(teacher[2:])
        self.reduce = _convolution(student[1], width, 1)
        self.attention = nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid()) if fuses else None
        self.output = _convolution(width, teacher[1], 3)

    def forward(self, x: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.reduce(x)
        if self.attention is not None:
            assert deeper is not None
            deeper = F.interpolate(deeper, x.shape[2:], mode="nearest")
            own_weight, deeper_weight = self.attention(torch.cat([x, deeper], 1)).split(1, 1)
            x = own_weight * x + deeper_weight * deeper
        if self.size is not None:
            x = F.interpolate(x, self.size, mode="nearest")
        return self.output(x), x


def _convolution(in_channels: int, channels: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels))
