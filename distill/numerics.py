"""Arithmetic that losses share: wide floats, safe roots, and rows gathered over processes with their gradients."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor


def widen(x: Tensor) -> Tensor:
    """x in float32, or as it is where it is wider already (`Tensor.float()` would lower float64)."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root whose gradient at zero is zero instead of infinite; values below zero count as zero."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, torch.ones_like(x)).sqrt(), torch.zeros_like(x))


def safe_norm(x: Tensor, dim: int = -1, *, keepdim: bool = False) -> Tensor:
    """L2 norm over `dim` whose gradient at the zero vector is zero."""
    return safe_sqrt(x.square().sum(dim, keepdim=keepdim))


def unit(x: Tensor, dim: int = -1) -> Tensor:
    """x over its L2 norm along `dim` (at least 1e-12); a zero vector stays zero, with gradient zero, not 1e12."""
    norm = safe_norm(x, dim, keepdim=True)
    return x * torch.where(norm > 0, norm.clamp_min(1e-12).reciprocal(), torch.zeros_like(norm))


def whole_tensor(x: Tensor) -> Tensor:
    """x as one tensor on this process where it is spread over several; every process calls it then."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def without_autocast(x: Tensor) -> torch.autocast:
    """A context in which matrix products of wide tensors on x's device stay wide: autocast would lower them."""
    return torch.autocast(x.device.type, enabled=False)


class _GatherRows(torch.autograd.Function):
    """Forward: every rank's rows, padded, gathered, cut. Backward: one's own rows' gradient, summed over ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        whole = gradients[0].clone(memory_format=torch.contiguous_format)  # autograd may still need the one it passed
        dist.all_reduce(whole)
        start = sum(ctx.sizes[: dist.get_rank()])
        return whole[start : start + ctx.sizes[dist.get_rank()]], None


_alone = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Inside, `gather_rows` waits for no other process: one's own rows stand in for theirs, so that sizes are the same.

    For a try that one process may not survive, while the others go on.
    """
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def gather_rows(x: Tensor) -> tuple[Tensor, int]:
    """Rows of all processes in rank order, with gradient to every process, and where this process's rows start.

    Processes may hold different numbers of rows (B_rank, ...). With one process it is `(x, 0)`. The gradient that
    reaches a process's rows is the sum over all processes' losses, so with DDP's mean over processes scale the loss by
    their number.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x, 0
    if _alone.get():
        return torch.cat([x] * dist.get_world_size()), len(x) * dist.get_rank()
    own = torch.tensor([len(x)], device=x.device)
    counts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, own)
    sizes = torch.cat(counts).tolist()  # one wait for the device, not one for each process
    return _GatherRows.apply(x, sizes), sum(sizes[: dist.get_rank()])
