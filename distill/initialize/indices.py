"""Which of a wider tensor's elements a narrower one takes: pure index arithmetic on shapes.

An index has one integer tensor for each dimension; together they broadcast to the narrower shape, so `wide[index]` has
that shape.
"""

from collections.abc import Callable

import torch
from torch import Size, Tensor

Index = tuple[Tensor, ...]
Pick = Callable[[int, int], Tensor]
"""`kept` of `size` positions, in order; the same wherever a model passes the same channels on, so by sizes alone."""


class MisfitError(ValueError):
    """The narrower tensor cannot be taken from the wider one; the message says why."""


def uniform(size: int, kept: int) -> Tensor:
    """`kept` of `size` positions, evenly spread from the first to the last: round(linspace(0, size - 1, kept)).

    They depend on the two sizes only, so wherever a model passes the same channels on, the same ones are kept.

    Raises:
        MisfitError: more are to be kept than there are.
    """
    if kept > size:
        raise MisfitError(f"{kept} cannot be taken from the teacher's {size}")
    return torch.linspace(0, size - 1, kept, dtype=torch.float32).round().long()


def heads(
    size: int, kept: int, num_heads: int, kept_heads: int, pick_heads: Pick = uniform, pick_within: Pick = uniform
) -> Tensor:
    """Positions along a dimension that lists attention heads one after the other: whole heads, and alike within each.

    size, kept: the lengths of the dimension, divisible by their numbers of heads.
    pick_heads, pick_within: which heads, and which positions in each.

    Raises:
        MisfitError: the student has more heads, or wider ones.
    """
    if kept_heads > num_heads or kept // kept_heads > size // num_heads:
        has, wants = f"{num_heads} of {size // num_heads}", f"{kept_heads} heads of {kept // kept_heads}"
        raise MisfitError(f"{wants} cannot be taken from the teacher's {has}")
    within = pick_within(size // num_heads, kept // kept_heads)
    first = pick_heads(num_heads, kept_heads) * (size // num_heads)
    return (first[:, None] + within).flatten()


def blocks(positions: Tensor, size: int, num_blocks: int) -> Tensor:
    """The same positions in each of several blocks of length `size` that are stacked along one dimension."""
    return (torch.arange(num_blocks)[:, None] * size + positions).flatten()


def outer(positions: list[Tensor]) -> Index:
    """The index that takes the given positions of each dimension."""
    return tuple(
        each.view(*(-1 if dimension == axis else 1 for axis in range(len(positions))))
        for dimension, each in enumerate(positions)
    )


def plain(size: Size, kept: Size, pick: Pick = uniform) -> Index:
    """Positions of its own along every dimension, uniform ones where not said otherwise.

    Raises:
        MisfitError: numbers of dimensions differ, or the student's is larger in one of them.
    """
    if len(size) != len(kept):
        raise MisfitError(f"the teacher's has {len(size)} dimensions")
    return outer([pick(*pair) for pair in zip(size, kept, strict=True)])


def grouped(size: Size, kept: Size, groups: int, kept_groups: int, pick: Pick = uniform) -> Index:
    """Channels of a grouped convolution's weight (channels, channels of the other side / groups, ...).

    pick: which channels; along the kernel the positions are uniform.

    The channels of both sides are those that a plain selection takes, so the neighbouring layers agree; where a
    channel's group sits in the weight follows from them. A depthwise weight keeps its channels' own filters.

    Raises:
        MisfitError: as in `plain`, or the student joins two channels that lie in different groups of the teacher.
    """
    if len(size) != len(kept):
        raise MisfitError(f"the teacher's has {len(size)} dimensions")
    rows_R = pick(size[0], kept[0])
    columns = pick(size[1] * groups, kept[1] * kept_groups)
    own_group_R = torch.arange(kept[0]) // (kept[0] // kept_groups)
    group_R = rows_R // (size[0] // groups)
    columns_RC = columns.view(kept_groups, kept[1])[own_group_R] - group_R[:, None] * size[1]
    if bool(((columns_RC < 0) | (columns_RC >= size[1])).any()):
        raise MisfitError(f"{kept_groups} groups join channels that the teacher's {groups} groups keep apart")
    index = outer([rows_R, columns_RC[0], *(uniform(*pair) for pair in zip(size[2:], kept[2:], strict=True))])
    return index[0], columns_RC.view(*columns_RC.shape, *(1 for _ in kept[2:])), *index[2:]


def is_whole(index: Index, size: Size, kept: Size) -> bool:
    """Whether an index takes all of a tensor in its own order."""
    return size == kept and all(
        bool((each == torch.arange(length).view(-1, *(1 for _ in size[axis + 1 :]))).all())
        for axis, (length, each) in enumerate(zip(size, index, strict=True))
    )
