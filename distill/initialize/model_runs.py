"""Running two whole models on one random input, to see that the larger one computes what the smaller one does."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from distill.initialize.tensors import classifier_path
from distill.messages import first_line

_EXAMPLES, _TOKENS = 2, 8
_SIDES = (32, 64, 96, 128, 224, 384, 28)
_RUN_ERRORS = (RuntimeError, TypeError, ValueError, AssertionError, IndexError)


def run_both(
    teacher: nn.Module, student: nn.Module, probe: tuple[int, ...] | None, generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """(the teacher's, the student's) answers to one random input, and what their classifiers are given.

    probe: the shape of one example; None tries images of usual sizes, a few words, or a vector, by the first layer.

    Raises:
        ValueError: the teacher runs on no such input, or the student does not run on the teacher's.
    """
    reason = "it has no Conv2d, Linear or Embedding"
    for given in _inputs(teacher, probe, generator):
        try:
            answers = _answers(teacher, given)
        except _RUN_ERRORS as error:
            reason = first_line(error)
            continue
        try:
            return list(zip(answers, _answers(student, given), strict=True))
        except _RUN_ERRORS as error:
            raise ValueError(
                f"The grown student cannot be run on {tuple(given.shape)} as the teacher can: {first_line(error)}."
            ) from error
    raise ValueError(
        f"{type(teacher).__name__} ran on no input that Grow tried, so it cannot be checked: {reason}. "
        "Give the shape of one example, such as Grow(probe=(3, 32, 32))."
    )


def _inputs(model: nn.Module, probe: tuple[int, ...] | None, generator: torch.Generator) -> Iterator[Tensor]:
    kinds = (nn.Conv2d, nn.Linear, nn.Embedding)
    first = next((module for module in model.modules() if isinstance(module, kinds)), None)
    if isinstance(first, nn.Embedding):
        shape = (_EXAMPLES, *(probe or (_TOKENS,)))
        yield torch.randint(first.num_embeddings, shape, generator=generator)
        return
    shapes: list[tuple[int, ...]] = []
    if isinstance(first, nn.Conv2d):
        shapes = [(first.in_channels, side, side) for side in _SIDES]
    elif isinstance(first, nn.Linear):
        shapes = [(first.in_features,)]
    for shape in shapes if probe is None else [probe]:
        yield torch.randn((_EXAMPLES, *shape), generator=generator, dtype=torch.float64)


def _answers(model: nn.Module, given: Tensor) -> list[Tensor]:
    """A model's first answer, and what its classifier is given where it is reached."""
    inner: list[Tensor] = []
    path = classifier_path(model)
    classifier = model if path is None else model.get_submodule(path)
    handle = classifier.register_forward_pre_hook(lambda module, args: inner.append(args[0]))
    try:
        with torch.no_grad():
            answer = model(given)
    finally:
        handle.remove()
    return [_first(answer), *inner]


def _first(answer: object) -> Tensor:
    while not isinstance(answer, Tensor):
        values = list(answer.values()) if isinstance(answer, Mapping) else answer
        if not isinstance(values, (tuple, list)) or not values:
            raise ValueError(f"it gives {type(answer).__name__}, not a tensor")
        answer = values[0]
    return answer
