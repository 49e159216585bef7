"""What a verdict rests on, in plain words."""

import math
from collections.abc import Iterator, Mapping, Sequence

from distill.answers import TEACHER, Answers, at_chance
from distill.compare.comparison import Likeness
from distill.report import Report, judge
from distill.report.statistics import mean
from distill.report.units import metric, percent, points

# Differences of shares below this are not worth a sentence.
_WORTH = 0.005


def reasons(report: Report, models: Mapping[str, Sequence[Answers]], likeness: Sequence[Likeness]) -> tuple[str, ...]:
    """Sentences about the teacher, the seeds, the start, and what the student took over."""
    return tuple(_reasons(report, models, {one.name: one for one in likeness}))


def _reasons(
    report: Report, models: Mapping[str, Sequence[Answers]], likeness: Mapping[str, Likeness]
) -> Iterator[str]:
    verdict = judge(report)
    if verdict is None:
        return
    before, after = report.values("plain"), report.values("transferred")
    if TEACHER in models and report.teacher is not None:
        yield from _teacher(report, models[TEACHER][0], mean(before))
    if verdict.word == "no difference" and len(report.seeds) > 1:
        reach = (verdict.high - verdict.low) / 2
        yield (
            f"{len(report.seeds)} seeds of the plain student lie {_width(before)} points apart, of the transferred one "
            f"{_width(after)}; a difference below about {100 * reach:.2f} points can't be told from chance by so many."
        )
    start = report.values("initialized")
    if start and all(map(math.isfinite, start)):
        came = mean(start) - mean(before)
        yield (
            f"Of {points(verdict.difference)} points, {points(came)} come with the teacher's weights alone, and "
            f"{points(verdict.difference - came)} from learning from it."
        )
    if {"plain", "transferred"} <= set(likeness):
        yield from _taken_over(likeness["plain"], likeness["transferred"])


def _teacher(report: Report, answers: Answers, plain: float) -> Iterator[str]:
    assert report.teacher is not None
    quality = report.teacher["test"][report.headline]
    name = metric(report.headline)
    if at_chance(answers.validation, None):
        yield "The teacher is at chance on the validation examples: there was nothing right to learn from it."
    elif quality <= plain:
        yield (
            f"The teacher's test {name}, {percent(quality)}%, is not above the plain student's {percent(plain)}%: "
            "what it knows, the student learns from the labels."
        )


def _taken_over(plain: Likeness, transferred: Likeness) -> Iterator[str]:
    moved = transferred.agreement - plain.agreement
    if abs(moved) >= _WORTH:
        yield (
            f"The transferred student gives the teacher's answer on {percent(transferred.agreement)}% of the test "
            f"examples, the plain one on {percent(plain.agreement)}%."
        )
    else:
        yield (
            f"The transferred student agrees with the teacher as often as the plain one ({percent(plain.agreement)}%): "
            "little of it was carried over."
        )
    wrong = transferred.where_wrong - plain.where_wrong
    if abs(wrong) >= _WORTH:
        more = "more" if wrong > 0 else "less"
        yield (
            f"Where the teacher is wrong, it follows it {more} often than the plain student does: on "
            f"{percent(transferred.where_wrong)}% against {percent(plain.where_wrong)}% of those cases."
        )


def _width(values: Sequence[float]) -> str:
    return f"{100 * (max(values) - min(values)):.2f}"
