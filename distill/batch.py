"""A batch of examples: what every loss, model and trainer passes around."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class Kept:
    """Where the teacher's answers to a batch are kept, and the answers where all are there.

    numbers: int64 (B,), always on the CPU. rows: {tap: uint8 (B, bytes)}; None where some are missing.
    length: how many tokens long the teacher's form of the batch is; None where it has none.
    """

    numbers: npt.NDArray[np.int64]
    rows: Mapping[str, Tensor] | None
    length: int | None = None


@dataclass(frozen=True)
class Batch:
    """Examples of one forward pass, with their labels and their numbers in the data set.

    inputs: one tensor whose first dimension is the examples, or a mapping of such tensors.
    labels: int (B,) for one class each; float (B, K) for soft labels, or for several labels where NaN is unknown.
    index: int64 (B,), the number of each example in its data set.
    mask: bool, True where a position counts; for inputs of different lengths.
    kept: of the teacher's answers; None where none are kept.
    """

    inputs: Tensor | Mapping[str, Tensor]
    labels: Tensor
    index: Tensor
    mask: Tensor | None = None
    kept: Kept | None = None

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device; pinned memory is copied without waiting."""
        numbers = None if self.kept is None else self.kept.numbers
        return self._map(lambda tensor: tensor.to(device, non_blocking=True), numbers)

    def pin_memory(self) -> "Batch":
        """The same batch in pinned memory, from which a GPU copies without waiting; a DataLoader calls this."""
        return self._map(lambda tensor: tensor.pin_memory(), None if self.kept is None else self.kept.numbers)

    def rows(self, which: slice | Tensor) -> "Batch":
        """The batch of the chosen examples only."""
        places = which.cpu().numpy() if isinstance(which, Tensor) else which
        numbers = None if self.kept is None else self.kept.numbers[places]
        return self._map(lambda tensor: tensor[which], numbers)

    def with_kept(self, kept: Kept) -> "Batch":
        """The same batch, with what is kept of the teacher's answers."""
        return replace(self, kept=kept)

    def _map(self, change, numbers: npt.NDArray[np.int64] | None) -> "Batch":  # type: ignore[no-untyped-def]
        inputs = (
            change(self.inputs)
            if isinstance(self.inputs, Tensor)
            else {name: change(tensor) for name, tensor in self.inputs.items()}
        )
        mask = None if self.mask is None else change(self.mask)
        kept = None
        if self.kept is not None and numbers is not None:
            rows = None if self.kept.rows is None else {tap: change(row) for tap, row in self.kept.rows.items()}
            kept = Kept(numbers, rows, self.kept.length)
        return Batch(inputs, change(self.labels), change(self.index), mask, kept)
