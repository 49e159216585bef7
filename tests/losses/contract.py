"""What a row of the losses' contract is made of. The rows lie in rows_*.py beside this file, one row a loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import Loss

Value = Tensor | tuple[Tensor, ...]
CLASSES = 5


@dataclass(frozen=True)
class Inputs:
    """What one call of a loss is given; float64.

    shared: places of the teacher's tensors that are not of the examples, such as the memories of CRD.
    """

    student: Value
    teacher: Value
    labels: Tensor
    mask: Tensor | None = None
    shared: tuple[int, ...] = ()

    @property
    def batch(self) -> Batch:
        return Batch(torch.zeros(len(self.labels), 1), self.labels, torch.arange(len(self.labels)), self.mask)

    def rows(self, which: Tensor | slice) -> "Inputs":
        """Of the chosen examples only."""
        mask = None if self.mask is None else self.mask[which]
        student, teacher = (each(lambda x: x[which], value) for value in (self.student, self.teacher))
        if self.shared:
            teacher = tuple(self.teacher[i] if i in self.shared else x for i, x in enumerate(teacher))
        return replace(self, student=student, teacher=teacher, labels=self.labels[which], mask=mask)


@dataclass(frozen=True)
class Row:
    """One loss under test.

    loss: with its settings.
    make: batch size to inputs, drawn from torch's generator.
    refused: for each setting but switches, values that the constructor refuses.
    best: inputs to the student at which the loss is smallest; by default where it equals the teacher.
    minimum: the value there, of each example; a function of the inputs where it differs between them.
    own_part: a part of this coupled loss is each example's own, so that it is not 0 in a batch of one.
    """

    loss: Loss
    make: Callable[[int], Inputs]
    refused: Mapping[str, tuple[object, ...]]
    best: Callable[[Inputs], Value] = lambda inputs: inputs.teacher
    minimum: float | Callable[[Inputs], Tensor] = 0.0
    own_part: bool = False

    @property
    def name(self) -> str:
        return type(self.loss).__name__


def each(change: Callable[[Tensor], Tensor], value: Value) -> Value:
    """A tensor changed, or each one of a tuple."""
    return change(value) if isinstance(value, Tensor) else tuple(change(x) for x in value)


def floats(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The change, of tensors of floats only: numbers of rows stay as they are."""
    return lambda x: change(x) if x.is_floating_point() else x


def flat(value: Value) -> tuple[Tensor, ...]:
    """The tensors of a value."""
    return (value,) if isinstance(value, Tensor) else value


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def some_labels(size: int) -> Tensor:
    return torch.randint(CLASSES, (size,))


def logits(size: int) -> Inputs:
    return Inputs(normal(size, CLASSES), 2 * normal(size, CLASSES), some_labels(size))


def soft_logits(size: int) -> Inputs:
    return Inputs(normal(size, CLASSES), normal(size, CLASSES), normal(size, CLASSES).softmax(1))


def embeddings(size: int) -> Inputs:
    return Inputs(normal(size, 3), normal(size, 4), some_labels(size))


def equal_maps(size: int) -> Inputs:
    return Inputs(normal(size, 2, 3, 3), normal(size, 2, 3, 3), some_labels(size))


def maps(size: int) -> Inputs:
    return Inputs(normal(size, 2, 4, 4), normal(size, 3, 3, 2), some_labels(size))


def layers(size: int) -> Inputs:
    student = normal(size, 2, 4, 4), normal(size, 3, 2, 2), normal(size, 2, 2, 2)
    teacher = normal(size, 2, 4, 4), normal(size, 3, 3, 3), normal(size, 2, 1, 1)
    return Inputs(student, teacher, some_labels(size))


NO_SCOPE = {"scope": ("all", "")}


def value_and_gradient(loss: Loss, inputs: Inputs, divisor: float) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Sum of the loss over the examples divided by `divisor`, and its gradient at the student."""
    student = each(lambda x: x.clone().requires_grad_(), inputs.student)
    total = loss(student, inputs.teacher, inputs.batch).sum() / divisor
    return total.detach(), torch.autograd.grad(total, flat(student))


def mean_and_gradient(loss: Loss, inputs: Inputs) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Mean of the loss over the examples, and its gradient at the student."""
    return value_and_gradient(loss, inputs, len(inputs.labels))
