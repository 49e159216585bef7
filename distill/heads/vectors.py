"""Heads over the last dimension: embeddings (B, D) and tokens (B, T, D)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from distill.heads.checks import check_vectors

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


@dataclass(frozen=True)
class Linear:
    """y = Wx + b over the last dimension: embeddings (B, D) or tokens (B, T, D), to the teacher's width.

    bias: whether b is learned.

    Raises: ValueError for maps, which take Conv1x1, and where the forms differ.
    """

    bias: bool = True

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """A linear layer from the student's width to the teacher's."""
        check_vectors("Linear", student, teacher)
        return nn.Linear(student[-1], teacher[-1], bias=self.bias)


@dataclass(frozen=True)
class MLP:
    """One or two hidden layers over the last dimension: embeddings (B, D) or tokens (B, T, D), to the teacher's width.

    hidden: width of the hidden layers; None takes the teacher's.
    layers: number of hidden layers, 1 or 2.
    activation: after each hidden layer.

    Raises: ValueError for maps, which take Conv1x1, and where the forms differ.
    """

    hidden: int | None = None
    layers: Literal[1, 2] = 1
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"

    def __post_init__(self) -> None:
        if self.hidden is not None and self.hidden < 1:
            raise ValueError(f"MLP.hidden is a width of at least 1, or None for the teacher's, got {self.hidden}.")
        if self.layers not in (1, 2):
            raise ValueError(f"MLP.layers is 1 or 2 hidden layers, got {self.layers}.")
        if self.activation not in _ACTIVATIONS:
            raise ValueError(f"MLP.activation must be one of {', '.join(_ACTIVATIONS)}, got {self.activation!r}.")

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """A perceptron from the student's width to the teacher's."""
        check_vectors("MLP", student, teacher)
        hidden = self.hidden or teacher[-1]
        widths = [student[-1], *[hidden] * self.layers]
        modules: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            modules += [nn.Linear(width, next_width), _ACTIVATIONS[self.activation]()]
        return nn.Sequential(*modules, nn.Linear(hidden, teacher[-1]))
