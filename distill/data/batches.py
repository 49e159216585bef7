"""Which examples each process takes in which micro-batch, so that how a batch is cut does not change what is in it."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from distill.data.draws import generator

# Batches that are sorted by length together: enough for little padding, few enough that batches stay chance.
_BUCKET = 50


class Batches(Sampler[list[tuple[int, int]]]):
    """Micro-batches of keys (epoch, index) for one process, out of global batches that all processes share.

    Global batch k of an epoch is a slice of the epoch's order, which depends on the seed and the epoch alone. It is cut
    into one contiguous share for each process, sizes differing by at most one, and each share into the same number of
    micro-batches, none empty. So every process makes the same number of forward passes in a step, and the union over
    processes and micro-batches is the global batch.

    batch_size: examples of a step over all processes. micro_batch_size: most examples of one forward pass in one
    process; None puts no bound. With a bound of 1 and shares that differ by one, one micro-batch of the larger share
    holds two.

    The last, ragged batch is kept. If it has fewer examples than there are processes, it is left out when shuffled
    (`left_out` says how many examples an epoch misses, others in each epoch), and joins the batch before it when not,
    since evaluation counts every example.

    views: as many epochs' keys come in turn, so that an example looks as it did so many epochs before; None for keys of
    their own in each epoch. The order is each epoch's own all the same.

    lengths: of each example, where batches are to hold examples of similar length, so that little is padded; None for
    batches by chance alone. When shuffled, each `_BUCKET` batches' worth of the shuffled order is sorted by length and
    cut into batches, which then come in any order; within a batch chance decides who takes which examples. When not,
    examples come by length, dealt out so that every process has as many long ones.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        batch_size: int,
        micro_batch_size: int | None = None,
        rank: int = 0,
        processes: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        lengths: Tensor | None = None,
        views: int | None = None,
    ) -> None:
        if batch_size < processes:
            raise ValueError(
                f"batch_size={batch_size} does not reach {processes} processes. Give at least {processes}."
            )
        if micro_batch_size is not None and micro_batch_size < 1:
            raise ValueError(f"micro_batch_size is at least 1, got {micro_batch_size}.")
        if num_examples < processes:
            raise ValueError(f"{num_examples} examples cannot be shared by {processes} processes. Start fewer.")
        assert 0 <= rank < processes
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.rank = rank
        self.processes = processes
        self.seed = seed
        self.shuffle = shuffle
        self.lengths = lengths
        self.views = views
        self.epoch = 0
        self.start_step = 0
        full, ragged = divmod(num_examples, batch_size)
        self._sizes = [batch_size] * full
        self.left_out = 0
        if ragged >= processes:
            self._sizes.append(ragged)
        elif shuffle:
            self.left_out = ragged
        else:
            self._sizes[-1] += ragged

    @property
    def steps(self) -> int:
        """Global batches of an epoch."""
        return len(self._sizes)

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """Makes the next iteration that of `epoch`, from step `start_step` on: exactly the rest of the whole epoch."""
        if not 0 <= start_step <= self.steps:
            raise ValueError(f"start_step is between 0 and the {self.steps} steps of an epoch, got {start_step}.")
        self.epoch = epoch
        self.start_step = start_step

    def size(self, step: int) -> int:
        """Examples of the global batch of that step."""
        return self._sizes[step]

    def cuts(self, step: int) -> int:
        """Micro-batches into which each process cuts its share of that step."""
        smallest, largest = self._sizes[step] // self.processes, -(-self._sizes[step] // self.processes)
        bound = largest if self.micro_batch_size is None else self.micro_batch_size
        return min(-(-largest // bound), smallest)

    def __len__(self) -> int:
        return sum(self.cuts(step) for step in range(self.start_step, self.steps))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = self.epoch if self.views is None else self.epoch % self.views, self._order()
        for step in range(self.start_step, self.steps):
            start, size, cuts = step * self.batch_size, self._sizes[step], self.cuts(step)
            first, last = _cut(size, self.processes, self.rank)
            share = order[start + first : start + last].tolist()
            for number in range(cuts):
                first, last = _cut(len(share), cuts, number)
                yield [(epoch, index) for index in share[first:last]]

    def _order(self) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.num_examples) if self.lengths is None else self._dealt(self.lengths)
        draw = generator("order", self.seed, self.epoch)
        order = torch.randperm(self.num_examples, generator=draw)
        return order if self.lengths is None else self._bucketed(order, self.lengths, draw)

    def _bucketed(self, order: Tensor, lengths: Tensor, draw: torch.Generator) -> Tensor:
        """The shuffled order with examples of similar length in each batch; a ragged last batch keeps its examples."""
        full = self.num_examples // self.batch_size
        batches: list[Tensor] = []
        for chunk in torch.split(order[: full * self.batch_size], _BUCKET * self.batch_size):
            batches += torch.split(chunk[lengths[chunk].argsort(stable=True)], self.batch_size)
        mixed = [batch[torch.randperm(len(batch), generator=draw)] for batch in batches]
        places = torch.randperm(full, generator=draw).tolist()
        return torch.cat([*(mixed[place] for place in places), order[full * self.batch_size :]])

    def _dealt(self, lengths: Tensor) -> Tensor:
        """By length within each global batch: every so-many-th example is one process's."""
        batches = torch.split(torch.arange(self.num_examples), self._sizes)
        orders = (batch[lengths[batch].argsort(stable=True)] for batch in batches)
        return torch.cat(
            [torch.cat([order[rank :: self.processes] for rank in range(self.processes)]) for order in orders]
        )


def _cut(size: int, pieces: int, number: int) -> tuple[int, int]:
    """Start and end of one of `pieces` contiguous pieces of `size`, the larger ones first."""
    least, larger = divmod(size, pieces)
    start = number * least + min(number, larger)
    return start, start + least + (number < larger)
