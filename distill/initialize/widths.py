"""A wider dimension that carries the same values: how what writes it and what reads it are grown.

Position j of the wider dimension is a copy of position j mod the teacher's size, so attention heads that are listed one
after the other are copied whole. It depends on the two sizes only, so wherever a model passes the same channels on, the
same ones are copied.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """How unevenly copies share what they pass on: a relative deviation, and where it is drawn from."""

    noise: float
    generator: torch.Generator


@dataclass(frozen=True)
class Width:
    """`size` channels of the teacher as `grown` of the student.

    averaged: for a stream that LayerNorm reads and whose new size is no multiple. Copying some channels more often than
        others would change the mean and the variance, so what is left over after equally many copies of all is the
        channels' mean, and everything is scaled such that the variance stays (average expansion; Wang et al., 2024,
        arXiv:2310.07999, who change LayerNorm's weight and epsilon instead of the scale).
    """

    size: int
    grown: int
    averaged: bool = False

    @property
    def positions(self) -> Tensor:
        """The teacher's position for each of the student's."""
        return torch.arange(self.grown) % self.size

    @property
    def copied(self) -> int:
        """How many of the student's positions are copies; the rest are means."""
        return self.grown // self.size * self.size if self.averaged else self.grown

    @property
    def scale(self) -> float:
        """Factor on the whole stream."""
        return sqrt(self.grown / self.copied)

    def write(self, tensor: Tensor, axis: int) -> Tensor:
        """Values of this width, or rows of a weight that gives them."""
        copies = tensor.index_select(axis, self.positions[: self.copied])
        if not self.averaged:
            return copies
        counts = [-1] * tensor.dim()
        counts[axis] = self.grown - self.copied
        return self.scale * torch.cat([copies, tensor.mean(axis, keepdim=True).expand(counts)], axis)

    def read(self, weight: Tensor, axis: int, draws: Draws) -> Tensor:
        """Columns of a weight that reads this width, behind LayerNorm where it is averaged: copies share the whole."""
        return shared(weight, axis, self.positions, draws, self.copied)

    def behind_norm(self, values: Tensor, axis: int) -> Tensor:
        """What LayerNorm makes of values of this width: the copies without their scale, and zero of their mean."""
        copies = values.index_select(axis, self.positions)
        return copies * (torch.arange(self.grown) < self.copied).view(-1, *(1 for _ in values.shape[axis + 1 :]))

    def normalize(self, tensor: Tensor, name: str) -> Tensor:
        """LayerNorm's weight or bias over this width; what it makes of means is zero."""
        taken = tensor[self.positions] / (self.scale if name == "weight" else 1.0)
        if name == "bias":
            taken[self.copied :] = 0.0
        return taken


def shared(weight: Tensor, axis: int, positions: Tensor, draws: Draws, copied: int | None = None) -> Tensor:
    """Columns of a weight at `positions`, each divided among its copies such that they sum to the whole.

    draws: how unevenly. The sum, and so the function, stays; copies that share unevenly get different gradients.
    copied: how many positions are copies; what the rest are multiplied with is zero.
    """
    copies = positions[:copied]
    counts = torch.bincount(copies, minlength=weight.shape[axis]).clamp(min=1)
    taken = weight.movedim(axis, 0)[positions]
    shape = (-1, *(1 for _ in taken.shape[1:]))
    shares = (1.0 / counts[positions].double()).view(shape)
    if draws.noise:
        drawn = shares * draws.noise * torch.randn(taken.shape, generator=draws.generator, dtype=torch.float64)
        sums = torch.zeros(len(counts), *taken.shape[1:], dtype=drawn.dtype).index_add(0, copies, drawn[:copied])
        shares = shares + drawn - (sums / counts.view(shape))[positions]
    return (taken * shares).movedim(0, axis)
