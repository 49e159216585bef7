"""A report as Markdown, to be read by itself."""

import math
from collections.abc import Mapping, Sequence

from distill.initialize import Coverage
from distill.report.escape import markdown_line, markdown_text
from distill.report.label_tables import label_tables
from distill.report.report import Outcome, Report
from distill.report.spent import explain_time, time_table
from distill.report.summary import Summary, explain_recovered, explain_start, summarise
from distill.report.table import MISSING, caption, cost_sentence, headings, rows
from distill.report.units import metric, milliseconds, percent, size

_TITLES = {
    "helped": "The transfer helped",
    "no difference": "The transfer made no difference",
    "hurt": "The transfer hurt",
}


def markdown(report: Report) -> str:
    """The verdict in the title, the table, every single run, and where and with what it was made."""
    summary = summarise(report)
    parts = [
        f"# {_title(summary)}{markdown_text(report.name)}",
        *([f"**{markdown_text(report.origin)}**"] if report.origin else []),
        *_verdicts(report, summary),
        _table(list(headings(report)), rows(report, summary)),
        markdown_text(caption(report)),
        *_costs(report, summary),
        *_labels(report),
        *_pictures(report),
        "## Every run",
        _runs(report),
        *_time(report),
        "## Made with",
        _list(_origin(report)),
    ]
    if report.notes:
        parts += ["## Notes", _list(report.notes)]
    return "\n\n".join(parts) + "\n"


def _labels(report: Report) -> list[str]:
    if report.by_label is None:
        return []
    parts = []
    for table in label_tables(report.by_label):
        parts += [f"## {table.title}", markdown_text(table.caption), _table(table.head, table.rows)]
    return parts


def _pictures(report: Report) -> list[str]:
    return [f"![{markdown_text(caption)}]({file})" for caption, file in report.pictures]


def _title(summary: Summary) -> str:
    return "" if summary.verdict is None else f"{_TITLES[summary.verdict.word]}: "


def _verdicts(report: Report, summary: Summary) -> list[str]:
    beyond = None if summary.beyond_weights is None else summary.beyond_weights.sentence
    lines = (summary.sentence, beyond, explain_recovered(report), explain_start(report))
    return [markdown_text(line) for line in lines if line is not None]


def _costs(report: Report, summary: Summary) -> list[str]:
    costs = {"teacher": report.teacher_cost, "student": report.student_cost}
    spreads = [
        f"{milliseconds(cost.latency_one.spread)} and {milliseconds(cost.latency_batch.spread)} ms ({name})"
        for name, cost in costs.items()
        if cost is not None
    ]
    times = f"Between the quartiles of the times lie {', '.join(spreads)}, for one example and for a batch."
    ratio = [] if summary.ratios is None else [cost_sentence(summary.ratios, report.student_cost.batch)]
    return [*ratio, times]


def _runs(report: Report) -> str:
    """One row a trained student: validation before training, and as it was chosen by, and all its test metrics."""
    metrics = sorted(report.outcomes[0].test, key=lambda name: (name != report.headline, name))
    head = [
        "arm",
        "seed",
        f"start {metric(report.headline)}",
        f"validation {metric(report.headline)}",
        *(f"test {metric(name)}" for name in metrics),
    ]
    head += ["divergence", "best epoch", "steps", "seconds"]
    table = [_run(report, outcome, metrics) for arm in report.arms for outcome in report.of(arm)]
    if report.teacher is not None:
        teacher = [_value(report.headline, report.teacher["validation"][report.headline])]
        teacher += [_value(name, report.teacher["test"][name]) for name in metrics]
        table.insert(0, ["teacher", MISSING, MISSING, *teacher, *[MISSING] * 4])
    return _table(head, table)


def _run(report: Report, outcome: Outcome, metrics: Sequence[str]) -> list[str]:
    return [
        outcome.arm,
        str(outcome.seed),
        MISSING if outcome.start is None else _value(report.headline, outcome.start[report.headline]),
        _value(report.headline, outcome.validation[report.headline]),
        *(_value(name, outcome.test[name]) for name in metrics),
        MISSING if outcome.divergence is None else f"{outcome.divergence:.4f}",
        f"{outcome.best_epoch} of {outcome.epochs}",
        str(outcome.steps),
        f"{outcome.seconds:,.1f}",
    ]


def _value(name: str, value: float) -> str:
    """The likelihood is in nats, perplexity its exponential, every other metric a share."""
    if not math.isfinite(value):
        return MISSING
    return f"{value:.4f}" if name in ("nll", "perplexity") else f"{percent(value)}%"


def _time(report: Report) -> list[str]:
    head, rows = time_table(report)
    told = (markdown_text(line) for line in explain_time(report))
    return ["## Where the time went", _table(head, rows), *told] if rows else []


def _origin(report: Report) -> list[str]:
    seeds = ", ".join(map(str, report.seeds))
    lines = [f"Seeds: {seeds}", f"Started: {report.started}"]
    if report.coverage is not None:
        lines.append(f"Start from the teacher's weights: {Coverage.from_json(report.coverage)}")
    return [*lines, f"Versions: {_pairs(report.versions)}", f"Machine: {_pairs(report.machine)}"]


def _pairs(values: Mapping[str, str | int]) -> str:
    parts = []
    for name, value in sorted(values.items()):
        is_bytes = name.endswith("_bytes") and isinstance(value, int)
        parts.append(f"{name.removesuffix('_bytes')} {size(int(value))}" if is_bytes else f"{name} {value}")
    return ", ".join(parts)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_line(line)}" for line in lines)


def _table(head: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    cells = [[markdown_text(cell) for cell in row] for row in (head, *table)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:]))
