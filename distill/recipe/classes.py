"""Which class a type's name means, and an object of it from values that are checked one by one."""

import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from distill import data, heads, initialize, losses, plan, tokenize, view, weighting
from distill.messages import nearest
from distill.recipe import model, optimizers, recipe, schedules, speed, stage
from distill.recipe.values import check, describe, hints_of, is_frozen, is_object, join, members, stands_for, typed

_PUBLIC: tuple[ModuleType, ...] = (
    *(losses, heads, data, initialize, plan, tokenize, view, weighting),
    *(recipe, model, stage, speed, optimizers, schedules),
)


@cache
def exports() -> Mapping[str, type]:
    """{name: class} of the frozen dataclasses that distill itself offers to recipes; no two have the same name."""
    found: dict[str, type] = {}
    for module in _PUBLIC:
        for name, item in vars(module).items():
            if isinstance(item, type) and is_frozen(item) and item.__name__ == name and not name.startswith("_"):
                assert found.setdefault(name, item) is item, name
    return found


def name_of(kind: type) -> str:
    """How JSON names a class: by its name alone where distill exports it, else as "package.module:Class".

    Raises:
        ValueError: the class cannot be found again by a name.
    """
    if exports().get(kind.__name__) is kind:
        return kind.__name__
    if kind.__qualname__ != kind.__name__:
        raise ValueError(f"{kind.__qualname__} cannot be written to JSON. Define it at the top level of a module.")
    if kind.__module__ != "__main__":
        return f"{kind.__module__}:{kind.__name__}"
    return f"{Path(vars(sys.modules['__main__']).get('__file__', '__main__')).stem}:{kind.__name__}"


def find_class(name: str, hint: Any, path: str, allow_import: tuple[str, ...]) -> type:
    """The class that `name` means where `hint` is wanted.

    Raises:
        ValueError: there is no such class, or it may not be imported.
    """
    module_name, _, name = name.rpartition(":")
    if module_name and module_name.partition(".")[0] != "distill":
        return _import_class(module_name, name, path, allow_import)
    found = exports().get(name)
    if found is None:
        known = [known for known, kind in exports().items() if fits(kind, hint)]
        raise ValueError(f"{path}: distill has no type {name!r} here. Nearest: {nearest(name, known or exports())}.")
    return found


def fits(kind: type, hint: Any) -> bool:
    """Whether an object of the class can stand where `hint`, or a tuple or mapping of it, is wanted."""
    return any(is_object(leaf) and stands_for(kind, leaf) for leaf in _leaves(hint))


def takes_objects(hint: Any) -> bool:
    """Whether an object of settings can stand where `hint` is wanted."""
    return any(map(is_object, _leaves(hint)))


def check_names(kind: type, names: Mapping[str, object], path: str) -> None:
    """Refuse settings that the class does not have, and those that are missing.

    Raises:
        ValueError: names the setting, and for an unknown one the nearest.
    """
    where, known = f"{path}: " if path else "", hints_of(kind)
    for name in names:
        if name not in known:
            raise ValueError(f"{where}{kind.__name__} has no setting {name!r}. Nearest: {nearest(name, known)}.")
    for field in fields(kind):
        if field.init and field.default is MISSING and field.default_factory is MISSING and field.name not in names:
            raise ValueError(f"{where}{kind.__name__} needs {field.name}: {describe(known[field.name])}.")


def build(kind: type, values: Mapping[str, object], path: str) -> object:
    """An object of the class, each value checked against its annotation.

    Raises:
        ValueError: a name or a value is wrong, or the class refuses the values together; begins with `path`.
    """
    check_names(kind, values, path)
    hints = hints_of(kind)
    checked = {name: typed(value, hints[name], join(path, name)) for name, value in values.items()}
    check(checked, path)
    try:
        return kind(**checked)
    except ValueError as error:
        raise ValueError(f"{path}: {error}" if path else str(error)) from error


def _leaves(hint: Any) -> list[Any]:
    found: list[Any] = []
    for member in members(hint):
        inner = get_args(member)
        found.extend(leaf for part in inner for leaf in _leaves(part)) if inner else found.append(member)
    return found


def _import_class(module_name: str, name: str, path: str, allow_import: tuple[str, ...]) -> type:
    if not any(module_name == allowed or module_name.startswith(f"{allowed}.") for allowed in allow_import):
        raise ValueError(
            f"{path}: {module_name}:{name} is not part of distill. To run its code, add --allow-import {module_name}."
        )
    try:
        module = import_module(module_name)
    except Exception as error:
        raise ValueError(f"{path}: cannot import {module_name}: {error}. Is its folder on PYTHONPATH?") from error
    found = vars(module).get(name)
    if not (isinstance(found, type) and is_frozen(found)):
        raise ValueError(f"{path}: {module_name} has no frozen dataclass {name!r}.")
    return found
