"""`distill cost MODEL|RUN...`: what a model takes, and how fast it is here in each of the ways to run it."""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from distill.cost.rows import Row, measure
from distill.cost.show import show
from distill.cost.subject import Given, Subject, subjects
from distill.cost.ways import OF_ONNX, PRECISIONS, WAYS, Way, ready
from distill.folder import write_whole
from distill.measure import machine, versions
from distill.onnx_file import check_onnx
from distill.parser import Parser
from distill.picture import check_pictures, draw_pareto
from distill.report.serial import finite
from distill.report.units import metric

_ROUNDS = 15
_EXAMPLES = """
distill cost runs/digits                         teacher and student of a run, with their quality
distill cost runs/digits --way eager onnx int8 --threads 1 2 --plot cost.png
distill cost torchvision:resnet50 torchvision:mobilenet_v3_small --size 224
distill cost transformers:bert --tokens 128
"""


def cost(words: Sequence[str], console: Console) -> None:
    """The command.

    Raises:
        ValueError: a model can't be had, or a setting has no effect; by name, before anything is measured.
    """
    given = _given(words)
    device = torch.device(given.device)
    if set(OF_ONNX) & set(given.way):
        check_onnx()
        if "float32" not in given.precision:
            raise ValueError("--way onnx and int8 are measured from float32 alone. Add float32 to --precision.")
        if device.type != "cpu":
            raise ValueError("--way onnx and int8 are measured on the CPU. Add --device cpu, or leave them out.")
    if given.plot is not None:
        check_pictures()
    _check_files(given.out, given.plot)
    found = subjects(given.models, Given(given.classes, given.size, given.tokens), tuple(given.allow_import))
    if given.plot is not None:
        _check_qualities(found)
    threads = torch.get_num_threads()
    try:
        rows = _measured(found, given, device, console)
    finally:
        torch.set_num_threads(threads)
    show(rows, console)
    if given.out is not None:
        told = {"rows": [asdict(row) for row in rows], "rounds": given.rounds}
        whole = finite({**told, "machine": machine(), "versions": versions()})
        write_whole(given.out, json.dumps(whole, indent=1, allow_nan=False) + "\n")
        console.print(f"Written: {given.out}", markup=False, highlight=False, soft_wrap=True)
    if all(row.seconds is None for row in rows):
        raise ValueError("Nothing could be measured: all that was asked for failed, as the table's notes tell.")
    if given.plot is not None:
        _draw(rows, given.plot)
        console.print(f"Drawn: {given.plot}", markup=False, highlight=False, soft_wrap=True)


def _check_files(out: Path | None, plot: Path | None) -> None:
    """Refuse a file that could not be written once all is measured."""
    for word, path in (("--out", out), ("--plot", plot)):
        if path is None:
            continue
        if not path.parent.is_dir():
            raise ValueError(f"{word} {path} can't be written: there is no folder {path.parent}. Make it first.")
        if path.is_dir():
            raise ValueError(f"{word} {path} can't be written: it is a folder. Name a file.")
        if not os.access(path.parent, os.W_OK):
            raise ValueError(f"{word} {path} can't be written: {path.parent} is not to be written. Name another.")
    if out is not None and plot is not None and out.resolve() == plot.resolve():
        raise ValueError(f"--out and --plot both name {out}. Name two files.")


def _check_qualities(found: Sequence[Subject]) -> None:
    """Refuse a plot without a quality, or with qualities that can't be compared."""
    first: dict[str, str] = {}
    for one in found:
        if one.quality == one.quality:
            first.setdefault(one.metric, one.name)
    if not first:
        raise ValueError("--plot draws quality over cost, and no model named here has a run's quality. Name a run.")
    if len(first) > 1:
        told = ", ".join(f"{name} has {metric(one)}" for one, name in first.items())
        raise ValueError(f"--plot draws one metric, and {told}. Name runs of one metric, or leave --plot out.")


