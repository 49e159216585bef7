"""What the models are worth: against their cost, class by class, by how sure they are, and term by term."""

import math
from collections.abc import Callable, Iterator

from distill.compare import Comparison, Judged
from distill.page.gathered import Gathered, place_of
from distill.page.html import Markup, folded, join, paragraphs, tag
from distill.page.marks import Spot, cost_chart, gain_chart, reliability_chart
from distill.page.tables import MISSING, Cell, gain, quantity, share, table
from distill.report import Cost, Report, summarise
from distill.report.label_tables import label_tables
from distill.report.statistics import Interval
from distill.report.units import metric, percent

_ROWS = 15


def cost(found: Gathered) -> Markup:
    """Quality of every model by multiply-adds, by file size and by the time of a forward pass."""
    report = found.run.report
    kinds: tuple[tuple[str, str, str, Callable[[Cost], float | None]], ...] = (
        ("Multiply-adds", "multiply-adds of one example", "", lambda one: one.multiply_adds),
        ("File size", "bytes", " B", lambda one: one.bytes),
        ("Time", "ms for one example", " ms", lambda one: one.latency_one.seconds * 1000),
    )
    y_name = f"test {metric(report.headline)} %"
    charts, missing = [], []
    for title, x_name, unit, of in kinds:
        spots = [
            Spot(model, float(value), quality, spread)
            for model, costs, quality, spread in _models(report)
            if (value := of(costs)) is not None
        ]
        chart = cost_chart(f"Quality against {title.lower()}", spots, x_name=x_name, y_name=y_name, unit=unit)
        if chart is None:
            missing.append(f"{title}: not known of any model.")
        charts.append(chart)
    note = (
        "Up is better and left is cheaper; costs are on a scale of equal factors. Bars show the deviation over seeds."
    )
    teacher = "The teacher's cost was not measured." if report.has_teacher and report.teacher_cost is None else None
    return join([paragraphs([note, teacher, *missing]), tag("div", {"class": "charts"}, charts)])


def classes(found: Gathered) -> Markup:
    """What the transfer gained for each class or finding; of several labels all their tables."""
    report, comparison = found.run.report, found.comparison
    parts: list[Markup] = []
    gains = _gains(report, comparison)
    if gains:
        shown = sorted(gains, key=lambda pair: -pair[1].difference if math.isfinite(pair[1].difference) else math.inf)
        shown = [pair for pair in shown if math.isfinite(pair[1].difference)]
        ends = shown if len(shown) <= 2 * _ROWS else [*shown[:_ROWS], *shown[-_ROWS:]]
        caption = "" if ends is shown else f"The {_ROWS} highest and the {_ROWS} lowest of {len(shown):,}."
        chart = gain_chart("Gain of the transferred student over its control", ends, caption=caption)
        beside = comparison is not None and comparison.classes and report.by_label is None
        listed = tag("div", None, _class_table(comparison)) if comparison is not None and beside else ()
        parts.append(tag("div", {"class": "beside"}, chart, listed))
    if report.by_label is not None:
        for place, one in enumerate(label_tables(report.by_label)):
            drawn = table(one.title, one.head, one.rows, caption=one.caption)
            parts.append(join([tag("h3", None, one.title), drawn]) if place < 2 else folded(one.title, drawn))
    return join(parts) if parts else paragraphs([_no_classes(found)])


def reliability(found: Gathered) -> Markup:
    """Whether the models are as often right as they say, a plot each."""
    comparison = found.comparison
    if comparison is None:
        return Markup("")
    several = found.run.report.by_label is not None
    charts, rows = [], []
    for one in comparison.models:
        error = one.test.get("calibration_error")
        charts.append(reliability_chart(one.name, one.bins, error=error, several=several))
        rows.append([Cell(one.name), *_calibration(one, error)])
    what = "of each label's probability, all labels together" if several else "of the class that is said"
    head = ["model", "calibration error %", "nll", "Brier score"]
    note = (
        f"By how probable a model says its answers are, how often they hold: {what}, under the first seed. On the "
        "dashed line a model is right as often as it says; below it, it is too sure. Larger dots hold more examples."
    )
    return join([paragraphs([note]), tag("div", {"class": "charts small"}, charts), table("Calibration", head, rows)])


def likeness(found: Gathered) -> Markup:
    """How far students answer like the teacher, and what became of the answers of the other models."""
    comparison = found.comparison
    if comparison is None:
        return Markup("")
    parts = []
    if comparison.likeness:
        head = ["student", "agreement %", "where it is right %", "where it is wrong %", "divergence"]
        rows = [
            [
                Cell(one.name),
                *map(share, (one.agreement, one.where_right, one.where_wrong)),
                quantity(one.divergence, f"{one.divergence:.4f}"),
            ]
            for one in comparison.likeness
        ]
        note = "Share of the test examples answered as the teacher does: of all, and where it is right or wrong."
        parts.append(table("Agreement with the teacher", head, rows, caption=note))
    if comparison.against:
        parts += [tag("h3", None, "The transferred student against each other model"), _against(comparison)]
    return join(parts) if parts else paragraphs(["There is no teacher whose answers can be compared, and no control."])


