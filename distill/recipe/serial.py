"""Recipes as JSON and back, to an equal one."""

import json
import math
from collections.abc import Mapping
from typing import Any

from distill.recipe.classes import build, check_names, find_class, name_of
from distill.recipe.recipe import Recipe
from distill.recipe.values import hints_of, is_frozen, item_hint, join, typed

# How a mapping is written that itself holds a text under "type".
_MAPPING = "mapping"
# The time to read one grows with the square of its length.
_MOST_DIGITS = 1000


def to_json(recipe: Recipe) -> str:
    """The recipe as JSON text: each object with its type's name and all its settings, defaults too.

    Raises:
        ValueError: a class of the user's cannot be found again by a name.
    """
    return json.dumps(_plain(recipe), indent=2, ensure_ascii=False, allow_nan=False)


def from_json(text: str, allow_import: tuple[str, ...] = ()) -> Recipe:
    """The recipe that `to_json` wrote.

    allow_import: modules, or packages, whose classes may be imported where the JSON names them.

    Raises:
        ValueError: the text is no JSON, or no recipe; names the value by its dotted path.
    """
    try:
        recipe = read(parse(text), Recipe, "", allow_import)
    except RecursionError:
        raise ValueError("The JSON is nested too deeply for a recipe.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"Not JSON: {error}.") from None
    if not isinstance(recipe, Recipe):
        raise ValueError(f'JSON of a recipe begins with {{"type": "Recipe", ...}}, got {text.strip()[:40]!r}.')
    return recipe


def parse(text: str) -> object:
    """JSON text as dicts, lists and plain values; strict, so that nothing in it is lost.

    Raises:
        ValueError: it is not JSON, a name stands twice, or a number is not finite.
    """
    tree: object = json.loads(
        text, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite, parse_int=_whole
    )
    return tree


def read(node: object, hint: Any, path: str, allow_import: tuple[str, ...]) -> object:
    """The value of a piece of parsed JSON, where `hint` is wanted: arrays become tuples, objects with a type that type.

    Raises:
        ValueError: names the value by its dotted path.
    """
    if isinstance(node, list):
        return tuple(read(item, item_hint(hint, at), join(path, at), allow_import) for at, item in enumerate(node))
    if not isinstance(node, dict):
        return node
    name = node.get("type")
    if name == _MAPPING and isinstance(node.get("items"), dict):
        return {key: read(item, item_hint(hint), join(path, key), allow_import) for key, item in node["items"].items()}
    if not isinstance(name, str):
        return {key: read(item, item_hint(hint), join(path, key), allow_import) for key, item in node.items()}
    kind = find_class(name, hint, path or "recipe", allow_import)
    settings = {key: item for key, item in node.items() if key != "type"}
    check_names(kind, settings, path)
    hints = hints_of(kind)
    values = {key: read(item, hints[key], join(path, key), allow_import) for key, item in settings.items()}
    return build(kind, values, path)


def _plain(value: object) -> object:
    if is_frozen(type(value)):
        hints = hints_of(type(value))
        settings = {name: _plain(typed(getattr(value, name), hint, name)) for name, hint in hints.items()}
        if "type" in settings:
            raise ValueError(f"{type(value).__name__} has a setting 'type', which JSON uses for the class. Rename it.")
        return {"type": name_of(type(value)), **settings}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        items = {key: _plain(item) for key, item in value.items()}
        return {"type": _MAPPING, "items": items} if isinstance(items.get("type"), str) else items
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, item in pairs:
        if name in found:
            raise ValueError(f"Not JSON of a recipe: {name!r} stands twice in one object.")
        found[name] = item
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_number(digits)


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"Numbers of a recipe have a limit of {_MOST_DIGITS:,} digits, got one of {len(digits):,}.")
    return int(digits)


def _no_number(word: str) -> float:
    raise ValueError(f"A recipe holds finite numbers, got {word}.")
