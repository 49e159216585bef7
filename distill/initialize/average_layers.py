"""A shallower student whose blocks are means of its teacher's."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from distill.initialize.blocks import Pair, block_of
from distill.initialize.coverage import Coverage
from distill.initialize.skip_layers import WAY_OUT, shared_blocks
from distill.initialize.tensors import (
    Left,
    Piece,
    by_name,
    check_minimum,
    classifier_path,
    initialize,
    own_tensors,
    unique_tensors,
)


@dataclass(frozen=True)
class AverageLayers:
    """Merges neighbouring blocks: the student's block i is the mean of the teacher's i-th group of blocks.

    Lists of repeated blocks are found as in `SkipLayers`, and so is what lies outside of them. The groups are as equal
    as can be: of N blocks to n, group i holds those from round(i N / n) to before round((i + 1) N / n). A first block
    that changes the shape is a group of its own. Means and variances of BatchNorm are averaged as well; they are an
    estimate, since the blocks' inputs change, and are best measured anew. Counts are those of the group's first block.

    The mean of two blocks computes neither of them, nor both in turn: on its own this is a weaker start than
    `SkipLayers`, for blocks that learned alike.

    keep_classifier: take the last linear layer as well, where its shape is the same.
    minimum: least share of the student's parameters that must come from the teacher.

    Raises:
        ValueError: the models share no list of repeated blocks, or the student's is longer; by name. Less than
            `minimum` of the student's parameters fit.
    """

    keep_classifier: bool = True
    minimum: float = 0.5

    def __post_init__(self) -> None:
        check_minimum(self.minimum)

    def __call__(self, teacher: nn.Module, student: nn.Module) -> Coverage:
        """Average the blocks, copy what lies outside of them, and say what was done."""
        sources = own_tensors(teacher)
        groups = {
            block: group
            for pair in shared_blocks(teacher, student)
            for block, group in zip(pair.student, _groups(pair), strict=True)
        }
        dropped = None if self.keep_classifier else classifier_path(student)
        pieces: dict[str, Piece | Left] = {}
        for name, tensor in unique_tensors(student).items():
            block = block_of(name, groups)
            if block is None:
                pieces[name] = by_name(name, tensor, name, sources, dropped)
            else:
                names = [path + name[len(block) :] for path in groups[block]]
                pieces[name] = _mean(name, tensor, names, sources, dropped)
        return initialize(teacher, student, pieces, minimum=self.minimum, way_out=WAY_OUT)


def _groups(pair: Pair) -> list[tuple[str, ...]]:
    own = int(pair.own_first)
    size, kept = len(pair.teacher) - own, len(pair.student) - own
    edges = [own + (2 * group * size + kept) // (2 * kept) for group in range(kept + 1)] if kept else []
    return [*((block,) for block in pair.teacher[:own]), *(pair.teacher[start:end] for start, end in pairwise(edges))]


def _mean(
    name: str, tensor: Tensor, names: list[str], sources: Mapping[str, Tensor], dropped: str | None
) -> Piece | Left:
    whole = [by_name(name, tensor, each, sources, dropped) for each in names]
    left = next((piece for piece in whole if isinstance(piece, Left)), None)
    if left is not None:
        return left
    if len(names) == 1 or not tensor.is_floating_point():
        return whole[0]
    values = torch.stack([sources[each].detach().double() for each in names]).mean(0)
    return Piece("averaged", names[0], values, f"with {', '.join(names[1:])}")
