"""The head of contrastive representation distillation: embeddings of both models, and a memory of past ones."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.heads.checks import got
from distill.heads.kinds import Meeting
from distill.numerics import unit, widen


@dataclass(frozen=True)
class Contrast(Meeting):
    """Embeddings (B, D) of both models to one width and unit norm, and a memory of both to contrast them with, for CRD.

    With `examples` the memory has a row for each training example, as in Tian, Krishnan and Isola, 2020, "Contrastive
    Representation Distillation", arXiv:1910.10699, section 3: an example's row is the mean of its past embeddings, and
    `negatives` of the other classes' rows are drawn for each example. Without, it is a queue of the latest embeddings,
    all of which count, as in He et al., 2020, "Momentum Contrast for Unsupervised Visual Representation Learning",
    arXiv:1911.05722, section 3.2, and the positive pair is that of the batch.

    Rows of the example's own class are left out once the memory has seen that class, which is from the second epoch on
    for all of them; the authors' code reads the classes of all examples beforehand.

    examples: number of training examples, above every `batch.index`; None for the queue.
    width: of the embeddings.
    negatives: drawn for each example, or the length of the queue.
    momentum: share of its old value that an example's row keeps; a queue has none.

    Raises: ValueError where these are not embeddings.
    """

    examples: int | None
    width: int = 128
    negatives: int = 16384
    momentum: float = 0.5

    def __post_init__(self) -> None:
        if self.examples is not None and self.examples < 2:
            raise ValueError(f"Contrast.examples must be at least 2, or None for a queue, got {self.examples}.")
        if self.width < 1:
            raise ValueError(f"Contrast.width must be at least 1, got {self.width}.")
        if self.negatives < 1:
            raise ValueError(f"Contrast.negatives must be at least 1, got {self.negatives}.")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"Contrast.momentum must be at least 0 and below 1, got {self.momentum}.")

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """Linear layers from both widths, and the memory, which starts at random."""
        if len(student) != 2 or len(teacher) != 2:
            raise ValueError(f'Contrast maps embeddings (B, D), {got(student, teacher)}. Tap "embedding".')
        memory: _Bank | _Queue
        if self.examples is None:
            memory = _Queue(rows=self.negatives, width=self.width)
        else:
            memory = _Bank(rows=self.examples, width=self.width, negatives=self.negatives, momentum=self.momentum)
        return _Embeddings(student[1], teacher[1], self.width, memory)


class _Embeddings(nn.Module):
    """Linear layers for both models, and a memory of what they gave.

    Called as `module(student, teacher, batch)`; gives ((v_s, v_t), (bank_student, bank_teacher, chosen)) as CRD takes
    them. A forward pass that trains leaves its embeddings for `remember`; others leave nothing.
    """

    def __init__(self, student_width: int, teacher_width: int, width: int, memory: "_Bank | _Queue") -> None:
        super().__init__()
        self.student = nn.Linear(student_width, width)
        self.teacher = nn.Linear(teacher_width, width)
        self.memory = memory
        self._left: list[tuple[Tensor, Tensor]] = []

    def forward(
        self, student: Tensor, teacher: Tensor, batch: Batch
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
        if batch.labels.ndim != 1 or batch.labels.is_floating_point():
            raise ValueError(
                f"Contrast takes one class for each example, labels int (B,), got {batch.labels.dtype} "
                f"{tuple(batch.labels.shape)}. Leave out mixup and cutmix."
            )
        of_student = unit(widen(self.student(student)), 1)
        of_teacher = unit(widen(self.teacher(teacher)), 1)
        with torch.no_grad():
            chosen = self.memory.choose(batch)
        if self.training and torch.is_grad_enabled():
            numbers = torch.stack([batch.index, batch.labels.to(torch.int64)], 1)
            self._left.append((numbers, torch.cat([of_student, of_teacher], 1).detach()))
        return (of_student, of_teacher), (self.memory.bank_student, self.memory.bank_teacher, chosen)

    @torch.no_grad()
    def remember(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Write the embeddings of this update, those of all processes, into the memory: the same on each of them."""
        bank, labels = self.memory.bank_student, self.memory.labels
        none = labels.new_empty(0, 2), bank.new_empty(0, 2 * bank.shape[1])
        numbers, vectors = (gather(torch.cat(parts)) for parts in zip(none, *self._left, strict=True))
        self._left.clear()
        self.memory.write(*numbers.unbind(1), *vectors.to(bank.dtype).chunk(2, 1))

    def forget(self) -> None:
        """Drop the embeddings of this update."""
        self._left.clear()


def _add_rows(memory: nn.Module, rows: int, width: int) -> None:
    """Give a memory its rows of both models, at random, and their labels, −1 for a row that was not written yet."""
    bound = 1 / math.sqrt(width / 3)  # entries of variance 1 / width: rows of norm near 1
    memory.register_buffer("bank_student", torch.empty(rows, width).uniform_(-bound, bound))
    memory.register_buffer("bank_teacher", torch.empty(rows, width).uniform_(-bound, bound))
    memory.register_buffer("labels", torch.full((rows,), -1))


