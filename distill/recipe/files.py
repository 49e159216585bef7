"""Recipes from files: Python to write, JSON to keep."""

import sys
import traceback
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from distill.recipe.recipe import Recipe
from distill.recipe.serial import from_json


def read_recipe(path: str | Path, allow_import: tuple[str, ...] = ()) -> Recipe:
    """The recipe in a file: the `recipe` of a Python file, which is run, or a .json that a run has written.

    The folder of a Python file goes to the front of the import path, as when Python runs it, so what lies beside it can
    be imported. allow_import: modules whose classes a .json may name.

    Raises:
        ValueError: there is no such file, it fails, or there is no recipe in it; the message begins with the path.
    """
    file = Path(path)
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{str(path)[:80]!r} can't be read: {reason}. Give the file of a recipe.") from error
    if file.is_dir():
        raise ValueError(f"{path} is a folder. Give the recipe's file, such as {file / 'recipe.json'}.")
    if not file.is_file():
        raise ValueError(f"{path}: no such file. Give a recipe, such as recipes/image/digits.py.")
    if file.suffix == ".json":
        return _read_json(file, allow_import)
    if file.suffix != ".py":
        raise ValueError(f"{path} is neither a .py nor a .json file. Give one that holds a recipe.")
    module = _run(file)
    if "recipe" not in vars(module):
        raise ValueError(f"{path} has no 'recipe'. Write recipe = Recipe(...) at its top level.")
    recipe = vars(module)["recipe"]
    if not isinstance(recipe, Recipe):
        raise ValueError(
            f"{path}: 'recipe' is of type {type(recipe).__name__}, not a Recipe. Write recipe = Recipe(...)."
        )
    return recipe


def _read_json(file: Path, allow_import: tuple[str, ...]) -> Recipe:
    try:
        return from_json(file.read_text(encoding="utf-8"), allow_import)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error


def _run(file: Path) -> ModuleType:
    """The module of a Python file, run anew. It stays importable, so that workers find the classes that it defines."""
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = spec_from_file_location(_module_name(file), file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    before = sys.modules.get(spec.name)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        if before is not None:
            sys.modules[spec.name] = before
        raise ValueError(f"{_place(file, error)}: {_reason(error)}") from error
    return module


def _module_name(file: Path) -> str:
    """The file's own name, as Python would import it; with a digest of its place where another module has that name."""
    other = sys.modules.get(file.stem)
    same = other is not None and Path(other.__file__ or "").resolve() == file.resolve()
    if file.stem.isidentifier() and (other is None or same):
        return file.stem
    return f"recipe_{sha256(str(file.resolve()).encode()).hexdigest()[:12]}"


def _place(file: Path, error: Exception) -> str:
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file.absolute()
    ]
    lines += [error.lineno] if isinstance(error, SyntaxError) else []
    return f"{file}, line {lines[-1]}" if lines and lines[-1] else str(file)


def _reason(error: Exception) -> str:
    """The message of our own errors; with the type's name before it for all others."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return message if type(error) is ValueError else f"{type(error).__name__}: {message}".removesuffix(": ")
