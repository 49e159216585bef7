"""Overrides from a command line, `--epochs 3 --plan.kd.weight 0.5`, checked against the dataclasses themselves."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import partial
from types import NoneType
from typing import Any

from distill.messages import nearest
from distill.recipe.classes import build
from distill.recipe.recipe import Recipe
from distill.recipe.text import value_of
from distill.recipe.values import describe, hints_of, is_frozen, item_hint, join, members

Change = Callable[[Any, str], object]


@dataclass(frozen=True)
class _Draft:
    """A frozen dataclass taken apart, so that settings which only make sense together can change together."""

    kind: type
    values: Mapping[str, object]


def apply_overrides(recipe: Recipe, words: Iterable[str], allow_import: tuple[str, ...] = ()) -> Recipe:
    """The recipe with the settings that the words name: `--name value`, `--name=value`, or `--name` alone for a yes.

    A name is the dotted path of a setting, with dashes or underscores; a stage goes by its number or its name. `none`
    takes an optional setting away. All changes count together, in whatever order they come.

    Raises:
        ValueError: a name or a value is wrong, a name comes twice, or the recipe refuses the settings together.
    """
    try:
        changed = _close(_all_changed(_open(recipe), deque(words), allow_import), "")
    except RecursionError:
        raise ValueError("A value is nested too deeply for a recipe.") from None
    assert isinstance(changed, Recipe)
    return changed


def _all_changed(draft: object, queue: deque[str], allow_import: tuple[str, ...]) -> object:
    seen = set()
    while queue:
        word = queue.popleft()
        name, equals, given = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--"):
            raise ValueError(f"Unexpected word {word!r}. Settings are written --name value.")
        if name in seen:
            raise ValueError(f"--{name} is given twice. Give it once.")
        seen.add(name)
        change = partial(_taken, given if equals else None, queue, allow_import)
        draft = _changed(draft, Recipe, name.split("."), "", change)
    return draft


def _taken(given: str | None, queue: deque[str], allow_import: tuple[str, ...], hint: Any, path: str) -> object:
    """The value of a setting: what stands behind '=', or the next word; a yes-or-no setting needs neither."""
    if given is not None:
        return value_of(given, hint, path, allow_import)
    kinds = set(members(hint))
    if kinds <= {bool, NoneType} and not (queue and queue[0].lower() in ("true", "false", "none")):
        return True
    if not queue or queue[0].startswith("--"):
        raise ValueError(f"{path} needs a value: {describe(hint)}. Write --{path} VALUE.")
    return value_of(queue.popleft(), hint, path, allow_import)


def _changed(node: object, hint: Any, names: list[str], path: str, change: Change) -> object:
    """The node with the value of `change` at the place that the names lead to."""
    if not names:
        return _open(change(hint, path))
    name, *rest = names
    if node is None:
        node = _new(hint, path)
    if isinstance(node, _Draft):
        if name not in node.values:
            raise ValueError(f"{node.kind.__name__} has no setting {name!r}. Nearest: {_nearest_setting(name, node)}.")
        inner = _changed(node.values[name], hints_of(node.kind)[name], rest, join(path, name), change)
        return _Draft(node.kind, {**node.values, name: inner})
    if isinstance(node, dict):
        if name not in node and item_hint(hint) is not Any:
            raise _no_item(path, name, item_hint(hint), list(node))
        return {**node, name: _changed(node.get(name), item_hint(hint), rest, join(path, name), change)}
    if isinstance(node, list):
        at = _position(node, name, hint, path)
        inner = _changed(node[at], item_hint(hint, at), rest, join(path, name), change)
        return [*node[:at], inner, *node[at + 1 :]]
    raise ValueError(f"{path} is {describe(type(node))}, it has no setting {name!r}.")


def _new(hint: Any, path: str) -> _Draft:
    """An optional object that is not there yet, with its defaults."""
    kinds = [member for member in members(hint) if isinstance(member, type) and is_frozen(member)]
    if len(kinds) != 1:
        raise ValueError(f"{path} is none, so it has no settings. Give the whole: --{path} 'Name(setting=value)'.")
    values = {}
    for field in fields(kinds[0]):
        if field.init and field.default_factory is not MISSING:
            values[field.name] = _open(field.default_factory())
        elif field.init:
            values[field.name] = MISSING if field.default is MISSING else _open(field.default)
    return _Draft(kinds[0], values)


def _position(node: list[object], name: str, hint: Any, path: str) -> int:
    names = [item.values["name"] if isinstance(item, _Draft) and "name" in item.values else None for item in node]
    plain = [str(known).replace("-", "_") for known in names]
    if name.isdecimal() and int(name) < len(node):
        return int(name)
    if name in plain:
        return plain.index(name)
    known = [f"{at} ({label})" if label else str(at) for at, label in enumerate(names)]
    raise _no_item(path, name, item_hint(hint), known)


def _no_item(path: str, name: str, hint: Any, known: list[str]) -> ValueError:
    noun = hint.__name__.lower() if isinstance(hint, type) and is_frozen(hint) else "item"
    return ValueError(f"{path} has no {noun} {name!r}. {noun.capitalize()}s: {', '.join(known) or 'none'}.")


def _nearest_setting(name: str, draft: _Draft) -> str:
    """The settings most like the name, and before them those of the objects inside that have this very name."""
    inside = [
        f"{outer}.{name}" for outer, value in draft.values.items() if isinstance(value, _Draft) and name in value.values
    ]
    return ", ".join(inside) or nearest(name, draft.values)


def _open(value: object) -> object:
    if is_frozen(type(value)):
        return _Draft(type(value), {name: _open(getattr(value, name)) for name in hints_of(type(value))})
    if isinstance(value, Mapping):
        return {key: _open(item) for key, item in value.items()}
    return [_open(item) for item in value] if isinstance(value, tuple) else value


def _close(node: object, path: str) -> object:
    if isinstance(node, _Draft):
        given = {name: value for name, value in node.values.items() if value is not MISSING}
        return build(node.kind, {name: _close(value, join(path, name)) for name, value in given.items()}, path)
    if isinstance(node, dict):
        return {key: _close(item, join(path, key)) for key, item in node.items()}
    return tuple(_close(item, join(path, at)) for at, item in enumerate(node)) if isinstance(node, list) else node
