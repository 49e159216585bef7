"""What is known of a split's examples beside image and labels: whose, of which group, and where a finding is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

UNKNOWN = ""


class Box(NamedTuple):
    """Where one label shows in one example: shares of the image's width and height, in [0, 1]."""

    example: int
    label: int
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, eq=False)
class Cases:
    """The cases of a split.

    patient: int64 (N,); examples of one number are of one person, so they are no independent draws.
    attributes: {"sex": (N values), ...}, each example's group; "" where it is not known.
    boxes: of those examples and labels that have one.
    """

    patient: Tensor
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    boxes: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        for name, values in self.attributes.items():
            assert len(values) == len(self.patient), name

    def rows(self, which: Tensor) -> "Cases":
        """The cases of the chosen examples, in the order asked for, each example at most once."""
        rows = which.tolist()
        places = {row: place for place, row in enumerate(rows)}
        return Cases(
            self.patient[which],
            {name: tuple(values[row] for row in rows) for name, values in self.attributes.items()},
            tuple(box._replace(example=places[box.example]) for box in self.boxes if box.example in places),
        )


def independent(count: int) -> Cases:
    """Cases of which nothing is known: each example stands for itself."""
    return Cases(torch.arange(count))
