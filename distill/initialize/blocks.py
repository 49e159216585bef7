"""Repeated blocks of a model, found in its module tree, and which block of the teacher meets which of the student."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Size, nn

from distill.initialize.tensors import own_tensors

Signature = tuple[type, tuple[tuple[str, Size], ...]]

_LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Pair:
    """The repeated blocks of one list in both models.

    path: of the list, the same in both models.
    teacher, student: the paths of their blocks, in order.
    own_first: whether the first block differs from the rest in its tensors, as one that changes the resolution or the
        number of channels does; it then meets the student's first, and none else.
    """

    path: str
    teacher: tuple[str, ...]
    student: tuple[str, ...]
    own_first: bool


def repeated(model: nn.Module) -> dict[str, bool]:
    """{path of a list: whether its first block is one of its own kind} of the model's lists of repeated blocks.

    A list is an `nn.ModuleList` or `nn.Sequential` of at least two modules of one class that have modules and tensors
    of their own, and are no lists; from the second on, their tensors have equal names and shapes. Of lists inside of
    others, as blocks in stages, the innermost count.
    """
    found: dict[str, bool] = {}
    for path, module in model.named_modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 1:
            blocks = list(module.children())
            kinds = [_signature(block) for block in blocks]
            one_class = len({kind[0] for kind in kinds}) == 1 and all(kind[1] for kind in kinds)
            own_modules = all(list(block.children()) and type(block) not in _LISTS for block in blocks)
            if one_class and own_modules and len(set(kinds[1:])) == 1:
                found[path] = kinds[0] != kinds[1]
    return {path: own for path, own in found.items() if not any(_is_below(inner, path) for inner in found)}


def larger_lists(teacher: nn.Module, student: nn.Module) -> dict[str, bool]:
    """The repeated lists of a student that has more of them, and those of its teacher that are not around them."""
    ours = repeated(student)
    theirs = {path: own for path, own in repeated(teacher).items() if not any(_is_below(inner, path) for inner in ours)}
    return {**theirs, **ours}


def pair_blocks(teacher: nn.Module, student: nn.Module, lists: Mapping[str, bool]) -> list[Pair]:
    """The lists of `lists` that both models have, with their blocks; lists of other classes do not meet."""
    pairs = []
    for path, own_first in lists.items():
        theirs, ours = _children(teacher, path), _children(student, path)
        if theirs and ours and len({type(block) for block in (*theirs.values(), *ours.values())}) == 1:
            pairs.append(Pair(path, tuple(theirs), tuple(ours), own_first))
    return pairs


def block_of(name: str, blocks: Collection[str]) -> str | None:
    """The path, of those given, of the block that a tensor lies in."""
    parts = name.split(".")
    return next((path for end in range(len(parts)) if (path := ".".join(parts[:end])) in blocks), None)


def _is_below(inner: str, outer: str) -> bool:
    return inner != outer and (not outer or inner.startswith(f"{outer}."))


def _children(model: nn.Module, path: str) -> dict[str, nn.Module]:
    """{path: module} of what a list holds; empty where there is no list of this path."""
    found = dict(model.named_modules()).get(path)
    if not isinstance(found, (nn.ModuleList, nn.Sequential)):
        return {}
    return {f"{path}.{name}" if path else name: block for name, block in found.named_children()}


def _signature(block: nn.Module) -> Signature:
    return type(block), tuple((name, tensor.shape) for name, tensor in own_tensors(block).items())
