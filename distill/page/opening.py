"""What stands first: the verdict, the headline table, and what it rests on."""

import math

from distill.page.gathered import Gathered
from distill.page.html import Markup, join, paragraphs, tag
from distill.page.tables import MISSING, Cell, gain, quantity, share, table
from distill.report import Cost, Interval, Report, Summary, judge, summarise
from distill.report.statistics import Spread, welch
from distill.report.summary import explain_recovered, explain_start
from distill.report.table import caption, cost_sentence
from distill.report.units import count, metric, milliseconds, percent, size

_WORDS = {
    "helped": ("good", "The transfer helped"),
    "no difference": ("even", "No difference"),
    "hurt": ("bad", "The transfer hurt"),
}


def verdict(found: Gathered) -> Markup:
    """The verdict's word and sentence, before all else; why there is none where nobody can say."""
    report = found.run.report
    summary = summarise(report)
    if summary.verdict is None:
        word = "No transfer" if not report.has_teacher else "No verdict"
        badge = tag("p", {"class": "badge even"}, word)
    else:
        colour, word = _WORDS[summary.verdict.word]
        badge = tag("p", {"class": f"badge {colour}"}, word)
    beyond = None if summary.beyond_weights is None else summary.beyond_weights.sentence
    origin = tag("p", {"class": "origin"}, tag("strong", None, report.origin)) if report.origin else ()
    lines = (beyond, explain_recovered(report), explain_start(report))
    return join([badge, tag("p", {"class": "lead"}, summary.sentence), origin, paragraphs(lines)])


def headline(found: Gathered) -> Markup:
    """Every model by quality and cost, and what the numbers mean."""
    report = found.run.report
    summary = summarise(report)
    name, batch = metric(report.headline), report.student_cost.batch
    head = [
        "model",
        f"test {name} %",
        "gain over plain, points",
        "agreement %",
        "parameters",
        "multiply-adds",
        "file size",
        "ms for 1",
        f"ms for {batch}",
    ]
    rows = []
    if report.teacher is not None or report.teacher_cost is not None:
        quality = Cell(MISSING) if report.teacher is None else share(report.teacher["test"][report.headline])
        rows.append([Cell("teacher"), quality, Cell(MISSING), Cell(MISSING), *_cost(report.teacher_cost)])
    for arm, of_arm in summary.arms.items():
        agreement = Cell(MISSING) if of_arm.agreement is None else share(of_arm.agreement.mean)
        gained = gain(gain_over_plain(report, arm))
        rows.append([Cell(arm), _spread(of_arm.test[report.headline]), gained, agreement, *_cost(report.student_cost)])
    parts = [
        table("Quality and cost of each model", head, rows, caption=_caption(report), highlight=len(rows) - 1),
        _ratios(summary, batch),
        _rests_on(found),
    ]
    return join(parts)


def gain_over_plain(report: Report, arm: str) -> Interval | None:
    """Of a seed or two the same interval as the verdict's; None where nobody can say."""
    if arm == "plain" or "plain" not in report.arms:
        return None
    if arm == "transferred":
        found = judge(report)
        if found is None:
            return None
        return Interval(found.difference, found.low, found.high, found.standard_error)
    before, after = report.values("plain"), report.values(arm)
    if len(after) < 2 or not all(map(math.isfinite, (*before, *after))):
        return None
    return welch(before, after)


def _caption(report: Report) -> str:
    interval = " Gains are differences of means, with 95% intervals in brackets." if "plain" in report.arms else ""
    return caption(report) + interval


def _ratios(summary: Summary, batch: int) -> Markup:
    return paragraphs([None if summary.ratios is None else cost_sentence(summary.ratios, batch)])


def _rests_on(found: Gathered) -> Markup:
    if found.comparison is None:
        return Markup("")
    reasons = [tag("li", None, reason) for reason in found.comparison.reasons]
    notes = [tag("li", None, note) for note in found.comparison.notes]
    title = tag("h3", None, "What this rests on")
    return join([title, tag("ul", {"class": "reasons"}, reasons, notes)]) if reasons or notes else Markup("")


def _spread(spread: Spread) -> Cell:
    if not math.isfinite(spread.mean):
        return Cell(MISSING)
    deviation = spread.standard_deviation
    return Cell(percent(spread.mean) + ("" if deviation is None else f" ± {percent(deviation)}"), spread.mean)


def _cost(cost: Cost | None) -> list[Cell]:
    if cost is None:
        return [Cell(MISSING)] * 5
    adds = cost.multiply_adds
    one, batch = cost.latency_one.seconds, cost.latency_batch.seconds
    return [
        quantity(cost.parameters, count(cost.parameters)),
        Cell(MISSING) if adds is None else quantity(adds, count(adds)),
        quantity(cost.bytes, size(cost.bytes)),
        quantity(one, milliseconds(one)),
        quantity(batch, milliseconds(batch)),
    ]