class _Bank(nn.Module):
    """A row for each example: a moving mean of its embeddings, set to unit norm."""

    bank_student: Tensor
    bank_teacher: Tensor
    labels: Tensor
    seed: Tensor
    updates: Tensor

    def __init__(self, *, rows: int, width: int, negatives: int, momentum: float) -> None:
        super().__init__()
        _add_rows(self, rows, width)
        self.negatives, self.momentum = negatives, momentum
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def choose(self, batch: Batch) -> Tensor:
        """The example's own row, then rows drawn from those of other classes; −1 where there are none."""
        if batch.index.device.type == "cpu" and len(batch) and int(batch.index.max()) >= len(self.labels):
            raise ValueError(  # an accelerator, which a look at the numbers would hold up, refuses them by itself
                f"Contrast.examples must be above every example's number, got {len(self.labels)} and the number "
                f"{int(batch.index.max())}. Give the number of training examples."
            )
        seeds = mixed(mixed(self.seed + self.updates) + batch.index)
        order, skipped, free = others(self.labels, batch.index, batch.labels)
        drawn = uniform(seeds, self.negatives, free)
        for place, length in skipped:
            drawn += (drawn >= place[:, None]) * length[:, None]
        rows = order.index_select(0, drawn.clamp_(max=len(order) - 1).flatten()).view_as(drawn)
        return torch.cat([batch.index[:, None], rows.masked_fill_(free[:, None] <= 0, -1)], 1)

    def write(self, index: Tensor, labels: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Move the rows of these examples towards their new embeddings."""
        # Where an example came twice every one of its writes is the last one's, so that their order does not matter.
        latest = torch.zeros_like(self.labels).scatter_reduce_(
            0, index, torch.arange(len(index), device=index.device), "amax"
        )
        latest = latest[index]
        self.labels[index] = labels[latest]
        for bank, new in ((self.bank_student, student), (self.bank_teacher, teacher)):
            bank[index] = unit(self.momentum * bank[index] + (1 - self.momentum) * new[latest], 1)
        self.updates += 1


class _Queue(nn.Module):
    """The latest embeddings, whichever examples they are of."""

    bank_student: Tensor
    bank_teacher: Tensor
    labels: Tensor
    written: Tensor

    def __init__(self, *, rows: int, width: int) -> None:
        super().__init__()
        _add_rows(self, rows, width)
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    def choose(self, batch: Batch) -> Tensor:
        """−1 for the batch's own pair, then all rows, with −1 in place of those of the example's class."""
        own = batch.labels[:, None].to(torch.int64)
        rows = torch.arange(len(self.labels), device=own.device).expand(len(own), -1)
        rows = rows.masked_fill((self.labels == own) & (own >= 0), -1)
        return torch.cat([torch.full_like(own, -1), rows], 1)

    def write(self, index: Tensor, labels: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Put these embeddings in place of the oldest ones."""
        # By the examples' numbers, so that the order over micro-batches and processes decides nothing.
        order = index.argsort(stable=True)[-len(self.labels) :]
        places = (self.written + torch.arange(len(order), device=order.device)) % len(self.labels)
        self.labels[places] = labels[order]
        self.bank_student[places], self.bank_teacher[places] = student[order], teacher[order]
        self.written += len(order)


def others(
    labels: Tensor, index: Tensor, own_labels: Tensor
) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]], Tensor]:
    """The rows that are neither an example nor of its class, as what is left of one order of all rows.

    labels: (n,) of the memory's rows, −1 where unknown. index, own_labels: (B,) of the examples.
    Gives the rows in the order of their labels; two pairs of where a stretch to skip begins and how long it is, (B,)
    each, first and second along the order; and how many rows are left, (B,).
    """
    sorted_labels, order = labels.sort(stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    own_labels = own_labels.to(torch.int64)
    begin = torch.searchsorted(sorted_labels, own_labels)
    length = torch.searchsorted(sorted_labels, own_labels, right=True) - begin
    length = torch.where(own_labels >= 0, length, 0)
    # The example's own row has its class once it has been seen; before it is a stretch of one.
    alone = ((labels[index] != own_labels) | (own_labels < 0)).to(torch.int64)
    place = torch.where(alone > 0, places[index], len(order))
    before = place < begin
    first = torch.where(before, place, begin), torch.where(before, alone, length)
    second = torch.where(before, begin, place), torch.where(before, length, alone)
    return order, (first, second), len(order) - length - alone


# The generator splitmix64 (Steele, Lea and Flood, 2014, "Fast Splittable Pseudorandom Number Generators", figure 10):
# a number depends on a seed and its position alone. int64 wraps like the unsigned numbers that it is defined on.
_STEP, _FIRST, _SECOND = (x - 2**64 for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shifted(x: Tensor, bits: int) -> Tensor:
    """x >> bits with zeros moved in, as of an unsigned number."""
    return (x >> bits).bitwise_and_(2 ** (64 - bits) - 1)


def _finalize(x: Tensor) -> Tensor:
    x = x.bitwise_xor_(_shifted(x, 30)).mul_(_FIRST)
    x = x.bitwise_xor_(_shifted(x, 27)).mul_(_SECOND)
    return x.bitwise_xor_(_shifted(x, 31))


def mixed(x: Tensor) -> Tensor:
    """64 bits in which every bit of the int64 x counts: the first number of splitmix64 with the seed x."""
    return _finalize(x + _STEP)


def uniform(seeds: Tensor, count: int, below: Tensor) -> Tensor:
    """`count` numbers of splitmix64 for each seed, int64 (B, count), uniform from 0 and under `below` (B,) < 2³¹."""
    steps = _STEP * torch.arange(1, count + 1, device=seeds.device)
    return _shifted(_finalize(seeds[:, None] + steps), 32).mul_(below[:, None]).bitwise_right_shift_(32)
