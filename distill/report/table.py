"""The report's one table as text cells, for whatever draws it."""

from distill.report.report import Cost, Report
from distill.report.statistics import Spread
from distill.report.summary import Ratios, Summary
from distill.report.units import count, milliseconds, percent, size, times

MISSING = "-"


def headings(report: Report) -> list[str]:
    """The heading of each column; a line break says where a narrow one may break."""
    return [
        "",
        f"test\n{report.headline}\n%",
        "agreement\nwith teacher\n%",
        "parameters",
        "multiply-\nadds",
        "file",
        "one\nexample\nms",
        f"batch\nof {report.student_cost.batch}\nms",
    ]


def rows(report: Report, summary: Summary) -> list[list[str]]:
    """Cells of the teacher, where there is one, and of each arm."""
    table = []
    if report.teacher is not None or report.teacher_cost is not None:
        quality = MISSING if report.teacher is None else percent(report.teacher["test"][report.headline])
        table.append(["teacher", quality, MISSING, *_cost(report.teacher_cost)])
    for name, arm in summary.arms.items():
        agreement = MISSING if arm.agreement is None else percent(arm.agreement.mean)
        table.append([name, _quality(arm.test[report.headline]), agreement, *_cost(report.student_cost)])
    return table


def caption(report: Report) -> str:
    """How the numbers of the table came about."""
    seeds = f"mean ± standard deviation over {len(report.seeds)} seeds" if len(report.seeds) > 1 else "one seed"
    return (
        f"Test quality: {seeds}. Epochs were chosen on the {report.chosen_on} examples; "
        "the test examples were read once, at the end."
    )


def cost_sentence(ratios: Ratios, batch: int) -> str:
    """How many times the teacher costs what the student does."""
    sizes = {
        "parameters": ratios.parameters,
        "multiply-adds": ratios.multiply_adds,
        "file size": ratios.bytes,
        "time for one example": ratios.latency_one,
        f"time for a batch of {batch}": ratios.latency_batch,
    }
    parts = [f"{times(ratio)} times the {name}" for name, ratio in sizes.items() if ratio is not None]
    return f"The teacher has {', '.join(parts)} of the student."


def _quality(spread: Spread) -> str:
    if spread.standard_deviation is None:
        return percent(spread.mean)
    return f"{percent(spread.mean)} ± {percent(spread.standard_deviation)}"


def _cost(cost: Cost | None) -> list[str]:
    if cost is None:
        return [MISSING] * 5
    return [
        count(cost.parameters),
        MISSING if cost.multiply_adds is None else count(cost.multiply_adds),
        size(cost.bytes),
        milliseconds(cost.latency_one.seconds),
        milliseconds(cost.latency_batch.seconds),
    ]