def ablations(found: Gathered) -> Markup:
    """What each term is worth, where runs without it were trained."""
    comparison, report = found.comparison, found.run.report
    if comparison is None or not comparison.ablated:
        ask = f"distill compare {place_of(found.run)} --ablate trains one run for each term without it."
        return paragraphs([f"No runs without single terms were trained. {ask}" if report.has_teacher else
                           "A run without a teacher has no terms of a transfer."])  # fmt: skip
    name = metric(comparison.headline)
    rows = [
        [
            Cell(one.term),
            share(sum(one.without) / len(one.without)) if one.without else Cell(MISSING),
            Cell(one.note or MISSING) if one.gain is None else gain(one.gain),
        ]
        for one in comparison.ablated
    ]
    gains = [(one.term, one.gain) for one in comparison.ablated if one.gain is not None]
    chart = gain_chart("What each term is worth", gains)
    caption = (
        "The whole plan less the plan without the term, under the same budget and seeds; 95% intervals over seeds."
    )
    head = ["term", f"test {name} % without it", "worth, points"]
    listed = tag("div", None, table("Without each term", head, rows, caption=caption))
    return tag("div", {"class": "beside"}, chart, listed)


def _models(report: Report) -> Iterator[tuple[str, Cost, float, float | None]]:
    """Name, cost, quality and its deviation over seeds."""
    if report.teacher is not None and report.teacher_cost is not None:
        yield "teacher", report.teacher_cost, report.teacher["test"][report.headline], None
    for arm, of_arm in summarise(report).arms.items():
        spread = of_arm.test[report.headline]
        yield arm, report.student_cost, spread.mean, spread.standard_deviation


def _gains(report: Report, comparison: Comparison | None) -> list[tuple[str, Interval]]:
    if comparison is not None and comparison.classes:
        return [(one.name, one.gain) for one in comparison.classes]
    if report.by_label is None:
        return []
    control = next((arm for arm in ("plain", "initialized") if arm in report.by_label.gains), None)
    return (
        [] if control is None else list(zip(report.by_label.labels, report.by_label.gains[control].labels, strict=True))
    )


def _class_table(comparison: Comparison) -> Markup:
    control = comparison.control or "control"
    head = ["class", "examples", f"{control} %", "transferred %", "gain, points"]
    rows = [
        [
            Cell(one.name),
            Cell(f"{one.count:,}", one.count),
            share(one.before),
            share(one.after),
            gain(one.gain),
        ]
        for one in sorted(comparison.classes, key=lambda one: -one.gain.difference)
    ]
    caption = (
        f"Accuracy on the test examples of each class, means over seeds. 95% intervals by resampling examples and "
        f"seeds; of {len(rows):,} classes about one in twenty lies beyond zero by chance."
    )
    whole = table("Gain by class", head, rows, caption=caption)
    return whole if len(rows) <= 40 else folded(f"All {len(rows):,} classes", whole)


def _no_classes(found: Gathered) -> str:
    if found.comparison is None:
        return found.no_comparison
    return "There is no control beside a transferred student, so there are no gains to tell."


def _calibration(one: Judged, error: float | None) -> list[Cell]:
    nll = one.test.get("nll")
    return [
        quantity(error, percent(error or 0.0)),
        quantity(nll, f"{nll or 0.0:.4f}"),
        quantity(one.brier, f"{one.brier:.4f}"),
    ]


def _against(comparison: Comparison) -> Markup:
    if all(one.p_values is None for one in comparison.against):
        gains = [[Cell(one.name), gain(one.gain)] for one in comparison.against]
        return table(
            "Against each other model", ["against", f"gain in {metric(comparison.headline)}, points"], gains,
            caption="Of the mean over the labels; 95% intervals by resampling test patients.",
        )  # fmt: skip
    head = ["against", "gain, points", "gained %", "lost %", "both right %", "both wrong %", "McNemar p, by seed"]
    rows = [
        [
            Cell(one.name),
            gain(one.gain),
            *map(share, (one.gained, one.lost, one.both_right, one.both_wrong)),
            Cell(MISSING if one.p_values is None else ", ".join(f"{value:.2g}" for value in one.p_values)),
        ]
        for one in comparison.against
    ]
    caption = (
        "Gained: the other model is wrong and the student right; lost is the reverse (negative flips). Intervals by "
        "resampling test examples and seeds together: they tell how sure the mean over these seeds is, and the verdict "
        "does not rest on them."
    )
    return table("Against each other model", head, rows, caption=caption)
