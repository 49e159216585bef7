"""A value from the text of a command line: as its annotation wants it, without running any of it."""

import ast
import json
import re
from collections.abc import Callable
from typing import Any

from distill.recipe.classes import build, check_names, find_class, takes_objects
from distill.recipe.serial import parse, read
from distill.recipe.values import describe, hints_of, item_hint, join, shown, typed

_WORDS = {"none": None, "null": None, "true": True, "false": False}
_CALL = re.compile(r"((?P<module>[A-Za-z_][\w.]*):)?(?P<rest>[A-Za-z_][\w.]*\s*(\(.*\))?)", re.DOTALL)


class _UnlikeError(ValueError):
    """The text is not of the kind that was tried."""


def value_of(text: str, hint: Any, path: str, allow_import: tuple[str, ...] = ()) -> Any:
    """The value that the text stands for where `hint` is wanted.

    Numbers, `true`, `false`, `none` and text stand as they are, tuples as `a,b`, objects as a call `AdamW(lr=0.001)` of
    literal values or as JSON. The first reading that fits the annotation counts, so `3` is text where text is wanted.

    Raises:
        ValueError: no reading fits, or the object that was meant refuses its values; begins with `path`.
    """
    readings: tuple[Callable[[], object], ...] = (
        lambda: _scalar(text),
        lambda: _structure(text, hint, path, allow_import),
        lambda: _parts(text, _scalar_or_text),
        lambda: _parts(text, str),
        lambda: _nothing(text),
        lambda: text,
        lambda: (_scalar_or_text(text),),
        lambda: (text,),
    )
    refusal: ValueError | None = None
    for reading in readings:
        try:
            value = reading()
        except _UnlikeError:
            continue
        except ValueError as error:
            # Where anything goes, text that was meant as an object would be kept as text unnoticed.
            if hint is Any:
                raise
            refusal = error
            continue
        try:
            return typed(value, hint, path)
        except ValueError:
            continue
    raise refusal or ValueError(f"{path}: expected {describe(hint)}, got {shown(text)}.")


def _scalar(text: str) -> bool | int | float | None:
    word = text.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    raise _UnlikeError


def _scalar_or_text(text: str) -> object:
    try:
        return _scalar(text)
    except _UnlikeError:
        return text


def _parts(text: str, part: Callable[[str], object]) -> tuple[object, ...]:
    if "," not in text:
        raise _UnlikeError
    return tuple(part(piece.strip()) for piece in text.rstrip().removesuffix(",").split(","))


def _nothing(text: str) -> tuple[object, ...]:
    """No items: `none`, or no text, where a tuple is wanted."""
    if text.strip().lower() in ("", "none"):
        return ()
    raise _UnlikeError


def _structure(text: str, hint: Any, path: str, allow_import: tuple[str, ...]) -> object:
    text = text.strip()
    call = _CALL.fullmatch(text) if takes_objects(hint) else None
    if not call and not text.startswith(("{", "[", "(")):
        raise _UnlikeError
    try:
        if text.startswith(("{", "[")):
            return read(parse(text), hint, path, allow_import)
        # A class outside distill may be written as in JSON, package.module:Class, which is no Python.
        source = f"{call['module']}.{call['rest']}" if call and call["module"] else text
        return _from_tree(ast.parse(source, mode="eval").body, hint, path, allow_import)
    except (SyntaxError, RecursionError, MemoryError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: cannot read {shown(text)}, check its brackets and quotes.") from error


def _from_tree(tree: ast.expr, hint: Any, path: str, allow_import: tuple[str, ...]) -> object:
    """The value of a Python expression that is a literal, a tuple, a mapping, or a class called with such values."""
    if isinstance(tree, ast.Tuple | ast.List):
        return tuple(
            _from_tree(item, item_hint(hint, at), join(path, at), allow_import) for at, item in enumerate(tree.elts)
        )
    if isinstance(tree, ast.Dict):
        names = [key.value if isinstance(key, ast.Constant) else None for key in tree.keys]
        return {
            name: _from_tree(item, item_hint(hint), join(path, str(name)), allow_import)
            for name, item in zip(names, tree.values, strict=True)
        }
    if isinstance(tree, ast.Call | ast.Name | ast.Attribute):
        return _from_call(tree, hint, path, allow_import)
    try:
        return ast.literal_eval(tree)
    except (ValueError, TypeError):
        raise ValueError(
            f"{path}: {ast.unparse(tree)!r} is not a plain value. Write numbers, quoted text, tuples."
        ) from None


def _from_call(
    tree: ast.Call | ast.Name | ast.Attribute, hint: Any, path: str, allow_import: tuple[str, ...]
) -> object:
    name = ast.unparse(tree.func if isinstance(tree, ast.Call) else tree)
    kind = find_class(":".join(name.rsplit(".", 1)), hint, path, allow_import)
    positional, keywords = (tree.args, tree.keywords) if isinstance(tree, ast.Call) else ([], [])
    hints = hints_of(kind)
    trees = dict(zip(hints, positional, strict=False)) | {str(keyword.arg): keyword.value for keyword in keywords}
    if len(trees) < len(positional) + len(keywords) or any(keyword.arg is None for keyword in keywords):
        takes = ", ".join(hints) or "nothing"
        raise ValueError(f"{path}: {kind.__name__} takes {takes}. Name each setting once: {kind.__name__}(name=value).")
    check_names(kind, trees, path)
    values = {key: _from_tree(item, hints[key], join(path, key), allow_import) for key, item in trees.items()}
    return build(kind, values, path)
