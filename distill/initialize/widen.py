"""One tensor of a layer, grown to the student's size such that the layer does the same."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Literal

import torch
from torch import Size, Tensor, nn

from distill.initialize.indices import MisfitError
from distill.initialize.widths import Draws, Width, shared

Role = Literal["writes", "reads", "normalizes", "fixed"]
Sizes = tuple[int, int]
Widths = Mapping[Sizes, Width]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CHANNEL_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

# Along the heads, which no other layer sees, everything is fixed here, and grown by `widen_attention`.
_ATTENTION: Mapping[str, Sequence[Role]] = {
    "in_proj_weight": ("fixed", "reads"),
    "out_proj.weight": ("writes", "fixed"),
    "out_proj.bias": ("writes",),
}


def layer_of(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The layer that a tensor belongs to, and its name there; an attention's output projection is part of it."""
    path, _, tensor = name.rpartition(".")
    outer, _, last = path.rpartition(".")
    if last == "out_proj" and isinstance(attention := model.get_submodule(outer), nn.MultiheadAttention):
        return attention, f"out_proj.{tensor}"
    return model.get_submodule(path), tensor


def roles(module: nn.Module, tensor: str, dimensions: int) -> Sequence[Role]:
    """What each dimension of a layer's tensor does with channels: gives them, takes them, normalizes them, or nothing.

    A tensor that lies directly in a module of modules (a class token, position embeddings) gives channels. Where
    nothing is known of a layer, its tensors are fixed.
    """
    rest: list[Role] = ["fixed"] * dimensions
    gives: list[Role] = ["writes"] * dimensions
    if isinstance(module, _CONVOLUTIONS):
        if module.groups == 1:
            return ["writes", "reads", *rest[2:]] if dimensions > 1 else gives
        return ["writes", *rest[1:]] if module.groups == module.in_channels == module.out_channels else rest
    if isinstance(module, nn.MultiheadAttention):
        return _ATTENTION.get(tensor, rest)
    if isinstance(module, nn.Linear):
        return ["writes", "reads"] if dimensions > 1 else gives
    if isinstance(module, CHANNEL_NORMS):
        return gives
    if isinstance(module, nn.LayerNorm):
        return ["normalizes"] if dimensions == 1 else rest
    if isinstance(module, nn.Embedding):
        return ["fixed", "writes"]
    return gives if list(module.children()) else rest


def widen(source: Tensor, target: Size, module: nn.Module, tensor: str, widths: Widths, draws: Draws) -> Tensor:
    """The teacher's tensor as one of the student's shape.

    module: the teacher's layer. widths: for each pair of sizes that differ.

    Raises:
        MisfitError: it has another number of dimensions, or one of another size in which nothing is known to be
            repeatable.
    """
    if source.dim() != len(target):
        raise MisfitError(f"it has {source.dim()} dimensions in the teacher and {len(target)} in the student")
    grown = source
    for axis, role in enumerate(roles(module, tensor, source.dim())):
        sizes = source.shape[axis], target[axis]
        if sizes[0] == sizes[1]:
            continue
        if role == "fixed":
            raise MisfitError(
                f"{type(module).__name__} of size {sizes[0]} cannot be made one of {sizes[1]} that does the same"
            )
        width = widths[sizes]
        if role == "reads":
            grown = width.read(grown, axis, draws)
        elif role == "normalizes":
            grown = width.normalize(grown, tensor)
        else:
            grown = width.write(grown, axis)
    return grown


def widen_attention(
    source: Tensor,
    tensor: str,
    teacher: nn.MultiheadAttention,
    student: nn.MultiheadAttention,
    widths: Widths,
    draws: Draws,
) -> Tensor:
    """A tensor of `nn.MultiheadAttention` for more heads, wider ones, or both.

    Wider heads copy positions within a head; queries are scaled such that their products with the keys, divided by the
    square root of the wider size, stay.

    Raises:
        MisfitError: the student has fewer or narrower heads, or keys of other widths.
    """
    size, grown = teacher.head_dim, student.head_dim
    if student.num_heads < teacher.num_heads or grown < size:
        raise MisfitError(
            f"{student.num_heads} heads of {grown} cannot do what the teacher's {teacher.num_heads} of {size} do"
        )
    width = widths.get((teacher.embed_dim, student.embed_dim), Width(teacher.embed_dim, student.embed_dim))
    heads, within = torch.arange(student.num_heads) % teacher.num_heads, torch.arange(grown) % size
    rows = (heads[:, None] * size + within).flatten()
    if tensor == "out_proj.bias":
        return width.write(source, 0)
    if tensor == "out_proj.weight":
        return width.write(shared(source, 1, rows, draws), 0)
    if tensor not in ("in_proj_weight", "in_proj_bias"):
        raise MisfitError("keys and values of other widths, or with added biases, are not grown")
    query_scale = (sqrt(grown / size) / torch.bincount(within)[within].double()).repeat(student.num_heads)
    query, key, value = (part[rows] for part in source.chunk(3))
    query = query * query_scale.view(-1, *(1 for _ in source.shape[1:]))
    stacked = torch.cat([query, key, value])
    return width.read(stacked, 1, draws) if tensor == "in_proj_weight" else stacked
