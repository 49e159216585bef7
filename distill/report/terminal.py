"""A report as a terminal shows it."""

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from distill.report.escape import clean
from distill.report.label_tables import short_table
from distill.report.report import Report
from distill.report.spent import explain_time
from distill.report.summary import explain_recovered, explain_start, summarise
from distill.report.table import caption, cost_sentence, headings, rows
from distill.report.verdict import Verdict

_COLOURS = {"helped": "bold green", "no difference": "bold yellow", "hurt": "bold red"}


def render(report: Report) -> RenderableType:
    """The verdict, the table, and how to read it. Fits 80 columns.

    Texts are rich's `Text`, in which names from outside cannot mark up anything.
    """
    summary = summarise(report)
    before = [
        summary.beyond_weights.sentence if summary.beyond_weights is not None else None,
        explain_recovered(report),
        explain_start(report),
    ]
    after = [
        caption(report),
        None if summary.ratios is None else cost_sentence(summary.ratios, report.student_cost.batch),
        *explain_time(report),
        *(f"Note: {note}" for note in report.notes),
    ]
    table = _table(report.name)
    for at, heading in enumerate(headings(report).values()):
        lines = map(clean, heading.split("\n"))
        table.add_column(Text("\n".join(lines)), justify="right" if at else "left", no_wrap=True)
    for cells in rows(report, summary):
        table.add_row(*map(Text, cells), style="bold" if cells[0] == "transferred" else None)
    return Group(
        *([Text(clean(report.origin), style="bold")] if report.origin else []),
        Text(clean(summary.sentence), style=_colour(summary.verdict)),
        *(Text(clean(line)) for line in before if line is not None),
        Text(),
        table,
        Text(),
        *_by_label(report),
        *(Text(clean(line)) for line in after if line is not None),
    )


def _table(title: str) -> Table:
    return Table(
        title=Text(clean(title)),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )


def _by_label(report: Report) -> list[RenderableType]:
    if report.by_label is None:
        return []
    short = short_table(report.by_label)
    table = _table(short.title)
    for at, heading in enumerate(short.head):
        table.add_column(Text(heading), justify="right" if at else "left", no_wrap=at > 0, overflow="fold")
    for cells in short.rows:
        table.add_row(*(Text(clean(cell)) for cell in cells), style="bold" if cells[0] == "mean" else None)
    return [table, Text(), *([Text(clean(short.caption))] if short.caption else [])]


def _colour(verdict: Verdict | None) -> str:
    return "bold" if verdict is None else _COLOURS[verdict.word]
