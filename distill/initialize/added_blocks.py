"""A block that a student has more than its teacher, started such that it passes its input on."""

from collections.abc import Mapping

import torch
from torch import nn

from distill.initialize.block_runs import filled, random_input, run
from distill.initialize.identity import candidates
from distill.initialize.tensors import Left, Piece, unique_tensors

_TOLERANCE = 1e-6
_REASON = "own start within an added block that passes its input on"


def add_block(
    student: nn.Module, neighbours: tuple[str, ...], pieces: Mapping[str, Piece | Left], generator: torch.Generator
) -> dict[str, Piece | Left]:
    """What each tensor of an added block gets.

    neighbours: the paths of the block before, and of the added one.
    pieces: what the tensors of the block before get.

    Raises:
        ValueError: no start is known with which the block passes on what the block before gives.
    """
    before_path, path = neighbours
    before = filled(student.get_submodule(before_path), before_path, pieces)
    given = run(before, before_path, random_input(before, generator))
    block = student.get_submodule(path)
    for values in candidates(filled(block, path, {}), before):
        made: dict[str, Piece | Left] = {f"{path}.{name}": Left(_REASON) for name in unique_tensors(block)}
        made.update(
            (f"{path}.{name}", Piece("grown", None, value, "so that the added block passes its input on"))
            for name, value in values.items()
        )
        answer = run(filled(block, path, made), path, given)
        if answer.shape == given.shape and torch.allclose(answer, given, rtol=_TOLERANCE, atol=_TOLERANCE):
            return made
    raise ValueError(
        f"Block '{path}' is one more than the teacher has, and no start is known with which it passes its input on: "
        "that takes a shortcut around its last layers (with no LayerNorm behind the addition), or plain convolutions "
        "between ReLUs. Give the student the teacher's number of blocks there."
    )
