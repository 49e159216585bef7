"""A comparison as tables in the terminal, the verdict first."""

import math
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distill.compare.comparison import Cka, Comparison
from distill.report import clean
from distill.report.statistics import Interval
from distill.report.units import metric, percent, points

_CLASSES, _EXAMPLES, _TAPS = 10, 6, 6


def show(comparison: Comparison, console: Console) -> None:
    """Print the verdict, what it rests on, and the tables."""
    for line in (comparison.sentence, *(f"- {reason}" for reason in comparison.reasons)):
        console.print(clean(line), markup=False, highlight=False)
    for one in _tables(comparison):
        console.print()
        console.print(one)
    for note in comparison.notes:
        console.print(clean(f"Note: {note}"), markup=False, highlight=False)


def _tables(comparison: Comparison) -> Iterator[Table]:
    yield _quality(comparison)
    if comparison.against:
        yield _against(comparison)
    if comparison.likeness:
        yield _likeness(comparison)
    if comparison.classes:
        yield _classes(comparison)
    if comparison.cka is not None:
        yield _layers(comparison.cka)
    if comparison.differing:
        yield _examples(comparison)
    if comparison.ablated:
        yield ablation_table(comparison)


def table(title: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first column holds names and all others numbers."""
    under = escape(clean(caption)) or None
    made = Table(title=escape(clean(title)), title_justify="left", caption=under, caption_justify="left")
    for number, column in enumerate(columns):
        made.add_column(escape(clean(column)), justify="right" if number else "left", overflow="fold")
    for row in rows:
        made.add_row(*(escape(clean(cell)) for cell in row))
    return made


def gain(interval: Interval) -> str:
    """A gain in points with its interval."""
    if not math.isfinite(interval.difference):
        return "-"
    return f"{points(interval.difference)} ({points(interval.low)} to {points(interval.high)})"


def _quality(comparison: Comparison) -> Table:
    name = comparison.headline
    rows = []
    for one in comparison.models:
        spread = f" ± {percent(one.spread[name])}" if name in one.spread else ""
        error = one.test.get("calibration_error", math.nan)
        rows.append(
            [one.name, percent(one.test[name]) + spread, f"{one.test['nll']:.4f}", percent(error), f"{one.brier:.4f}"]
        )
    seeds = f"over {len(comparison.seeds)} seeds" if len(comparison.seeds) > 1 else "of one seed"
    return table(
        f"{comparison.run}: {comparison.examples:,} test examples, means {seeds}",
        "nll: negative log likelihood. ECE: expected calibration error. Brier: mean squared distance of the "
        "probabilities from the truth.",
        ("model", f"{metric(name)} %", "nll", "ECE %", "Brier"),
        rows,
    )


def _against(comparison: Comparison) -> Table:
    rows = []
    for one in comparison.against:
        p_values = "-" if one.p_values is None else " ".join(f"{p:.2g}" for p in one.p_values)
        shares = [percent(share) for share in (one.gained, one.lost)]
        rows.append([f"over {one.name}", gain(one.gain), *shares, p_values])
    return table(
        f"The transferred student's {metric(comparison.headline)} on the same examples, in points",
        "In brackets: 95% over test examples and seeds drawn again in pairs, which few seeds make too short: the "
        "verdict does not rest on it. Gained: right where the other is wrong. Lost: negative flips, wrong where the "
        "other is right. p: McNemar's exact test of each seed.",
        ("", "gain", "gained %", "lost %", "p"),
        rows,
    )


def _likeness(comparison: Comparison) -> Table:
    rows = [
        [
            one.name,
            percent(one.agreement),
            percent(one.where_right),
            percent(one.where_wrong),
            f"{one.divergence:.4f}",
        ]
        for one in comparison.likeness
    ]
    return table(
        "Answers equal to the teacher's, %",
        "Where it is right, and where it is wrong: who takes over its mistakes learnt from it, and not only the task. "
        "Divergence: mean KL from the teacher's probabilities.",
        ("", "all", "it is right", "it is wrong", "divergence"),
        rows,
    )


def _classes(comparison: Comparison) -> Table:
    # A finding that the test examples lack has no gain: it has no place in the order.
    known = [one for one in comparison.classes if math.isfinite(one.gain.difference)]
    ordered = sorted(known, key=lambda one: one.gain.difference, reverse=True)
    half = _CLASSES // 2
    kept = ordered if len(ordered) <= _CLASSES else [*ordered[:half], *ordered[-half:]]
    left = len(ordered) - len(kept)
    rows = []
    for one in kept:
        p_value = [] if one.p_value is None else [f"{one.p_value:.2g}" if math.isfinite(one.p_value) else "-"]
        rows.append([one.name, f"{one.count:,}", percent(one.before), percent(one.after), gain(one.gain), *p_value])
    tested = any(one.p_value is not None for one in ordered)
    without = len(comparison.classes) - len(known)
    captions = (
        f"{left} in between are left out here; compare.json has all." if left else "",
        f"{without} can't be told: the test examples lack them, or have nothing else." if without else "",
    )
    return table(
        f"Gains by {'finding' if tested else 'class'} over {comparison.control}, in points",
        " ".join(filter(None, captions)),
        ("", "count", "before %", "after %", "gain", *(["DeLong p"] if tested else [])),
        rows,
    )


def _layers(cka: Cka) -> Table:
    """For each of some layers of the student, which of the teacher's it is most like, before and after."""
    places = range(0, len(cka.student), max(1, -(-len(cka.student) // _TAPS)))
    rows = []
    for place in places:
        row = [cka.student[place]]
        for matrix in (cka.before, cka.after):
            best = max(range(len(cka.teacher)), key=lambda column: matrix[place][column])
            row.append(f"{cka.teacher[best]} {matrix[place][best]:.3f}")
        rows.append(row)
    return table(
        "Most alike of the teacher (linear CKA)",
        f"On {cka.examples} training examples; compare.json has all {len(cka.student)} x {len(cka.teacher)}.",
        ("student", "at the start", "after"),
        rows,
    )


def _examples(comparison: Comparison) -> Table:
    names = [answer.model for answer in comparison.differing[0].answers]
    rows = [
        [str(one.index), one.truth, *(f"{answer.said} {100 * answer.probability:.0f}%" for answer in one.answers)]
        for one in comparison.differing[:_EXAMPLES]
    ]
    return table(
        "Test examples on which models differ, under the first seed",
        f"{len(comparison.differing)} are in compare.json.",
        ("example", "truth", *names),
        rows,
    )


def ablation_table(comparison: Comparison) -> Table:
    """What each term is worth: the whole plan less the plan without it."""
    rows = []
    for one in comparison.ablated:
        mean = f"{percent(sum(one.without) / len(one.without))}" if one.without else "-"
        rows.append([one.term, mean, one.note if one.gain is None else gain(one.gain)])
    return table(
        "What each term is worth, in points",
        "The whole plan less the plan without the term, under the same budget and seeds; in brackets Welch's 95% "
        "interval over seeds.",
        ("term", f"{metric(comparison.headline)} % without", "worth"),
        rows,
    )
