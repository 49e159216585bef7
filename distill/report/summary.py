"""What follows from a report's numbers: each arm over its seeds, the verdict, the recovered share, and cost ratios."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distill.report.report import Cost, Report
from distill.report.statistics import Spread, mean, recovered, spread
from distill.report.units import metric, percent
from distill.report.verdict import Verdict, explain, judge


@dataclass(frozen=True)
class Arm:
    """One arm over its seeds; agreement and divergence are None where the teacher cannot be compared.

    start: the headline on the validation examples before any training; None where it was not measured.
    """

    test: dict[str, Spread]
    validation: dict[str, Spread]
    agreement: Spread | None
    divergence: Spread | None
    seconds: Spread
    start: Spread | None


@dataclass(frozen=True)
class Ratios:
    """How many times a teacher's cost is the student's; None where one of them is not known or is zero."""

    parameters: float | None
    multiply_adds: float | None
    bytes: float | None
    latency_one: float | None
    latency_batch: float | None


@dataclass(frozen=True)
class Summary:
    """All that is derived from a report.

    verdict: on the transferred student against the plain one. sentence: the same in words, or why there is none.
    beyond_weights: against the student that only started from the teacher's weights; None without that control.
    recovered: share of the gap between plain student and teacher; None where there is no gap or one is not known.
    """

    arms: dict[str, Arm]
    verdict: Verdict | None
    sentence: str
    beyond_weights: Verdict | None
    recovered: float | None
    ratios: Ratios | None


def summarise(report: Report) -> Summary:
    """All that is derived from a report, computed anew."""
    return Summary(
        arms={arm: _arm(report, arm) for arm in report.arms},
        verdict=judge(report),
        sentence=explain(report),
        beyond_weights=judge(report, "initialized"),
        recovered=_recovered(report),
        ratios=None if report.teacher_cost is None else _ratios(report.teacher_cost, report.student_cost),
    )


def explain_recovered(report: Report) -> str | None:
    """The recovered share in words, or that there was nothing to recover. None where one of the three is not known."""
    if report.teacher is None or not {"plain", "transferred"} <= set(report.arms):
        return None
    gap = (report.teacher["test"][report.headline] - mean(report.values("plain"))) * 100
    share = _recovered(report)
    if share is None:
        if gap <= 0:
            return f"There was no gap to recover: the plain student is {-gap:.2f} points ahead of its teacher."
        return None
    verdict = judge(report)
    chance = " That may be chance." if verdict is not None and verdict.word == "no difference" else ""
    if share < 0:
        return f"The {gap:.2f} points from the plain student to its teacher grew by {-share:.0%}.{chance}"
    return f"Of the {gap:.2f} points from the plain student to its teacher the transfer recovered {share:.0%}.{chance}"


def start_sentence(quality: Mapping[str, float], headline: str, arm: str, seed: int) -> str:
    """What one student answers before any training."""
    return (
        f"Start of {arm}, seed {seed}: validation {metric(headline)} {percent(quality[headline])}%, "
        f"nll {quality['nll']:.4f} before training."
    )


def explain_start(report: Report) -> str | None:
    """What each arm answered before any training. None where no student started from a teacher's weights."""
    arms = ((arm, _arm(report, arm).start) for arm in report.arms)
    known = [f"{percent(start.mean)}% ({arm})" for arm, start in arms if start is not None]
    if report.coverage is None or not known:
        return None
    return f"Start: validation {metric(report.headline)} {', '.join(known)} before training."


def _recovered(report: Report) -> float | None:
    if report.teacher is None or not {"plain", "transferred"} <= set(report.arms):
        return None
    plain, transferred = mean(report.values("plain")), mean(report.values("transferred"))
    return recovered(plain, transferred, report.teacher["test"][report.headline])


def _arm(report: Report, arm: str) -> Arm:
    outcomes = report.of(arm)
    first = outcomes[0]
    return Arm(
        test={name: spread([one.test[name] for one in outcomes]) for name in first.test},
        validation={name: spread([one.validation[name] for one in outcomes]) for name in first.validation},
        agreement=_known([one.agreement for one in outcomes]),
        divergence=_known([one.divergence for one in outcomes]),
        seconds=spread([one.seconds for one in outcomes]),
        start=_known([None if one.start is None else one.start.get(report.headline) for one in outcomes]),
    )


def _known(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return spread(known) if len(known) == len(values) else None


def _ratios(teacher: Cost, student: Cost) -> Ratios:
    return Ratios(
        parameters=_ratio(teacher.parameters, student.parameters),
        multiply_adds=_ratio(teacher.multiply_adds, student.multiply_adds),
        bytes=_ratio(teacher.bytes, student.bytes),
        latency_one=_ratio(teacher.latency_one.seconds, student.latency_one.seconds),
        latency_batch=_ratio(teacher.latency_batch.seconds, student.latency_batch.seconds),
    )


def _ratio(teacher: float | None, student: float | None) -> float | None:
    return teacher / student if teacher and student else None
