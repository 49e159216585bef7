"""The settings of a recipe as a list for `--help`: what can be overridden, and what it is now."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from distill.recipe.recipe import Recipe
from distill.recipe.stage import Stage
from distill.recipe.values import describe, hints_of, is_frozen, item_hint, join


@dataclass(frozen=True)
class Setting:
    """One setting: dotted name (in underscores), what it takes, its value as a command line writes it, its meaning."""

    name: str
    takes: str
    value: str
    meaning: str


def override_names(recipe: Recipe) -> tuple[Setting, ...]:
    """Every setting of the recipe that `apply_overrides` can change, outer ones before those inside them."""
    return tuple(_settings(recipe, Recipe, ""))


def _settings(value: object, hint: Any, path: str, meaning: str = "") -> Iterator[Setting]:
    if path:
        yield Setting(path, describe(hint), _written(value), meaning)
    if is_frozen(type(value)):
        docstrings = "\n".join(inspect.cleandoc(kind.__doc__ or "") for kind in reversed(type(value).__mro__))
        meanings = _meanings(docstrings)
        for name, inner in hints_of(type(value)).items():
            yield from _settings(getattr(value, name), inner, join(path, name), meanings.get(name, ""))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _settings(item, item_hint(hint), join(path, key))
    elif isinstance(value, tuple):
        for item in value:
            if isinstance(item, Stage):
                yield from _settings(item, Stage, join(path, item.name.replace("-", "_")))


def _written(value: object) -> str:
    """A value as a command line takes it; objects by their class alone, since their settings follow."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if is_frozen(type(value)):
        return type(value).__name__
    if isinstance(value, tuple | Mapping):
        return ",".join(map(_written, value)) or "none"
    return str(value)


@cache
def _meanings(docstrings: str) -> Mapping[str, str]:
    """{setting: first line about it}, of the lines "name: text" or "name, name: text" in docstrings of a class."""
    found = {}
    for names, text in re.findall(r"^(\w+(?:, \w+)*): (.+)$", docstrings, re.MULTILINE):
        found.update(dict.fromkeys(names.split(", "), text))
    return found
