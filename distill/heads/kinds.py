"""What a mapping head is, and the kinds that the learner must tell apart."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


class Head(Protocol):
    """Makes a module from the student's shape to the teacher's; the shapes include the batch dimension.

    The module is called with the student's tensor and gives what the loss gets of the student: a tensor, or a tuple.
    Where a term has several taps each tap gets a head of its own.
    """

    def __call__(self, student: Any, teacher: Any) -> nn.Module:
        """The module that maps features of the student's shape, a `torch.Size`, to the teacher's."""
        ...


class Joint(Head):
    """Marks a head that is one module for all taps of its term: it is made from tuples of shapes, one shape a tap, and
    its module is called with the tuple of the student's tensors.
    """


class Meeting(Head):
    """Marks a head that maps both sides, since something of the teacher's is learned too.

    Its module is called as `module(student, teacher, batch)`, with the teacher's tensor (or tuple) without gradient
    and the `Batch`, and gives the pair of what the loss gets as its student and as its teacher.
    """


class ReadsMask(nn.Module):
    """A module for tokens of texts, called as `module(student, mask)`: with the mask (B, T) of the batch, or None."""


@runtime_checkable
class Remembers(Protocol):
    """A module with a memory that is written once an update, so that how a batch is cut does not change it."""

    def remember(self, gather: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Write what the forward passes of this update left; `gather` joins the rows of all processes in rank order."""
        ...

    def forget(self) -> None:
        """Drop what they left, of an update that is left out."""
        ...


@runtime_checkable
class ReadsTeacher(Protocol):
    """A module that takes something from the teacher's own weights, once, before training."""

    def read_teacher(self, teacher: nn.Module) -> None:
        """Take it.

        Raises:
            ValueError: the teacher has no such module; names the nearest.
        """
        ...
