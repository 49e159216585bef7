"""What a module gives, and the one tensor of it that a tap means."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class TapError(ValueError):
    """A tap that does not exist, was not reached, was reached twice or was changed after it was read."""


def pick(output: Any, item: str | None, tap: str) -> Tensor:
    """The tensor of a module's output that `item` names by position or key; without an item there must be just one.

    Raises:
        TapError: there is no such item, or more than one tensor to choose from.
    """
    if item is None:
        if isinstance(output, Tensor):
            return output
        found = tensors(output)
        if len(found) == 1:
            return found[0]
        raise TapError(f"Tap '{tap}' gives {_describe(output)}. Name one: {_choices(output, tap)}.")
    if isinstance(output, Mapping) and item in output:
        chosen = output[item]
    elif isinstance(output, (tuple, list)) and item.isdigit() and int(item) < len(output):
        chosen = output[int(item)]
    elif isinstance(output, tuple) and item in getattr(output, "_fields", ()):
        chosen = getattr(output, item)
    else:
        raise TapError(f"Tap '{tap}' has no item '{item}': it gives {_describe(output)}. {_way_out(output, tap)}")
    if not isinstance(chosen, Tensor):
        raise TapError(f"Tap '{tap}' is {_describe(chosen)}, not a tensor. {_way_out(output, tap)}")
    return chosen


def logits_item(answer: Any) -> str | None:
    """The item of a model's answer that is its logits; None where the answer is the logits themselves."""
    named = isinstance(answer, Mapping) or (isinstance(answer, tuple) and "logits" in getattr(answer, "_fields", ()))
    return "logits" if named else None


def tensors(output: Any) -> list[Tensor]:
    """Every tensor in what a module gives."""
    if isinstance(output, Tensor):
        return [output]
    values = list(output.values()) if isinstance(output, Mapping) else output
    if isinstance(values, (tuple, list)):
        return [tensor for value in values for tensor in tensors(value)]
    return []


def _describe(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"a mapping of {len(output)} ({', '.join(map(str, output))})"
    if isinstance(output, (tuple, list)):
        return f"{len(output)} values"
    return "one tensor" if isinstance(output, Tensor) else type(output).__name__


def _choices(output: Any, tap: str) -> str:
    path = tap.partition(":")[0]
    keys = (
        list(output) if isinstance(output, Mapping) else range(len(output)) if isinstance(output, (tuple, list)) else ()
    )
    return ", ".join(f"'{path}:{key}'" for key in keys) or "a module that gives a tensor"


def _way_out(output: Any, tap: str) -> str:
    if isinstance(output, Tensor):
        return f"Name it '{tap.partition(':')[0]}'."
    return f"Name one: {_choices(output, tap)}."
