"""How it was trained: curves of quality and of every term, and where the time went."""

from collections.abc import Iterator, Mapping, Sequence

from distill.clock import shares
from distill.page.figure import hue, hue_of
from distill.page.gathered import Gathered
from distill.page.history import History
from distill.page.html import Markup, folded, join, paragraphs, tag
from distill.page.lines import Line, line_chart
from distill.page.marks import share_chart
from distill.page.scale import Curve, thin
from distill.page.tables import table
from distill.report.spent import explain_time, time_table
from distill.report.units import metric

_MOST_RAW = 120
_SHARES = ("accuracy", "top5", "auroc", "calibration_error", "average_precision")
_OTHERS = {
    "learning_rate": ("Learning rate", "learning rate"),
    "gradient_norm": ("Gradient norm", "norm"),
    "examples_per_second": ("Examples a second", "examples a second"),
}


def curves(found: Gathered) -> Markup:
    """Validation quality of every arm; each term as its loss gives it and as it counts; what else was logged."""
    histories = found.histories
    if not histories:
        return paragraphs(["There are no curves to draw.", *found.unread])
    run = found.run
    headline = run.report.headline
    own = [one for one in histories if one.arm == run.arm]
    main = own[0] if own else histories[0]
    charts = [
        _validation(histories, headline),
        *(_validation(histories, name) for name in ("nll", "perplexity") if name in main.validation),
        line_chart(
            f"What each term adds to the loss ({main.arm}, seed {main.seed})",
            [Line(term, hue(place), curve) for place, (term, curve) in enumerate(main.weighted.items())],
            y_name="weighted loss",
        ),
    ]
    terms = list(_terms(own or [main], histories))
    extra = [chart for chart in _others(histories) if chart is not None]
    seeds = "Thin lines are further seeds." if len(run.report.seeds) > 1 else ""
    return join(
        [
            paragraphs([f"Means between two lines of the log, by step (one update). {seeds}".strip(), *found.unread]),
            tag("div", {"class": "charts"}, charts),
            tag("h3", None, "Each term as its loss gives it, before its weight"),
            tag("div", {"class": "charts"}, terms),
            folded("Learning rate, gradient norm, speed", tag("div", {"class": "charts"}, extra)) if extra else (),
        ]
    )


def time(found: Gathered) -> Markup:
    """Seconds of training by part, of each arm."""
    head, rows = time_table(found.run.report)
    if not rows:
        return paragraphs(["Where the time went was not kept by this run."])
    told = [
        (arm, _named(shares(found.run.report.of(arm)[0].spent), head)) for arm in found.run.report.arms
        if found.run.report.of(arm)[0].spent
    ]  # fmt: skip
    return join(
        [
            paragraphs(explain_time(found.run.report)),
            tag("div", {"class": "charts"}, share_chart("Time of training by part, first seed", told)),
            table("Time of training by part", head, rows, caption="Of each arm the first seed, in % of its training."),
        ]
    )


def _named(parts: Mapping[str, float], head: Sequence[str]) -> list[tuple[str, float]]:
    names = [name.removesuffix(" %") for name in head[1:-1]]
    known = {"student forward": "forward", "data wait": "wait"}
    return [(name, parts.get(known.get(name, name), 0.0)) for name in names]


def _validation(histories: Sequence[History], name: str) -> Markup | None:
    percent = name in _SHARES
    return line_chart(
        f"Validation {metric(name)}",
        list(_by_arm(histories, {id(one): one.validation.get(name) for one in histories})),
        y_name=metric(name) + (" %" if percent else ""),
        y_text=_percent if percent else _plain,
        percent=percent,
    )


def _terms(own: Sequence[History], histories: Sequence[History]) -> Iterator[Markup | None]:
    """One plot a term, of the run's seeds; of a term that a control has too, the control's beside it."""
    for term in own[0].raw:
        having = [one for one in histories if term in one.raw]
        curves = {id(one): _at_most(one.raw.get(term)) for one in having}
        yield line_chart(term, list(_by_arm(having, curves)), y_name="loss")


def _others(histories: Sequence[History]) -> Iterator[Markup | None]:
    for name, (title, y_name) in _OTHERS.items():
        curves = {id(one): _at_most(one.others.get(name)) for one in histories}
        yield line_chart(title, list(_by_arm(histories, curves)), y_name=y_name)


def _by_arm(histories: Sequence[History], curves: Mapping[int, Curve | None]) -> Iterator[Line]:
    first: set[str] = set()
    for one in histories:
        curve = curves[id(one)]
        if curve is None:
            continue
        faint = one.arm in first
        first.add(one.arm)
        yield Line(f"{one.arm}, seed {one.seed}" if faint else one.arm, hue_of(one.arm), curve, faint)


def _at_most(curve: Curve | None) -> Curve | None:
    return None if curve is None else thin(curve.x, curve.y, _MOST_RAW)


def _percent(value: float) -> str:
    return _plain(100 * value)


def _plain(value: float) -> str:
    return f"{value:,.4g}"
