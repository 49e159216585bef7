"""Where the time of training went, and what sticks out of it. Of each arm the first seed, on the main process."""

from distill.clock import EVALUATION, OTHER, PARTS, shares
from distill.report.report import Outcome, Report

_NAMES = {"forward": "student forward", "wait": "data wait"}
_WAIT, _TEACHER = 0.05, 0.3


def time_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """The heading of each column, and a row of cells for each arm of which it is known."""
    parts = (*PARTS, EVALUATION, OTHER)
    head = ["time of training", *(f"{_NAMES.get(part, part)} %" for part in parts), "seconds"]
    rows = []
    for outcome in (report.of(arm)[0] for arm in report.arms):
        share = shares(outcome.spent)
        cells = [f"{100 * share.get(part, 0.0):.1f}" for part in parts]
        if share:
            rows.append([outcome.arm, *cells, f"{outcome.seconds:,.1f}"])
    return head, rows


def explain_time(report: Report) -> list[str]:
    """Where the run's own student spent its time, the most first, and what to do about what sticks out.

    Empty where it is not known.
    """
    outcome = report.of(report.arms[-1])[0]
    share = shares(outcome.spent)
    if not share:
        return []
    shown = sorted((part for part in share if part != OTHER and share[part] >= 0.005), key=lambda part: -share[part])
    told = [f"{_NAMES.get(part, part)} {share[part]:.0%}" for part in (*shown, OTHER) if part in share]
    return [
        f"Time of training ({outcome.arm}, {outcome.seconds:,.1f} s): {', '.join(told)}.",
        *_sticking_out(outcome),
    ]


def _sticking_out(outcome: Outcome) -> list[str]:
    share = shares(outcome.spent)
    wait, teacher = share.get("wait", 0.0), share.get("teacher", 0.0)
    student = share.get("forward", 0.0) + share.get("backward", 0.0)
    lines = []
    if wait > _WAIT:
        lines.append(f"Data is waited for during {wait:.0%} of the time: raise workers=..., or cache the data.")
    if teacher > _TEACHER:
        beside = f", {teacher / student:.1f} times what the student's forward and backward take" if student else ""
        lines.append(f"The teacher takes {teacher:.0%} of the time{beside}.")
    return lines
