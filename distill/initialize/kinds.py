"""What every initializer is: a mapping of the teacher's parameters onto the student's."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import nn

from distill.initialize.coverage import Coverage

# Runs a model on a few training examples, as it sees them.
Feed = Callable[[], None]


@runtime_checkable
class Initializer(Protocol):
    """Starts a student from a teacher; a frozen dataclass of plain settings."""

    def __call__(self, teacher: nn.Module, student: nn.Module) -> Coverage:
        """Change the student's tensors, never the teacher's, and say for each what became of it."""
        ...


@runtime_checkable
class ReadsExamples(Protocol):
    """An initializer that may look at what the teacher computes on training examples.

    A run starts it by `from_examples` in place of its call; all others never see data.
    """

    def from_examples(self, teacher: nn.Module, student: nn.Module, feed: Feed) -> Coverage:
        """As the call; `feed` runs the teacher in evaluation mode and without gradient, each time on the same."""
        ...
