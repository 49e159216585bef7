"""Refusals that losses share: what was wrong, the shapes or the value, and the way out."""

import math
from collections.abc import Sequence
from typing import TypeGuard

from torch import Tensor


def shape_of(x: object) -> str:
    """The shape of a tensor, the shapes of a tuple of tensors, or what came instead, for an error message."""
    if isinstance(x, Tensor):
        return str(tuple(x.shape))
    if isinstance(x, Sequence) and not isinstance(x, str):
        return "[" + ", ".join(shape_of(part) for part in x) + "]"
    return repr(x)


def mismatch(needs: str, student: object, teacher: object, way_out: str) -> ValueError:
    """The error for two arguments that do not meet. `needs` names the loss: "Hint compares equal shapes"."""
    return ValueError(f"{needs}, got student {shape_of(student)} and teacher {shape_of(teacher)}. {way_out}")


def is_tensor(x: object, dims: int | None = None) -> TypeGuard[Tensor]:
    """Whether x is one tensor over examples, of `dims` dimensions where given."""
    return isinstance(x, Tensor) and (x.ndim >= 1 if dims is None else x.ndim == dims)


def same_examples(student: object, teacher: object, dims: int | None = None) -> bool:
    """Whether both are one tensor of `dims` dimensions over equally many examples."""
    return is_tensor(student, dims) and is_tensor(teacher, dims) and len(student) == len(teacher)


def check_positive(name: str, value: float) -> None:
    """Refuses a setting that is not a finite number above zero. `name` is "KD.temperature"."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above zero, got {value}.")


def check_scope(name: str, scope: str) -> None:
    """Refuses a scope that does not exist. `name` is "RKDAngle.scope"."""
    if scope not in ("global", "local"):
        raise ValueError(f"{name} must be 'global' or 'local', got {scope!r}.")


def are_maps(maps: object) -> TypeGuard[Sequence[Tensor]]:
    """Whether these are two or more maps (B, C, H, W) of equally many examples."""
    return (
        isinstance(maps, Sequence) and len(maps) >= 2 and all(is_tensor(x, 4) and len(x) == len(maps[0]) for x in maps)
    )


def check_weight(name: str, value: float) -> None:
    """Refuses a weight inside a loss that is not a finite number of at least zero. `name` is "DKD.target_weight"."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number of at least zero, got {value}.")
