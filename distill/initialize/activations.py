"""Which of the teacher's channels and heads are active on training examples: scores for a narrower student.

What counts is what a layer is given, behind the normalisation and the nonlinearity before it: what a convolution gives
ahead of BatchNorm has a scale that BatchNorm takes away again.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.initialize.importance import CONVOLUTIONS, Scores, in_projections
from distill.initialize.kinds import Feed

Read = Callable[[tuple[Any, ...], Mapping[str, Any]], None]


class _Mean:
    """The mean absolute value of each channel over all that was added."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._count = 0

    def add(self, values: Tensor, axis: int = -1) -> None:
        """values: channels along `axis`, everything else is averaged over."""
        rows_NC = values.detach().movedim(axis, -1).flatten(0, -2)
        sums = rows_NC.abs().sum(0, dtype=torch.float32).cpu().double()
        self._sums = sums if self._sums is None else self._sums + sums
        self._count += len(rows_NC)

    @property
    def value(self) -> Tensor | None:
        """The means (C,) in float64; None where nothing was added."""
        return None if self._sums is None else self._sums / self._count


def activation_scores(teacher: nn.Module, student: nn.Module, feed: Feed) -> Scores:
    """The mean absolute activation of each channel and head, on the examples that `feed` runs the teacher on.

    Of channels it is what convolutions and linear layers are given, and attention; summed over all that take channels
    of the same two sizes, as the norms of weights are. Of heads it is their queries, keys and values.
    """
    students = dict(student.named_modules(remove_duplicate=False))
    reads: list[tuple[tuple[int, int], _Mean]] = []
    heads: dict[str, tuple[nn.MultiheadAttention, _Mean]] = {}
    handles = []
    for path, module in teacher.named_modules():
        other = students.get(path)
        if isinstance(module, nn.MultiheadAttention) and isinstance(other, nn.MultiheadAttention):
            means = _Mean(), _Mean()
            reads += [((module.embed_dim, other.embed_dim), means[0]), ((module.kdim, other.kdim), means[1])]
            heads[path] = module, _Mean()
            read = _attention_reader(module, *means, heads[path][1])
        elif (sizes := _inputs(module, other)) is not None:
            reads.append((sizes, _Mean()))
            read = _reader(reads[-1][1], -1 - len(module.kernel_size) if isinstance(module, CONVOLUTIONS) else -1)
        else:
            continue
        handles.append(module.register_forward_pre_hook(_hook(read), with_kwargs=True))
    try:
        feed()
    finally:
        for handle in handles:
            handle.remove()
    channels: dict[tuple[int, int], Tensor] = {}
    for sizes, mean in reads:
        if mean.value is not None and sizes[1] < sizes[0]:
            channels[sizes] = channels.get(sizes, 0) + mean.value
    active = {
        path: (mean.value.view(one.num_heads, -1)) for path, (one, mean) in heads.items() if mean.value is not None
    }
    return Scores(channels, {path: (value.sum(1), value.sum(0)) for path, value in active.items()})


def _inputs(teacher: nn.Module, student: nn.Module | None) -> tuple[int, int] | None:
    """How many channels a layer and its namesake are given; None where there is no such pair."""
    if isinstance(teacher, CONVOLUTIONS) and isinstance(student, CONVOLUTIONS):
        return teacher.in_channels, student.in_channels
    if isinstance(teacher, nn.Linear) and isinstance(student, nn.Linear):
        return teacher.in_features, student.in_features
    return None


def _hook(read: Read) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    return lambda module, args, named: read(args, named)


def _reader(mean: _Mean, axis: int) -> Read:
    return lambda args, named: mean.add((*args, *named.values())[0], axis)


def _attention_reader(module: nn.MultiheadAttention, queries: _Mean, keys: _Mean, heads: _Mean) -> Read:
    weights = dict(module.named_parameters())
    rows = [part for name in in_projections(module) for part in torch.split(weights[name], module.embed_dim)]
    biases = (None,) * 3 if module.in_proj_bias is None else torch.split(module.in_proj_bias, module.embed_dim)

    def read(args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        given = dict(zip(("query", "key", "value"), args, strict=False)) | dict(named)
        query, key, value = given["query"], given["key"], given["value"]
        queries.add(query)
        if key is not query:
            keys.add(key)
        projected = [F.linear(x, row, bias) for x, row, bias in zip((query, key, value), rows, biases, strict=True)]
        heads.add(torch.stack([each.flatten(0, -2).abs().mean(0) for each in projected]).sum(0, keepdim=True))

    return read
