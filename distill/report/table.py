"""The report's one table as text cells, for whatever draws it."""

from distill.report.report import Cost, Report
from distill.report.statistics import Spread
from distill.report.summary import Ratios, Summary
from distill.report.units import count, metric, milliseconds, percent, size, times

MISSING = "-"


def headings(report: Report) -> dict[str, str]:
    """The heading of each column, and the same broken into lines as narrow as its cells."""
    batch = report.student_cost.batch
    return {
        "": "",
        f"test {metric(report.headline)} %": f"test\n{metric(report.headline)}\n%",
        "agreement with teacher %": "agree-\nment\n%",
        "parameters": "para-\nmeters",
        "multiply-adds": "multiply-\nadds",
        "file size": "file\nsize",
        "ms for 1": "ms\nfor 1",
        f"ms for {batch}": f"ms\nfor {batch}",
    }


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
    """What the numbers of the table mean, and how they came about."""
    seeds = f"mean ± standard deviation over {len(report.seeds)} seeds" if len(report.seeds) > 1 else "one seed"
    agreement = "Agreement: share of the test examples to which teacher and student give the same class."
    over = ""
    if report.by_label is not None:
        agreement = (
            "Agreement: share of the test examples' labels on which teacher and student are on the same side of the "
            "thresholds that were chosen on the validation examples."
        )
        over = ", its mean over the labels"
    sentences = [
        f"Test {metric(report.headline)}{over}: {seeds}.",
        f"Epochs were chosen on the {report.chosen_on} examples; the test examples were read once, at the end.",
        *([] if report.teacher is None else [agreement]),
        f"ms: median time of a forward pass with one example, and with {report.student_cost.batch}.",
    ]
    return " ".join(sentences)


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
    return f"Compared with the student, the teacher needs {', '.join(parts)}."


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
