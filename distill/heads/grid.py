"""The head between layers whose positions lie on a grid: maps and tokens, of one resolution or several."""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from distill.heads.checks import got


@dataclass(frozen=True)
class _Layout:
    """How a layer's positions lie: on a grid of `rows` x `columns`, behind `prefix` tokens that have no place on it.

    tokens: (B, T, D) rather than a map (B, C, H, W).
    """

    tokens: bool
    width: int
    rows: int
    columns: int
    prefix: int


@dataclass(frozen=True)
class Grid:
    """Maps (B, C, H, W) or tokens (B, T, D) of the student to the teacher's form, grid of positions and width.

    A linear layer over the channels at each position, as a 1x1 convolution is, then the teacher's grid: where it is
    coarser positions are averaged, where it is finer they are interpolated bilinearly. It joins a CNN's map to a
    transformer's tokens, either way, and layers of one kind whose resolutions differ.

    Tokens in front of the grid, such as the class token, have no place on it. The teacher's are told from the student's
    where both have as many, each by a linear layer of its own, and otherwise from the mean over the student's grid. For
    a teacher's map the student's are left out.

    student_prefix: tokens in front of the student's grid; None for none or one, whichever leaves a square.
    teacher_prefix: likewise of the teacher's.

    Raises: ValueError for embeddings, and for tokens that do not form a square grid.
    """

    student_prefix: int | None = None
    teacher_prefix: int | None = None

    def __post_init__(self) -> None:
        for name, prefix in (("student_prefix", self.student_prefix), ("teacher_prefix", self.teacher_prefix)):
            if prefix is not None and prefix < 0:
                raise ValueError(f"Grid.{name} must be a number of tokens of at least 0, or None, got {prefix}.")

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """A module from the student's layer to the teacher's."""
        for shape in (student, teacher):
            if len(shape) not in (3, 4):
                raise ValueError(
                    f"Grid maps (B, C, H, W) or tokens (B, T, D), {got(student, teacher)}. "
                    "Tap layers before the mean over positions, or use head=Linear() between embeddings."
                )
        return _OnGrid(
            _layout("student", student, self.student_prefix), _layout("teacher", teacher, self.teacher_prefix)
        )


class _OnGrid(nn.Module):
    def __init__(self, student: _Layout, teacher: _Layout) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self.positions = nn.Linear(student.width, teacher.width)
        self.prefix = nn.ModuleList(nn.Linear(student.width, teacher.width) for _ in range(teacher.prefix))

    def forward(self, features: Tensor) -> Tensor:
        student, teacher = self.student, self.teacher
        tokens_BTD = features if student.tokens else rearrange(features, "b c h w -> b (h w) c")
        before_BPD, on_grid_BND = tokens_BTD[:, : student.prefix], tokens_BTD[:, student.prefix :]
        placed_BND = self.positions(on_grid_BND)
        map_BDHW = rearrange(placed_BND, "b (h w) d -> b d h w", h=student.rows)
        map_BDHW = resize(map_BDHW, teacher.rows, teacher.columns)
        if not teacher.tokens:
            return map_BDHW
        mapped_BND = rearrange(map_BDHW, "b d h w -> b (h w) d")
        if student.prefix != teacher.prefix:
            before_BPD = on_grid_BND.mean(1, keepdim=True).expand(-1, teacher.prefix, -1)
        prefix = [linear(before_BPD[:, place, None]) for place, linear in enumerate(self.prefix)]
        return torch.cat([*prefix, mapped_BND], 1)


def resize(map_BDHW: Tensor, rows: int, columns: int) -> Tensor:
    """A map of `rows` x `columns`: the mean along a side that shrinks, bilinear interpolation along one that grows."""
    height, width = map_BDHW.shape[2:]
    smaller = F.adaptive_avg_pool2d(map_BDHW, (min(height, rows), min(width, columns)))
    return F.interpolate(smaller, (rows, columns), mode="bilinear", align_corners=False)


def _layout(side: str, shape: torch.Size, prefix: int | None) -> _Layout:
    if len(shape) == 4:
        if prefix:
            raise ValueError(
                f"Grid.{side}_prefix counts tokens, and the {side}'s {tuple(shape)} is a map. Leave it out."
            )
        return _Layout(tokens=False, width=shape[1], rows=shape[2], columns=shape[3], prefix=0)
    length = shape[1]
    tried = (0, 1) if prefix is None else (prefix,)
    for before in tried:
        rows = math.isqrt(max(length - before, 0))
        if rows > 0 and rows * rows == length - before:
            return _Layout(tokens=True, width=shape[2], rows=rows, columns=rows, prefix=before)
    behind = " or ".join(str(length - before) for before in tried)
    raise ValueError(
        f"Grid finds no grid in the {side}'s {length} tokens, {tuple(shape)}: {behind} make no square. "
        f"Say how many tokens stand in front of a square of them ({side}_prefix=...), or compare embeddings or logits."
    )
