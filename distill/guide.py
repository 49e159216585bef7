"""The losses for someone who has to choose one: read from their docstrings, so that it says what the code does."""

import inspect
import re
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import ModuleType

from rich.console import Console
from rich.table import Table

from distill import losses
from distill.losses.kinds import Coupled, Task
from distill.messages import nearest

_KINDS = {
    "task": "Against the labels",
    "logits": "Between logits",
    "hints": "Between features of one layer",
    "samples": "Between relations of samples",
    "layers": "Between relations of layers",
    "tokens": "Between relations of tokens",
}
_NUMBER = r"(\d+(?:\.\d+)?(?:e-?\d+)?)"


@dataclass(frozen=True)
class Entry:
    """One loss. `paper` is its source in short, `weight` the paper's, `cost` light, moderate or heavy."""

    name: str
    kind: str
    gives: str
    needs: str
    paper: str
    weight: str
    cost: str
    settings: tuple[str, ...]
    couples: bool
    file_text: str
    text: str


def entries() -> tuple[Entry, ...]:
    """Every loss of `distill.losses`, by kind and name."""
    kinds = [item for item in vars(losses).values() if isinstance(item, type) and is_dataclass(item)]
    found = [_entry(kind) for kind in kinds]
    return tuple(sorted(found, key=lambda entry: (list(_KINDS).index(entry.kind), entry.name)))


def entry(name: str) -> Entry:
    """The loss of that name.

    Raises:
        ValueError: there is none; names the nearest.
    """
    known = {one.name: one for one in entries()}
    if name not in known:
        raise ValueError(f"distill has no loss {name!r}. Nearest: {nearest(name, known)}.")
    return known[name]


def show_table(console: Console) -> None:
    """Print all losses, one table a kind."""
    for kind, title in _KINDS.items():
        table = Table(title=title, title_justify="left", expand=True)
        table.add_column("loss", min_width=21, no_wrap=True)
        table.add_column("needs", ratio=1)
        table.add_column("source", min_width=26)
        table.add_column("weight", justify="right", min_width=6)
        table.add_column("cost", min_width=8)
        for one in entries():
            if one.kind == kind:
                table.add_row(one.name, one.needs, one.paper, one.weight, one.cost.partition(",")[0])
        console.print(table)
    console.print(
        "weight: the paper's, of the term. cost: light reads its tensors once, moderate is a matrix product, heavy is "
        "more; benchmarks/losses.py prices each. 'distill losses NAME' explains one.",
        markup=False,
    )


def show(names: Iterable[str], console: Console) -> None:
    """Print what is to be known of each named loss.

    Raises:
        ValueError: a name is no loss; names the nearest.
    """
    for one in [entry(name) for name in names]:
        settings = ", ".join(one.settings) or "none"
        meets = "the whole batch, over all processes" if one.couples else "each example by itself"
        lines = (
            f"{one.name}: {one.gives}",
            "",
            one.file_text,
            "",
            one.text,
            "",
            f"Settings: {settings}.",
            f"Relates: {meets}.",
            f"In a plan: Term({one.name}(), weight={one.weight})",
        )
        console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _entry(kind: type) -> Entry:
    module = inspect.getmodule(kind)
    assert module is not None and is_dataclass(kind)
    text, own = inspect.getdoc(module) or "", inspect.getdoc(kind) or ""
    settings = [
        f"{field.name}" if field.default is MISSING else f"{field.name}={field.default!r}" for field in fields(kind)
    ]
    return Entry(
        name=kind.__name__,
        kind=_kind_of(kind, module),
        gives=own.partition("\n")[0],
        needs=_of(kind.__name__, "Needs", text),
        paper=_paper(kind.__name__, text),
        weight=_weight(_labelled(text, "Paper setting"), kind.__name__),
        cost=_of(kind.__name__, "Cost", text).rstrip("."),
        settings=tuple(settings),
        couples=issubclass(kind, Coupled),
        file_text=text,
        text=own,
    )


def _kind_of(kind: type, module: ModuleType) -> str:
    if issubclass(kind, Task):
        return "task"
    return next(part for part in reversed(module.__name__.split(".")) if part in _KINDS)


def _of(name: str, label: str, text: str) -> str:
    """What "Label of NAME: " says, where a file has several losses that differ in it, else what "Label: " says."""
    return _labelled(text, f"{label} of {name}") or _labelled(text, label)


def _labelled(text: str, label: str) -> str:
    """What stands behind "Label: " at the beginning of a line, up to the next label or blank line, on one line."""
    found = re.search(rf"^{label}: (.*?)(?=^\w[\w ]*: |^\s*$|\Z)", text, re.MULTILINE | re.DOTALL)
    return "" if found is None else " ".join(found[1].split())


def _weight(setting: str, name: str) -> str:
    """The paper's weight: the one "for NAME" where a file has several losses, else the first."""
    found = re.search(rf"{_NUMBER} for {name}\b", setting) or re.search(rf"weight {_NUMBER}", setting)
    return "" if found is None else found[1]


def _paper(name: str, text: str) -> str:
    """Authors, year and arXiv number of the source behind "NAME: " where the docstring has one, else of the first."""
    paragraph = " ".join(text.split())
    pattern = r'([A-Z][^.":;()]*?),? (\d{4}), "[^"]*"(?:,? [^.;"]*?)?(?:arXiv:(\d{4}\.\d+)|[.;(]|$)'
    source = re.search(rf"\b{name}: {pattern}", paragraph) or re.search(pattern, paragraph)
    if source is None:
        return ""
    authors = re.split(r", | and ", source[1].rpartition(": ")[2])
    who = " and ".join(authors) if len(authors) < 3 else f"{authors[0]} et al."
    return f"{who} {source[2]}" + (f", {source[3]}" if source[3] else "")
