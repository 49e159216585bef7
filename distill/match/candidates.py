"""The taps of a model that are worth comparing with another model's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distill.measure import evaluating
from distill.taps import Inputs, TapError, Tapped, accepted_names, tappable

_EXAMPLES = 4
_MODEL_TAPS = ("logits", "embedding")  # these names mean no module


@dataclass(frozen=True)
class Candidate:
    """A tap: its name, its shape without the batch, and whether no value was below zero, as behind a ReLU."""

    tap: str
    shape: tuple[int, ...]
    nonnegative: bool

    def __str__(self) -> str:
        return f"{self.tap} {'x'.join(map(str, self.shape)) or 'scalar'}"


def candidates(
    model: nn.Module, inputs: Inputs, *, view: nn.Module | None = None, most: int = 24
) -> tuple[Candidate, ...]:
    """At most `most` taps in the order of the forward pass; it runs the model on a few examples, in evaluation mode.

    inputs: a batch of examples. view: turns it into what this model sees.

    Left out are taps that hold the very tensor of another one (dropout, identity, flattening, a container's last
    child: the container's name stays), or the input, or the logits, which have losses of their own; what is no float
    tensor with one row for each example, and what is the same for all of them. Outer modules come before their insides:
    each depth of the module tree is taken as a whole while it fits and half of `most` is not reached; one that does not
    fit is thinned out evenly where less than a quarter is taken, and left out otherwise.

    Raises:
        ValueError: `most` is below 1, or nothing is left to compare.
    """
    if most < 1:
        raise ValueError(f"most is a number of taps of at least 1, got {most}.")
    seen = few_of(inputs) if view is None else view(few_of(inputs))
    examples = len(_given(seen)[0])
    with evaluating(model), torch.no_grad():
        names = [name for name in tappable(model, seen, accepted_names(model)) if name not in _MODEL_TAPS]
        features = _features(model, seen, names)
    known = {_memory(tensor) for tensor in _given(seen)}
    if "logits" in features:
        known.add(_memory(features["logits"]))
    chosen: dict[tuple[Any, ...], str] = {}
    for name in names:  # a child before its container
        tensor = features[name]
        if not tensor.is_floating_point() or tensor.ndim < 2 or len(tensor) != examples:
            continue
        if examples > 1 and bool((tensor == tensor[:1]).all()):
            continue
        memory = _memory(tensor)
        if memory not in known and (memory not in chosen or chosen[memory].startswith(f"{name}.")):
            chosen[memory] = name
    outer = _outer(tuple(chosen.values()), most)
    kept = [name for name in names if name in outer]
    if not kept:
        raise ValueError(
            f"{type(model).__name__} has no module whose output could be compared: none is reached once and gives one "
            "float tensor with a row for each example that tells them apart. Name its taps by hand."
        )
    return tuple(Candidate(name, tuple(features[name].shape[1:]), bool((features[name] >= 0).all())) for name in kept)


def _outer(names: Sequence[str], most: int) -> list[str]:
    """At most so many of the names, those of outer modules first."""
    taken: list[str] = []
    for depth in sorted({name.count(".") for name in names}):
        level = [name for name in names if name.count(".") == depth]
        room = most - len(taken)
        if len(level) <= room and 2 * len(taken) < most:
            taken += level
        else:
            if 4 * len(taken) < most:
                taken += [level[round(x)] for x in torch.linspace(0, len(level) - 1, room).tolist()]
            break
    return taken


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for tensors that are the same numbers in the same order, whatever their shape; while both are alive."""
    return (tensor.data_ptr(), tensor.numel(), None if tensor.is_contiguous() else (tensor.shape, tensor.stride()))


def _features(model: nn.Module, inputs: Inputs, names: Sequence[str]) -> dict[str, Tensor]:
    """{name: tensor}, and under "logits" the model's answer, unless that is several tensors without this name."""
    try:
        return _read(model, inputs, ("logits", *names))
    except TapError:
        return _read(model, inputs, names)


def _read(model: nn.Module, inputs: Inputs, taps: Sequence[str]) -> dict[str, Tensor]:
    tapped = Tapped(model, taps)
    try:
        features: dict[str, Tensor] = tapped(inputs)
    finally:
        tapped.close()
    return features


def few_of(inputs: Inputs) -> Inputs:
    """The first few examples of a batch."""
    if isinstance(inputs, Tensor):
        return inputs[:_EXAMPLES]
    return {name: tensor[:_EXAMPLES] for name, tensor in inputs.items()}


def _given(inputs: Inputs) -> list[Tensor]:
    return [inputs] if isinstance(inputs, Tensor) else list(inputs.values())
