"""A report for people: a table in the terminal, and the same in Markdown."""

import html
import re
from collections.abc import Iterable

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from distill.report.report import Cost, Report
from distill.report.statistics import Spread

_NO_CONTROL = "Without controls=('plain',) nobody can say whether the transfer helped."


def render(report: Report) -> Group:
    """The verdict, then a row for the teacher and each arm, for a terminal."""
    table = Table(title=escape(_plain(report.name)), title_justify="left")
    header, *rows = _rows(report)
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number == 0 else "right", no_wrap=number < 2)
    for row in rows:
        table.add_row(*map(escape, row))
    return Group(escape(first_line(report)), table, *(escape(line) for line in _remarks(report)))


def markdown(report: Report) -> str:
    """The same as Markdown, with how it was measured."""
    header, *rows = [[_cell(value) for value in row] for row in _rows(report)]
    table = [header, ["---", *("---:" for _ in header[1:])], *rows]
    setting = [
        f"Epochs were chosen on {report.chosen_on}; the test examples were read once. Seeds: {_list(report.seeds)}.",
        f"Versions: {_list(f'{name} {value}' for name, value in report.versions.items())}.",
        f"Machine: {_list(f'{name} {value}' for name, value in report.machine.items())}. Started {report.started}.",
    ]
    lines = [
        f"# {_cell(report.name)}",
        "",
        _cell(first_line(report)),
        "",
        *(f"| {' | '.join(row)} |" for row in table),
        "",
        *(f"{_cell(line)}\n" for line in (*_remarks(report), *setting)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def first_line(report: Report) -> str:
    """What a reader must know first: the verdict, or why there is none."""
    if report.verdict is not None:
        return report.verdict.sentence
    if report.has_teacher:
        return _NO_CONTROL
    quality = report.quality(report.arms[0])
    return f"Trained without a teacher: {_spread(quality)} test {report.headline}."


def _rows(report: Report) -> list[list[str]]:
    rows = [
        [
            "",
            f"test {report.headline}",
            "agrees",
            "weights",
            "mult-adds",
            "file",
            "one",
            f"batch {report.student_cost.batch}",
        ]
    ]
    if report.teacher_cost is not None:
        known = report.teacher is not None
        quality = f"{report.teacher['test'][report.headline] * 100:.2f} %" if report.teacher and known else "-"
        rows.append(["teacher", quality, "-", *_costs(report.teacher_cost)])
    for arm in report.arms:
        agreement = report.agreement(arm)
        shared = "-" if agreement is None else f"{agreement.mean * 100:.2f} %"
        rows.append([arm, _spread(report.quality(arm)), shared, *_costs(report.student_cost)])
    return rows


def _costs(cost: Cost) -> list[str]:
    return [
        _short(cost.parameters),
        _short(cost.multiply_adds),
        f"{_short(cost.bytes)}B",
        f"{cost.latency_one.seconds * 1000:.3g} ms",
        f"{cost.latency_batch.seconds * 1000:.3g} ms",
    ]


def _remarks(report: Report) -> list[str]:
    figures = f"means over {len(report.seeds)} seeds ± standard deviation" if len(report.seeds) > 1 else "of one seed"
    lines = [
        f"Figures are {figures}; agrees: share of test examples answered like the teacher; one, batch: median time of a "
        "forward pass."
    ]
    teacher = None if report.teacher is None else report.teacher["test"][report.headline]
    if report.recovered is not None:
        lines.append(f"Share of the gap between plain student and teacher that was closed: {report.recovered:.0%}.")
    elif teacher is not None and report.verdict is not None:
        lines.append("The plain student is as good as its teacher: there was no gap to close.")
    if report.teacher_cost is not None:
        smaller = report.teacher_cost.parameters / max(report.student_cost.parameters, 1)
        fewer = report.teacher_cost.multiply_adds / max(report.student_cost.multiply_adds, 1)
        lines.append(
            f"The student has 1/{smaller:.1f} of the teacher's parameters and 1/{fewer:.1f} of its multiply-adds."
        )
    if report.coverage is not None:
        lines.append(f"{report.coverage['share']:.1%} of the student's parameters started from the teacher's.")
    return [*lines, *report.notes]


def _short(count: float) -> str:
    """A count in three digits and the field's letter: 1.21 M, 19.8 k."""
    for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return f"{count:.0f} "


def _spread(value: Spread) -> str:
    if value.deviation is None:
        return f"{value.mean * 100:.2f} %"
    return f"{value.mean * 100:.2f} ± {value.deviation * 100:.2f} %"


def _list(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)


def _plain(text: str) -> str:
    """The text without control characters, which could move a terminal's cursor."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "", text)


def _cell(text: str) -> str:
    """The text as it is, wherever Markdown would read HTML or a table's border in it."""
    return html.escape(_plain(text), quote=False).replace("|", "\\|")
