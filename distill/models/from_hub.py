"""Models of torch.hub: an entry of `hubconf.py` in a local folder or in a GitHub repository, whose code runs here."""

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill.messages import first_line, nearest
from distill.models.places import place_of

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w./-]+)?")


def build(name: str, *, arguments: Mapping[str, Any], trust: bool) -> nn.Module:
    """Call an entry, named `FOLDER:ENTRY` or `OWNER/REPO[:REF]:ENTRY`, with the arguments and nothing else.

    Entries differ in what they call the number of classes and what becomes of their weights, so it is never passed
    unasked.

    Raises:
        ValueError: not trusted; no such folder, repository or entry; or the entry fails.
    """
    place, _, entry = name.rpartition(":")
    if not place or not entry:
        raise ValueError(f"hub:{name} names no entry. Write hub:FOLDER:ENTRY or hub:OWNER/REPO:ENTRY.")
    folder = place_of(place)
    local = folder.is_dir()
    if not local and not _REPOSITORY.fullmatch(place):
        raise ValueError(f"There is no folder {place} for hub:{name}, and it is no OWNER/REPO. Check the path.")
    if not trust:
        raise ValueError(f"hub:{name} runs code from {place}. Set trust=True on this model if you trust it.")
    if local:
        _check_entry(folder, entry)
    try:
        model = torch.hub.load(  # type: ignore[no-untyped-call]
            str(folder) if local else place,
            entry,
            source="local" if local else "github",
            trust_repo=True,
            verbose=False,
            **arguments,
        )
    except (OSError, RuntimeError, TypeError, ImportError, ValueError) as error:
        raise ValueError(
            f"hub:{name} can't be made: {first_line(error)}. Its own arguments go into arguments."
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"hub:{name} makes a {type(model).__name__}, no torch.nn.Module. Name another entry.")
    return model


def _check_entry(folder: Path, entry: str) -> None:
    path = folder / "hubconf.py"
    if not path.is_file():
        raise ValueError(f"{folder} has no hubconf.py, so it is no folder for torch.hub. Check the path.")
    try:
        names = _defined(ast.parse(path.read_text()))
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is no Python file: {error}.") from error
    if entry not in names and "*" not in names:
        raise ValueError(f"{path} has no entry '{entry}'. Nearest: {nearest(entry, names)}.")


def _defined(module: ast.Module) -> list[str]:
    """The names that a module's own lines define or import, without running it; '*' where it imports all of another."""
    names: list[str] = []
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
    return [name for name in names if not name.startswith("_")]
