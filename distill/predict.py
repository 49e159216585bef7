"""`distill predict RUN FILE...`: what a run's student says of an image, a text or a radiograph."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from distill.data import ChestXray, Phantoms
from distill.data.images import image_size
from distill.finished import read_run
from distill.parser import Parser
from distill.report import clean
from distill.serving import Served, probabilities, serve

_AT_ONCE, _RUNNERS_UP, _SHOWN = 64, 2, 60
MEDICAL = "This is no diagnosis: the model was never tested for use on patients."


def predict(words: Sequence[str], console: Console) -> None:
    """The command.

    Raises:
        ValueError: the run or a file can't be read; by name, before anything is computed.
    """
    parser = Parser(
        prog="distill predict",
        description="What a run's student says of image files, or of texts: files with one text a line, --text, or - "
        "for what is piped in. Everything is prepared as the run's test examples were.",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="the folder of a complete run, such as runs/digits")
    add("files", nargs="*", metavar="FILE", help="images, or files of texts; - reads texts from what is piped in")
    add("--text", action="append", default=[], metavar="TEXT", help="a text; may be given several times")
    add("--arm", metavar="ARM", help="plain, initialized or transferred; default: the run itself")
    add("--seed", type=int, metavar="N", help="default: the run's first")
    add("--json", action="store_true", help="print one JSON object a line instead of a table")
    add("--allow-import", action="append", default=[], metavar="MODULE", help="see distill train")
    add("--debug", action="store_true", help="show the traceback of an error")
    given = parser.parse_args(list(words))
    served = serve(read_run(given.run, tuple(given.allow_import)), given.arm, given.seed)
    if served.tokenizer is None:
        if given.text:
            raise ValueError(f"--text has no effect on {given.run}, a run on images. Name image files.")
        names = given.files
    else:
        names = [text for file in given.files for text in _texts(file)] + given.text
    if not names:
        what = "--text TEXT or a file of texts" if served.tokenizer is not None else "an image file"
        raise ValueError(f"There is nothing to predict. Give {what}.")
    chances = _answers(served, names)
    if given.json:
        for name, row in zip(names, chances.tolist(), strict=True):
            console.print(json.dumps(_plain(served, name, row)), markup=False, highlight=False, soft_wrap=True)
        return
    console.print(_labels(served, names, chances) if served.limits is not None else _classes(served, names, chances))
    if isinstance(served.run.recipe.data, (ChestXray, Phantoms)):
        console.print(MEDICAL, markup=False, highlight=False)


def _answers(served: Served, names: Sequence[str]) -> Tensor:
    """Probabilities (N, K). Every file is opened before any is answered; some are held at a time."""
    images = served.tokenizer is None
    if images:
        for name in names:
            image_size(Path(name))
    parts = []
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        parts.append(served.logits(served.images([Path(name) for name in some]) if images else served.texts(some)))
    logits = torch.cat(parts)
    for name, whole in zip(names, logits.isfinite().all(1).tolist(), strict=True):
        if not whole:
            raise ValueError(f"The student's answer to {name} is not finite: its weights are damaged. Train it again.")
    return probabilities(logits, several=served.limits is not None)


def _texts(file: str) -> list[str]:
    try:
        whole = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file} can't be read as text: {error}. Give a file in UTF-8 with one text a line."
        ) from error
    return [line for line in whole.replace("\r\n", "\n").split("\n") if line.strip()]


def _plain(served: Served, name: str, row: Sequence[float]) -> dict[str, object]:
    chances = dict(zip(served.classes, row, strict=True))
    if served.limits is None:
        return {"input": name, "class": max(chances, key=lambda one: chances[one]), "probabilities": chances}
    found = [label for label, limit in zip(served.classes, served.limits, strict=True) if chances[label] >= limit]
    thresholds = dict(zip(served.classes, served.limits, strict=True))
    return {"input": name, "found": found, "probabilities": chances, "thresholds": thresholds}


def _classes(served: Served, names: Sequence[str], chances: Tensor) -> Table:
    table = _table("input", "class", "probability %", "then")
    for name, row in zip(names, chances, strict=True):
        order = row.argsort(descending=True)[: 1 + _RUNNERS_UP].tolist()
        first, *others = [(served.classes[place], 100 * float(row[place])) for place in order]
        then = ", ".join(f"{other} {chance:.1f}" for other, chance in others)
        table.add_row(_shown(name), escape(clean(first[0])), f"{first[1]:.1f}", escape(clean(then)))
    return table


def _labels(served: Served, names: Sequence[str], chances: Tensor) -> Table:
    assert served.limits is not None
    table = _table("input", "label", "probability %", "found from %", "")
    for name, row in zip(names, chances, strict=True):
        for place in row.argsort(descending=True).tolist():
            chance, limit = float(row[place]), served.limits[place]
            told = "found" if chance >= limit else ""
            table.add_row(
                _shown(name), escape(clean(served.classes[place])), f"{100 * chance:.1f}", f"{100 * limit:.1f}", told
            )
            name = ""
    return table


def _table(*columns: str) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if "%" in column else "left", overflow="fold")
    return table


def _shown(name: str) -> str:
    text = clean(name)
    return escape(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")
