"""Several runs side by side, on the same test examples."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from distill.compare.analyse import answers_of
from distill.compare.show import gain, table
from distill.finished import Finished
from distill.report import judge
from distill.report.statistics import spread, welch
from distill.report.units import metric, percent


def side_by_side(runs: Sequence[Finished], console: Console) -> None:
    """A row for each run's student: its quality, what it gained over its own control, and over the first run's student.

    Raises:
        ValueError: the runs are judged by other metrics, or on other test examples.
    """
    first = runs[0]
    for run in runs[1:]:
        check_same_examples(first, run)
    console.print(_table(runs))


def check_same_examples(first: Finished, other: Finished) -> None:
    """Refuse runs whose students can't be compared.

    Raises:
        ValueError: names both runs, and in what they differ.
    """
    both = f"{first.folder} and {other.folder}"
    if first.report.headline != other.report.headline:
        raise ValueError(
            f"{both} are judged by {first.report.headline} and {other.report.headline}, so they can't be compared."
        )
    labels, others = (answers_of(run)[run.arm][0].test.labels for run in (first, other))
    if labels.shape != others.shape or not labels.nan_to_num(-1).equal(others.nan_to_num(-1)):
        counts = "" if len(labels) == len(others) else f" ({len(labels):,} and {len(others):,})"
        raise ValueError(f"{both} answer other test examples{counts}, so they can't be compared.")


def _table(runs: Sequence[Finished]) -> Table:
    rows = []
    reference = runs[0].report.values(runs[0].arm)
    for run in runs:
        values = run.report.values(run.arm)
        verdict = judge(run.report)
        own = spread(values)
        deviation = f" ± {percent(own.standard_deviation)}" if own.standard_deviation is not None else ""
        comparable = min(len(values), len(reference)) > 1 and all(map(math.isfinite, (*values, *reference)))
        over = gain(welch(reference, values)) if comparable and run is not runs[0] else "-"
        rows.append([run.report.name, percent(own.mean) + deviation, "-" if verdict is None else verdict.word, over])
    name = metric(runs[0].report.headline)
    return table(
        f"{len(runs)} runs, test {name}",
        "Its transfer: the run's own verdict, over its own plain student. Over the first: in points, with Welch's 95% "
        "interval over seeds.",
        ("run", f"{name} %", "its transfer", f"over {runs[0].report.name}"),
        rows,
    )
