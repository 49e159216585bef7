"""Mapping heads: learned maps of a student's features to the teacher's shape, thrown away after training."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class Head(Protocol):
    """Makes a module from the student's shape to the teacher's; the shapes include the batch dimension."""

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """The module that maps features of the student's shape to the teacher's."""
        ...


@dataclass(frozen=True)
class Linear:
    """y = Wx + b over the last dimension: embeddings (B, D) or tokens (B, T, D), to the teacher's width.

    bias: whether b is learned.

    Raises: ValueError for maps, which take Conv1x1, and where the forms differ.
    """

    bias: bool = True

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """A linear layer from the student's width to the teacher's."""
        _check_vectors("Linear", student, teacher)
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
        _check_vectors("MLP", student, teacher)
        hidden = self.hidden or teacher[-1]
        widths = [student[-1], *[hidden] * self.layers]
        modules: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            modules += [nn.Linear(width, next_width), _ACTIVATIONS[self.activation]()]
        return nn.Sequential(*modules, nn.Linear(hidden, teacher[-1]))


@dataclass(frozen=True)
class Conv1x1:
    """A 1x1 convolution of maps (B, C, H, W) to the teacher's channels; height and width stay.

    norm: batch normalisation after it, in place of a bias.

    Raises: ValueError where these are not maps of one size.
    """

    norm: bool = True

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """A convolution from the student's channels to the teacher's."""
        _check_maps("Conv1x1", student, teacher)
        if student[2:] != teacher[2:]:
            raise ValueError(f"Conv1x1 keeps height and width, {_got(student, teacher)}. Use head=Regressor().")
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
        _check_maps("Regressor", student, teacher)
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
        f"Regressor needs a student's map half the teacher's or not smaller than it, {_got(student, teacher)}. "
        "Tap an earlier layer of the student or a later one of the teacher."
    )


def _check_vectors(head: str, student: torch.Size, teacher: torch.Size) -> None:
    if len(student) not in (2, 3) or len(student) != len(teacher):
        way_out = "Use head=Conv1x1()." if len(student) == len(teacher) == 4 else "Tap tensors of one form."
        raise ValueError(f"{head} maps (B, D) or (B, T, D) over D, {_got(student, teacher)}. {way_out}")


def _check_maps(head: str, student: torch.Size, teacher: torch.Size) -> None:
    if len(student) != 4 or len(teacher) != 4:
        way_out = "Use head=Linear()." if len(student) == len(teacher) else "Tap tensors of one form."
        raise ValueError(f"{head} maps (B, C, H, W) over C, {_got(student, teacher)}. {way_out}")


def _got(student: torch.Size, teacher: torch.Size) -> str:
    return f"got student {tuple(student)} and teacher {tuple(teacher)}"
