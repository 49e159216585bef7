"""That a grown student computes what its teacher does, seen by running both before the student is changed."""

from collections.abc import Mapping

import torch
from torch import Size, Tensor, nn

from distill.initialize.block_runs import filled, random_input, run
from distill.initialize.blocks import Pair
from distill.initialize.model_runs import run_both
from distill.initialize.tensors import Left, Piece, own_tensors
from distill.initialize.widen import Widths

_TOLERANCE = 1e-6
_ROUNDING = 1e-12


def check_blocks(
    pair: Pair,
    teacher: nn.Module,
    student: nn.Module,
    widths: Widths,
    pieces: Mapping[str, Piece | Left],
    generator: torch.Generator,
) -> None:
    """Run each block of a list in the teacher and as it is grown, where its sizes differ.

    Raises:
        ValueError: one does not give the same, or cannot be run by itself; by name.
    """
    for ours, theirs in zip(pair.student, pair.teacher, strict=False):
        small = filled(teacher.get_submodule(theirs), theirs, {})
        large = filled(student.get_submodule(ours), ours, pieces)
        if all(tensor.shape == own_tensors(large)[name].shape for name, tensor in own_tensors(small).items()):
            continue
        given = random_input(small, generator)
        answer = run(small, theirs, given)
        grown = run(large, ours, _spread(given, random_input(large, generator).shape, widths))
        difference = _difference(answer, grown, widths)
        if difference > 0.0:
            raise ValueError(
                f"Block '{ours}' cannot be grown such that it does the same: its answer would differ by "
                f"{difference:.1e}. Grow it by what it repeats: more attention heads of the teacher's size, and a "
                "multiple of the width that a LayerNorm reads; channels that a block splits, joins, or normalises in "
                "groups stay as they are."
            )


def check_answers(
    teacher: nn.Module,
    student: nn.Module,
    widths: Widths,
    pieces: Mapping[str, Piece | Left],
    generator: torch.Generator,
    probe: tuple[int, ...] | None,
) -> None:
    """Run both models on one random input, and compare their answers and what their classifiers are given.

    Of models for different classes only what their classifiers are given is compared.

    Raises:
        ValueError: they differ, or cannot be run.
    """
    models = filled(teacher, "", {}), filled(student, "", pieces)
    answers, *inner = run_both(*models, probe, generator)
    same_classes = not any(isinstance(piece, Left) and piece.source for piece in pieces.values())
    read = [(_spread(small, large.shape, widths, behind_norm=True), large) for small, large in inner]
    for small, large in [answers, *read] if same_classes else read:
        difference = _difference(small, large, widths)
        if difference > 0.0:
            raise ValueError(
                f"{type(student).__name__} cannot be grown such that it computes the same: the answers to a random "
                f"input would differ by {difference:.1e}. Somewhere it joins, splits or shuffles channels, or adds an "
                "input that the teacher does not, or the other way round. Use CopyWeights() or SelectWeights()."
            )


def _difference(small: Tensor, large: Tensor, widths: Widths) -> float:
    """The largest difference between the teacher's values, spread, and the student's; zero within rounding.

    Measured by how much the values vary between the examples: in a network whose signal fades, all answers are nearly
    equal, and a student that computes something else would not be told apart by their size.
    """
    wanted = _spread(small, large.shape, widths)
    if wanted.shape != large.shape or not bool(large.isfinite().all()):
        return float("inf")
    difference = float((large - wanted).abs().max())
    variation, size = float((wanted - wanted.mean(0)).abs().max()), float(wanted.abs().max())
    return 0.0 if difference <= _TOLERANCE * variation + _ROUNDING * size else difference


def _spread(values: Tensor, shape: Size, widths: Widths, *, behind_norm: bool = False) -> Tensor:
    """The teacher's activations as the student's wider ones, on the stream or behind the LayerNorm that reads it."""
    for axis, sizes in enumerate(zip(values.shape, shape, strict=True)):
        if sizes[0] != sizes[1] and sizes in widths:
            width = widths[sizes]
            values = width.behind_norm(values, axis) if behind_norm else width.write(values, axis)
    return values
