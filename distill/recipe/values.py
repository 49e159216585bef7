"""Values against annotations: strict about types, in the words of the person who wrote the value."""

import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, PlainValidator, TypeAdapter, ValidationError
from typing_extensions import get_protocol_members

_CONFIG = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
_WORDS = {
    NoneType: "none",
    None: "none",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Any: "a value",
}


def typed(value: object, hint: Any, path: str) -> Any:
    """The value as its annotation wants it: a whole number becomes a float where one is wanted, nothing else changes.

    Raises:
        ValueError: the value is of another type, or not finite; the message begins with `path`.
    """
    try:
        return _adapter(hint).validate_python(value)
    except ValidationError:
        raise ValueError(f"{path}: expected {describe(hint)}, got {shown(value)}.{_way_out(value)}") from None


def check(value: object, path: str = "") -> None:
    """Refuse what a recipe cannot hold: values of another type than annotated, lists, infinite numbers, objects.

    Raises:
        ValueError: names the first such value by its dotted path below `path`.
    """
    if is_frozen(type(value)):
        for name, hint in hints_of(type(value)).items():
            held = getattr(value, name)
            typed(held, hint, join(path, name))
            check(held, join(path, name))
    elif isinstance(value, tuple):
        for position, item in enumerate(value):
            check(item, join(path, position))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            typed(key, str, f"{path}, a name in it")
            check(item, join(path, key))
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path}: a recipe holds finite numbers, got {value}.")
    elif not isinstance(value, bool | int | float | str | None):
        what = "numbers, text, tuples, mappings and frozen dataclasses"
        raise ValueError(f"{path}: a recipe holds {what}, got {shown(value)}.{_way_out(value)}")


def is_frozen(kind: type) -> bool:
    """Whether a class is itself a frozen dataclass."""
    return "__dataclass_params__" in vars(kind) and bool(vars(kind)["__dataclass_params__"].frozen)


def is_object(hint: Any) -> bool:
    """Whether an annotation asks for an object of settings: a dataclass, or a protocol that dataclasses follow."""
    return isinstance(hint, type) and get_origin(hint) is None and (is_dataclass(hint) or Protocol in hint.__bases__)


def stands_for(kind: type, wanted: type) -> bool:
    """Whether the class is a `wanted`: a subclass, or one that has the methods of that protocol."""
    if Protocol not in wanted.__bases__:
        return issubclass(kind, wanted)
    return all(any(name in vars(base) for base in kind.__mro__) for name in get_protocol_members(wanted))


def hints_of(kind: type) -> Mapping[str, Any]:
    """{name: annotation} of the settings that a dataclass is made from.

    Raises:
        ValueError: an annotation names something that its module does not have.
    """
    return _hints_of(kind)


@cache
def _hints_of(kind: type) -> Mapping[str, Any]:
    try:
        hints = get_type_hints(kind, include_extras=True)
    except NameError as error:
        raise ValueError(
            f"{kind.__name__} has an annotation that cannot be read: {error}. Import the name for real."
        ) from error
    return {field.name: hints[field.name] for field in fields(kind) if field.init}


def members(hint: Any) -> Iterator[Any]:
    """The alternatives of an annotation: those of a union, else the annotation alone."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from members(get_args(hint)[0])
    elif origin in (Union, UnionType):
        for member in get_args(hint):
            yield from members(member)
    else:
        yield hint


def item_hint(hint: Any, position: int = 0) -> Any:
    """The annotation of what a mapping or a tuple holds; `Any` for everything else."""
    for member in members(hint):
        inner = get_args(member)
        if get_origin(member) is tuple and inner:
            return inner[0] if inner[-1] is Ellipsis else inner[min(position, len(inner) - 1)]
        if get_origin(member) in (Mapping, dict):
            return inner[1]
    return Any


def describe(hint: Any) -> str:
    """What an annotation asks for, in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{describe(inner[0])} with {', '.join(map(str, inner[1:]))}"
    if origin in (Union, UnionType):
        return " or ".join(map(describe, inner))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple and inner:
        each = describe(inner[0]) if inner[-1] is Ellipsis else ", ".join(map(describe, inner))
        return f"a tuple ({each}{', ...' if inner[-1] is Ellipsis else ''})"
    if origin in (Mapping, dict):
        return f"a mapping of names to {describe(inner[1]).removeprefix('a ')}"
    if hint in _WORDS:
        return _WORDS[hint]
    name = hint.__name__ if isinstance(hint, type) else str(hint)
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def shown(value: object) -> str:
    """The value as Python writes it, shortened."""
    return f"the class {value.__name__}" if isinstance(value, type) else reprlib.repr(value)


def join(path: str, name: str | int) -> str:
    """The dotted path of what `name` means below `path`."""
    return f"{path}.{name}" if path else str(name)


def _way_out(value: object) -> str:
    if isinstance(value, list):
        return f" Write a tuple: {reprlib.repr(tuple(value))}."
    if isinstance(value, type) and is_frozen(value):
        return f" Write {value.__name__}()."
    if is_dataclass(value) and not is_frozen(type(value)):
        return f" Declare {type(value).__name__} with @dataclass(frozen=True)."
    return ""


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(_by_instance(hint), config=_CONFIG)


def _by_instance(hint: Any) -> Any:
    """The annotation, with its dataclasses and protocols checked as they stand and not rebuilt from their fields."""
    origin, inner = get_origin(hint), tuple(map(_by_instance, get_args(hint)))
    if origin in (Union, UnionType):
        return Union[inner]  # noqa: UP007 - a union of computed members
    if origin is Annotated or origin in (tuple, Mapping, dict):
        return (Annotated if origin is Annotated else origin)[inner] if inner else hint
    if is_object(hint):
        return Annotated[Any, PlainValidator(partial(_instance, hint))]
    return hint


def _instance(kind: type, value: object) -> object:
    if not is_frozen(type(value)) or not stands_for(type(value), kind):
        raise ValueError
    return value