def _measured(found: Sequence[Subject], given: argparse.Namespace, device: torch.device, console: Console) -> list[Row]:
    rows: list[Row] = []
    settings = list(product(given.threads, given.batch))
    with tempfile.TemporaryDirectory() as name, Progress(console=console, transient=True) as progress:
        kinds = [
            (subject, way, precision)
            for subject, way, precision in product(found, given.way, given.precision)
            if way not in OF_ONNX or precision == "float32"
        ]
        building = progress.add_task("building", total=len(kinds) * len(given.threads))
        timing = progress.add_task("timing", total=len(settings) * given.rounds)
        for threads in given.threads:
            torch.set_num_threads(threads)
            ways: list[Way] = []
            for place, (subject, way, precision) in enumerate(kinds):
                folder = Path(name) / f"{threads}-{place}"
                folder.mkdir()
                ways.append(ready(subject, way, precision, device, threads, folder))
                progress.advance(building)
            for batch in given.batch:
                tick = lambda: progress.advance(timing)  # noqa: E731
                rows += measure(ways, batch, threads, device, rounds=given.rounds, tick=tick)
    return rows


def _draw(rows: Sequence[Row], path: Path) -> None:
    first = rows[0]
    kept = [row for row in rows if (row.batch, row.threads) == (first.batch, first.threads)]
    spots = [
        (Path(row.name).name, 1000 * row.seconds, 100 * row.quality)
        for row in kept
        if row.seconds is not None and row.quality is not None
    ]
    if not spots:
        raise ValueError(f"--plot has nothing to draw: all that has a quality failed at batch {first.batch}.")
    name = metric(next(row.metric for row in kept if row.quality is not None))
    title = f"Quality over time, batch {first.batch}, threads {first.threads}"
    draw_pareto(path, spots, x="milliseconds of a pass", y=f"test {name} % of the run", title=title)


def _given(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="distill cost",
        description="What models take (parameters, multiply-adds, file, memory) and how fast they are here: medians of "
        "passes in which all that is asked for takes turns.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL|RUN", help="the folder of a run, or a model such as torchvision:resnet50")
    add("--batch", nargs="+", type=_above_zero, default=[1, 32], metavar="N", help="examples at once; default: 1 32")
    own = torch.get_num_threads()
    add("--threads", nargs="+", type=_above_zero, metavar="N", help=f"of the CPU; default: {own}")
    add("--way", nargs="+", choices=WAYS, default=["eager"], help="default: eager. int8: ONNX Runtime's dynamic one")
    add("--precision", nargs="+", choices=list(PRECISIONS), default=["float32"], help="default: float32")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", choices=("cpu", "cuda"), default=best, help=f"default: {best}")
    add("--size", type=_above_zero, metavar="PIXELS", help="side of images that a named model gets; default: its own")
    add("--tokens", type=_above_zero, metavar="N", help="length of texts that a named model gets; default: 128")
    add("--classes", type=_above_zero, metavar="N", help="of a named model; default: 1000, of a model of texts 2")
    add("--rounds", type=_above_zero, default=_ROUNDS, metavar="N", help=f"times each is timed; default: {_ROUNDS}")
    add("--out", type=Path, metavar="FILE", help="write all of it as JSON, with machine and versions")
    add("--plot", type=Path, metavar="FILE", help="draw quality over time as a PNG")
    add("--allow-import", action="append", default=[], metavar="MODULE", help="see distill train")
    add("--debug", action="store_true", help="show the traceback of an error")
    given = parser.parse_args(list(words))
    if given.device == "cuda" and best != "cuda":
        raise ValueError("--device cuda can't be had: torch sees no GPU here.")
    if given.device != "cpu" and given.threads is not None:
        told = " ".join(map(str, given.threads))
        raise ValueError(
            f"--threads {told} has no effect on --device {given.device}. Leave it out, or add --device cpu."
        )
    given.threads = given.threads or [own]
    if given.rounds < 2:
        raise ValueError("--rounds is at least 2, for a spread.")
    for name in ("batch", "threads", "way", "precision"):
        setattr(given, name, list(dict.fromkeys(getattr(given, name))))
    return given


def _above_zero(word: str) -> int:
    if not word.isdecimal() or int(word) == 0 or len(word) > 9:
        raise argparse.ArgumentTypeError(f"takes a whole number above zero, got {word!r}")
    return int(word)
