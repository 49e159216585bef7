"""What every loss promises, as data: one row a loss. A new loss needs its file, its import line and its row here."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses import (
    FSP,
    KD,
    AttentionTransfer,
    Coupled,
    CrossEntropy,
    Hint,
    Loss,
    RKDAngle,
    RKDDistance,
    SimilarityPreserving,
)

Value = Tensor | tuple[Tensor, ...]
CLASSES = 5


@dataclass(frozen=True)
class Inputs:
    """What one call of a loss is given; float64."""

    student: Value
    teacher: Value
    labels: Tensor

    @property
    def batch(self) -> Batch:
        return Batch(torch.zeros(len(self.labels), 1), self.labels, torch.arange(len(self.labels)))

    def rows(self, which: Tensor | slice) -> "Inputs":
        """Of the chosen examples only."""
        return Inputs(
            each(lambda x: x[which], self.student), each(lambda x: x[which], self.teacher), self.labels[which]
        )


@dataclass(frozen=True)
class Row:
    """One loss under test.

    loss: with its settings.
    make: batch size to inputs, drawn from torch's generator.
    refused: for each setting but switches, values that the constructor refuses.
    best: inputs to the student at which the loss is smallest; by default where it equals the teacher.
    minimum: the value there, of each example.
    """

    loss: Loss
    make: Callable[[int], Inputs]
    refused: Mapping[str, tuple[object, ...]]
    best: Callable[[Inputs], Value] = lambda inputs: inputs.teacher
    minimum: float = 0.0

    @property
    def name(self) -> str:
        return type(self.loss).__name__


def each(change: Callable[[Tensor], Tensor], value: Value) -> Value:
    """A tensor changed, or each one of a tuple."""
    return change(value) if isinstance(value, Tensor) else tuple(change(x) for x in value)


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


# CrossEntropy is smallest where softmax(z) is the target: far out for a hard label, and at log(target) else, with the
# target's entropy as its value. Smoothing 0.2 over 5 classes gives 0.84 and four times 0.04:
# −0.84 ln 0.84 − 0.16 ln 0.04 = 0.661477.
def certain(inputs: Inputs) -> Value:
    return 100 * F.one_hot(inputs.labels, CLASSES).double()


def smoothed(inputs: Inputs) -> Value:
    return (0.8 * F.one_hot(inputs.labels, CLASSES) + 0.2 / CLASSES).double().log()


NO_SCOPE = {"scope": ("all", "")}
ROWS = (
    Row(CrossEntropy(), logits, {"label_smoothing": (-0.1, 1.0, float("nan"))}, certain),
    Row(CrossEntropy(label_smoothing=0.2), logits, {"label_smoothing": (2.0,)}, smoothed, 0.661477),
    Row(KD(), logits, {"temperature": (0.0, -1.0, float("nan"), float("inf"))}),
    Row(KD(temperature=2.0, standardize=True), logits, {"temperature": (0.0,)}),
    Row(Hint(), equal_maps, {}),
    Row(AttentionTransfer(), maps, {"power": (0.5, float("inf"), float("nan"))}),
    Row(RKDDistance(), embeddings, NO_SCOPE),
    Row(RKDAngle(), embeddings, NO_SCOPE),
    Row(SimilarityPreserving(), maps, NO_SCOPE),
    Row(FSP(), layers, {}),
)


def value_and_gradient(loss: Loss, inputs: Inputs, divisor: float) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Sum of the loss over the examples divided by `divisor`, and its gradient at the student."""
    student = each(lambda x: x.clone().requires_grad_(), inputs.student)
    total = loss(student, inputs.teacher, inputs.batch).sum() / divisor
    return total.detach(), torch.autograd.grad(total, flat(student))


def mean_and_gradient(loss: Loss, inputs: Inputs) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Mean of the loss over the examples, and its gradient at the student."""
    return value_and_gradient(loss, inputs, len(inputs.labels))


SHARES = (5, 3)  # examples of each process


def main(rank: int, folder: str) -> None:
    """One process of two: saves value and gradient of its share of the batch, with global and with local scope."""
    store = dist.FileStore(f"{folder}/store", len(SHARES))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=len(SHARES), timeout=timedelta(seconds=60))
    start = sum(SHARES[:rank])
    results = []
    for row, inputs in zip(ROWS, torch.load(f"{folder}/inputs.pt", weights_only=False), strict=True):
        own = inputs.rows(slice(start, start + SHARES[rank]))
        alone = replace(row.loss, scope="local") if isinstance(row.loss, Coupled) else row.loss
        results.append((value_and_gradient(row.loss, own, sum(SHARES)), mean_and_gradient(alone, own)))
    torch.save(results, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
