"""What a loss is, and the kinds that a plan and a trainer must tell apart."""

from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from distill.batch import Batch

Scope = Literal["global", "local"]


@runtime_checkable
class Loss(Protocol):
    """One number for each example: unreduced, unweighted, float32 or wider, without parameters.

    `loss(student, teacher, batch)` has shape (B,), and its mean over the batch of all processes is the value of the
    formula. Student and teacher are a tensor whose first dimension is the examples, or a tuple of such tensors where
    the formula spans layers; each loss states which. The gradient reaches the student alone.
    """

    def __call__(self, student: Any, teacher: Any, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        ...


class Task:
    """Marks a loss against the labels alone: the teacher's tensor is ignored and may be None."""


class Exclusive:
    """Marks a loss that reads logits as classes of which an example has one: it is wrong where it may have several."""


class HonoursMask:
    """Marks a loss in which what `batch.mask` leaves out has no influence, or whose tensors have no such positions.

    Any other loss is refused tensors over positions, of three or more dimensions, where a batch has a mask.
    """


class Coupled:
    """Marks a loss in which the examples of a batch meet, so that cutting the batch changes the value.

    Each such loss has the field `scope`: "global" meets the rows of all processes, with gradients, and equals one
    process with the whole batch; "local" meets the rows of one process only, without communication.
    """

    scope: Scope
