"""What every initializer is: a mapping of the teacher's parameters onto the student's."""

from typing import Protocol, runtime_checkable

from torch import nn

from distill.initialize.coverage import Coverage


@runtime_checkable
class Initializer(Protocol):
    """Starts a student from a teacher; a frozen dataclass of plain settings."""

    def __call__(self, teacher: nn.Module, student: nn.Module) -> Coverage:
        """Change the student's tensors, never the teacher's, and say for each what became of it."""
        ...
