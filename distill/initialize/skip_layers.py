"""A student that is its teacher with fewer of the repeated blocks."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from distill.initialize.blocks import Pair, block_of, pair_blocks, repeated
from distill.initialize.coverage import Coverage
from distill.initialize.indices import uniform
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

WAY_OUT = "Take a student of the teacher's widths, use SelectWeights() for a narrower one, or lower minimum."

Keep = Literal["every", "first", "last", "ends"]


@dataclass(frozen=True)
class SkipLayers:
    """Layer skipping: each of the student's blocks is one of the teacher's, everything outside of them by name.

    Lists of repeated blocks are found in the module tree (`nn.ModuleList` or `nn.Sequential` of modules of one class
    with equal tensors): a transformer's layers, the stages of a ResNet. The student says how many blocks a list has. A
    first block that changes the shape, as in a ResNet's stages, always meets the student's first, and `keep` speaks of
    the rest. What does not fit by name and shape is left and listed, as in `CopyWeights`.

    keep: "every" takes n of N blocks evenly, round(linspace(0, N - 1, n)), which of 12 to 6 are DistilBERT's 0, 2, 4,
        7, 9, 11 (Sanh et al., 2019, arXiv:1910.01108); "first" as in patient distillation (Sun et al., 2019,
        arXiv:1908.09355); "last"; "ends", the outer ones, of an odd number one more at the front (Sajjad et al., 2023,
        arXiv:2004.03844, drop the top, the bottom or the middle). Or the teacher's block numbers from 0, one for each
        of the student's blocks, for every list that is shorter in the student.
    keep_classifier: take the last linear layer as well, where its shape is the same.
    minimum: least share of the student's parameters that must come from the teacher.

    Raises:
        ValueError: the models share no list of repeated blocks; the student's list is longer; a list of numbers is of
            another length than the student's, has one past the end or not in order, or gives another block than 0 for
            a first one that changes the shape; each by name. Less than `minimum` of the student's parameters fit.
    """

    keep: Keep | tuple[int, ...] = "every"
    keep_classifier: bool = True
    minimum: float = 0.5

    def __post_init__(self) -> None:
        check_minimum(self.minimum)
        if not isinstance(self.keep, str) and sorted(set(self.keep)) != list(self.keep):
            raise ValueError(f"keep lists the teacher's blocks in order, each once, got {self.keep}.")
        if not isinstance(self.keep, str) and (not self.keep or self.keep[0] < 0):
            raise ValueError(f"keep lists the teacher's blocks from 0, got {self.keep}.")

    def __call__(self, teacher: nn.Module, student: nn.Module) -> Coverage:
        """Copy the blocks that are kept and everything outside of them, and say what was copied."""
        sources = own_tensors(teacher)
        blocks: dict[str, str] = {}
        pairs = shared_blocks(teacher, student)
        if not isinstance(self.keep, str) and all(len(pair.teacher) == len(pair.student) for pair in pairs):
            raise ValueError(
                f"keep={self.keep} has no effect: every list is as long in the student. Use CopyWeights()."
            )
        for pair in pairs:
            kept = self._kept(pair)
            blocks.update((ours, pair.teacher[number]) for ours, number in zip(pair.student, kept, strict=True))
        dropped = None if self.keep_classifier else classifier_path(student)
        pieces: dict[str, Piece | Left] = {}
        for name, tensor in unique_tensors(student).items():
            block = block_of(name, blocks)
            source = name if block is None else blocks[block] + name[len(block) :]
            pieces[name] = by_name(name, tensor, source, sources, dropped)
        return initialize(teacher, student, pieces, minimum=self.minimum, way_out=WAY_OUT)

    def _kept(self, pair: Pair) -> list[int]:
        size, kept = len(pair.teacher), len(pair.student)
        if size == kept:
            return list(range(size))
        if not isinstance(self.keep, str):
            return _check_numbers(self.keep, pair)
        own = int(pair.own_first)
        return [*range(own), *(own + number for number in _numbers(self.keep, size - own, kept - own))]


def shared_blocks(teacher: nn.Module, student: nn.Module) -> list[Pair]:
    """The lists of the teacher's repeated blocks that the student has as well, and no longer ones.

    Raises:
        ValueError: there is none, or the student's is longer; by name.
    """
    lists = repeated(teacher)
    pairs = pair_blocks(teacher, student, lists)
    if not pairs:
        found = ", ".join(path or "the model itself" for path in lists) or "none"
        raise ValueError(
            f"Teacher and student share no list of repeated blocks; the teacher's: {found}. Use CopyWeights() or "
            "SelectWeights()."
        )
    for pair in pairs:
        if len(pair.student) > len(pair.teacher):
            raise ValueError(
                f"'{pair.path}' has {len(pair.student)} blocks in the student and {len(pair.teacher)} in the teacher. "
                "Use Grow() for a deeper student."
            )
    return pairs


def _numbers(keep: Keep, size: int, kept: int) -> list[int]:
    if keep == "every":
        return [int(number) for number in uniform(size, kept)]
    if keep == "first":
        return list(range(kept))
    if keep == "last":
        return list(range(size - kept, size))
    back = kept // 2
    return [*range(kept - back), *range(size - back, size)]


def _check_numbers(keep: tuple[int, ...], pair: Pair) -> list[int]:
    size = len(pair.teacher)
    if len(keep) != len(pair.student):
        raise ValueError(
            f"keep={keep} lists {len(keep)} blocks and '{pair.path}' of the student has {len(pair.student)}. "
            "List one of the teacher's for each."
        )
    if keep[-1] >= size:
        raise ValueError(
            f"keep={keep} names block {keep[-1]} and '{pair.path}' of the teacher has {size}, 0 to {size - 1}."
        )
    if pair.own_first and keep[0] != 0:
        raise ValueError(
            f"keep={keep}: block 0 of '{pair.path}' changes the shape, so the student's first can only come from it. "
            "Begin with 0."
        )
    return list(keep)
