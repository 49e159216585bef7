"""Costs as tables, one for each batch and number of threads."""

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distill.cost.rows import Row
from distill.report import clean
from distill.report.units import count, metric, milliseconds, percent, size


def show(rows: Sequence[Row], console: Console) -> None:
    """Print what each model is, and then what it costs to run it."""
    console.print(_models(rows))
    for (batch, threads, device), some in groupby(rows, key=lambda row: (row.batch, row.threads, row.device)):
        console.print()
        console.print(_times(list(some), f"Batch {batch}, {_threads(threads) if device == 'cpu' else device}"))
    for note in dict.fromkeys(f"{row.name}: {row.note}" for row in rows if row.note):
        console.print(clean(note), markup=False, highlight=False)


def _models(rows: Sequence[Row]) -> Table:
    table = Table(title="Models", title_justify="left", caption_justify="left")
    metrics = {row.metric for row in rows if row.quality is not None}
    title = f"test {metric(*metrics)} %" if len(metrics) == 1 else "test quality %"
    for place, column in enumerate(("model", "parameters", "multiply-adds", title)):
        table.add_column(column, justify="right" if place else "left", overflow="fold")
    for row in {row.subject: row for row in rows}.values():
        spread = "" if row.quality_spread is None else f" ± {percent(row.quality_spread)}"
        name = f" {metric(row.metric)}" if len(metrics) > 1 else ""
        quality = "-" if row.quality is None else f"{percent(row.quality)}{spread}{name}"
        adds = "-" if row.multiply_adds is None else count(row.multiply_adds)
        table.add_row(escape(clean(row.subject)), count(row.parameters), adds, quality)
    return table


def _times(rows: Sequence[Row], title: str) -> Table:
    best = next((row.seconds for row in rows if row.seconds is not None), None)
    compiled = any(row.way == "compiled" for row in rows)
    first, told = (("1st s",), " 1st s: seconds of the first pass, with its compilation.") if compiled else ((), "")
    table = Table(
        title=title,
        title_justify="left",
        caption="ms: median of a pass, ± half the distance between the quartiles. Apart: the largest difference of a "
        "logit from the eager float32 model's. Memory: weights and what torch allocates at the peak of a pass; not for "
        f"ONNX.{told}",
        caption_justify="left",
    )
    for place, column in enumerate(("", "ms", "a second", "of first", "file", "memory", "apart", *first)):
        table.add_column(column, justify="right" if place else "left", overflow="fold")
    for subject, of_subject in groupby(rows, key=lambda row: row.subject):
        table.add_row(f"[bold]{escape(clean(subject))}[/bold]")
        for row in of_subject:
            table.add_row(f"  {_way(row)}", *_cells(row, best)[: 6 + len(first)])
    return table


def _way(row: Row) -> str:
    return row.way if row.precision == "float32" else f"{row.way} {row.precision}"


def _cells(row: Row, best: float | None) -> list[str]:
    if row.seconds is None or row.spread is None or best is None:
        return ["-"] * 7
    return [
        f"{milliseconds(row.seconds)} ± {milliseconds(row.spread / 2)}",
        f"{row.batch / row.seconds:,.0f}",
        f"{row.seconds / best:.2f}",
        size(row.bytes),
        "-" if row.memory is None else size(row.memory),
        "-" if row.apart is None else f"{row.apart:.1g}",
        "-" if row.first_seconds is None else f"{row.first_seconds:.2f}",
    ]


def _threads(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"
