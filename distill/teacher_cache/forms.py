"""How the value of one tap is kept as bytes, and what comes back."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Form:
    """One tap's value of an example.

    kind: float16, bfloat16 or float32. shape: of the value, without the batch dimension.
    top: of (K,) logits, so many of the largest with their positions, and one value that stands for each of the others:
        softmax gives the largest their own probabilities, and the others' sum to each of them alike.
    lengths: the dimensions of `shape` that are as long as a batch's texts, and `shape` has the most that may be. Behind
        a shorter batch there are zeros, so each example takes the same, and can be read in a batch of another length.
    """

    kind: str
    shape: tuple[int, ...]
    top: int | None = None
    lengths: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        """What one example takes."""
        size = _DTYPES[self.kind].itemsize
        return size * math.prod(self.shape) if self.top is None else self.top * (size + self._place.itemsize) + size

    @property
    def _place(self) -> torch.dtype:
        return torch.int16 if self.shape[0] <= 2**15 else torch.int32

    def pack(self, values: Tensor) -> Tensor:
        """Values (B, *shape) as bytes, uint8 (B, bytes), on their device."""
        dtype = _DTYPES[self.kind]
        if self.lengths:
            missing = [whole - here for whole, here in zip(self.shape, values.shape[1:], strict=True)]
            values = F.pad(values, [size for each in reversed(missing) for size in (0, each)])
        if self.top is None:
            return _as_bytes(values.to(dtype).flatten(1))
        wide = values.float()
        largest_BT, places_BT = wide.topk(self.top, dim=1)
        rest_BK = wide.scatter(1, places_BT, -torch.inf)
        each_B = rest_BK.logsumexp(1, keepdim=True) - math.log(max(self.shape[0] - self.top, 1))
        parts = largest_BT.to(dtype), places_BT.to(self._place), each_B.to(dtype)
        return torch.cat([_as_bytes(part) for part in parts], dim=1)

    def unpack(self, rows: Tensor, length: int | None = None) -> Tensor:
        """What `pack` made, as float32 (B, *shape), on its device; with the first `length` tokens of it alone."""
        dtype = _DTYPES[self.kind]
        if self.top is None:
            values = _from_bytes(rows, dtype).view(-1, *self.shape)
            if length is not None:
                for dimension in self.lengths:
                    values = values.narrow(1 + dimension, 0, length)
            return values.float()
        first, second = self.top * dtype.itemsize, self.top * (dtype.itemsize + self._place.itemsize)
        largest_BT = _from_bytes(rows[:, :first], dtype).float()
        places_BT = _from_bytes(rows[:, first:second], self._place).long()
        each_B = _from_bytes(rows[:, second:], dtype).float()
        return each_B.expand(-1, self.shape[0]).scatter(1, places_BT, largest_BT)


def _as_bytes(values: Tensor) -> Tensor:
    return values.contiguous().view(torch.uint8)


def _from_bytes(rows: Tensor, dtype: torch.dtype) -> Tensor:
    return rows.contiguous().view(dtype)
