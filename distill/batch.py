"""A batch of examples: what every loss, model and trainer passes around."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Examples of one forward pass, with their labels and their numbers in the data set.

    inputs: one tensor whose first dimension is the examples, or a mapping of such tensors.
    labels: int (B,) for one class each; float (B, K) for soft labels, or for several labels where NaN is unknown.
    index: int64 (B,), the number of each example in its data set.
    mask: bool, True where a position counts; for inputs of different lengths.
    """

    inputs: Tensor | Mapping[str, Tensor]
    labels: Tensor
    index: Tensor
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device; pinned memory is copied without waiting."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def rows(self, which: slice | Tensor) -> "Batch":
        """The batch of the chosen examples only."""
        return self._map(lambda tensor: tensor[which])

    def _map(self, change) -> "Batch":  # type: ignore[no-untyped-def]
        inputs = (
            change(self.inputs)
            if isinstance(self.inputs, Tensor)
            else {name: change(tensor) for name, tensor in self.inputs.items()}
        )
        mask = None if self.mask is None else change(self.mask)
        return Batch(inputs, change(self.labels), change(self.index), mask)
