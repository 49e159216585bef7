"""Whether a transfer helped, in words and with the interval that they rest on."""

import math
from dataclasses import dataclass
from typing import Literal

from distill.report.report import Report
from distill.report.statistics import Interval, paired_bootstrap, welch
from distill.report.units import metric, points

Word = Literal["helped", "no difference", "hurt"]
Control = Literal["plain", "initialized"]

_OPENINGS: dict[Control, dict[Word, str]] = {
    "plain": {
        "helped": "The transfer helped",
        "no difference": "The transfer made no difference that this run can tell from chance",
        "hurt": "The transfer hurt",
    },
    "initialized": {
        "helped": "Beyond the teacher's weights, learning from it helped",
        "no difference": "Beyond the teacher's weights, learning from it made no difference that this run can tell",
        "hurt": "Beyond the teacher's weights, learning from it hurt",
    },
}
_ONE_SEED = "It says nothing about other seeds."


@dataclass(frozen=True)
class Verdict:
    """The difference between the transferred student and a control on the test examples, and what it means.

    word: "helped" or "hurt" only where the whole 95% interval from low to high lies above or below zero.
    ratio: difference over standard error; None where nothing varies.
    sentence: the same in plain words.
    """

    word: Word
    difference: float
    low: float
    high: float
    standard_error: float
    ratio: float | None
    sentence: str


def judge(report: Report, control: Control = "plain") -> Verdict | None:
    """The verdict on the transferred student against a control; None where nobody can say, see `explain`.

    Over several seeds the interval is Welch's of the two means. Under a single seed it is over the test examples, or
    over the patients whom they are of.
    """
    before, after = report.values(control), report.values("transferred")
    if not (before and after and all(map(math.isfinite, (*before, *after)))):
        return None
    if len(report.seeds) > 1:
        return _verdict(welch(before, after), control, report.headline, f"over {len(after)} seeds")
    if report.by_label is not None:
        gain = report.by_label.gains[control].mean
        over = f"over the {report.by_label.patients:,} test patients of one seed"
        return _verdict(gain, control, report.headline, over, _ONE_SEED) if math.isfinite(gain.low) else None
    flips = report.flips_against(control)
    if flips is None or report.headline != "accuracy":
        return None
    examples = flips.gained + flips.lost + flips.same
    return _verdict(
        paired_bootstrap(flips),
        control,
        report.headline,
        f"over the {examples:,} test examples of one seed",
        _ONE_SEED,
    )


def explain(report: Report) -> str:
    """What the run says about the transfer, or why it says nothing: the sentence that heads every rendering."""
    verdict = judge(report)
    if verdict is not None:
        return verdict.sentence
    if not report.has_teacher:
        return "Trained without a teacher: there is no transfer to judge."
    if "plain" not in report.arms:
        return (
            "Whether the transfer helped nobody can say, because no plain student was trained beside it. "
            'Add controls=("plain",) to the recipe.'
        )
    if not all(map(math.isfinite, (*report.values("plain"), *report.values("transferred")))):
        return f"Whether the transfer helped nobody can say: test {metric(report.headline)} is not a finite number."
    return "Whether the transfer helped nobody can say from one seed of each student. Train over more, with repeats=3."


def _verdict(interval: Interval, control: Control, headline: str, over: str, *limits: str) -> Verdict:
    word: Word = "helped" if interval.low > 0 else "hurt" if interval.high < 0 else "no difference"
    varies = interval.standard_error > 0
    ratio = interval.difference / interval.standard_error if varies else None
    sizes = "" if ratio is None else f", {abs(ratio):.1f} standard errors"
    still = () if varies else ("Every seed gave the same value, so the interval has no width.",)
    sentence = (
        f"{_OPENINGS[control][word]}: test {metric(headline)} {points(interval.difference)} points, "
        f"95% interval {points(interval.low)} to {points(interval.high)} {over}{sizes}."
    )
    return Verdict(
        word=word,
        difference=interval.difference,
        low=interval.low,
        high=interval.high,
        standard_error=interval.standard_error,
        ratio=ratio,
        sentence=" ".join((sentence, *still, *limits)),
    )
