"""Plots of marks that each say what they are: gains with intervals, quality against cost, reliability, time by part."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distill.metrics import Bin
from distill.page.figure import WIDTH, axes, canvas, figure, hue, hue_of, key, shorten, text, tip
from distill.page.html import Attributes, Markup, number, tag
from distill.page.scale import Scale, short, spanning
from distill.page.tables import gain_text
from distill.report.statistics import Interval
from distill.report.units import percent

_ROW, _NAMES = 18, 118
_SHAPES = {"teacher": "square", "plain": "circle", "initialized": "diamond", "transferred": "triangle"}


@dataclass(frozen=True)
class Spot:
    """A model on a plot of quality against cost. spread: standard deviation of the quality; None of a single one."""

    model: str
    cost: float
    quality: float
    spread: float | None


def gain_chart(title: str, gains: Sequence[tuple[str, Interval]], *, caption: str = "") -> Markup | None:
    """One row a name: the difference in points as a dot, its interval as a line, and no difference as a rule."""
    known = [(name, one) for name, one in gains if math.isfinite(one.difference)]
    if not known:
        return None
    ends = [value for _, one in known for value in (one.difference, *_bounds(one), 0.0)]
    x = spanning([100 * value for value in ends], _NAMES, 350)
    bottom = 14 + _ROW * len(known)
    parts = []
    for value in x.ticks():
        place = x.at(value)
        parts.append(tag("line", {"class": "grid", "x1": place, "x2": place, "y1": 8, "y2": bottom}))
        parts.append(text(place, bottom + 15, f"{value:+g}" if value else "0", "middle"))
    parts.append(tag("line", {"class": "axis", "x1": x.at(0), "x2": x.at(0), "y1": 8, "y2": bottom}))
    parts.append(text((_NAMES + 350) / 2, bottom + 31, "points gained", "middle", "name"))
    for row, (name, one) in enumerate(known):
        y = 14 + _ROW * (row + 0.5)
        low, high = _bounds(one)
        colour = "better" if low > 0 else "worse" if high < 0 else "even"
        words = tip(f"{name}: {gain_text(one)} points")
        whole = [
            words,
            tag("rect", {"class": "target", "x": 0, "y": y - _ROW / 2, "width": WIDTH, "height": _ROW}),
            text(_NAMES - 8, y + 3.5, shorten(name, 19), "end"),
            tag("line", {"class": "reach", "x1": x.at(100 * low), "x2": x.at(100 * high), "y1": y, "y2": y}),
            tag("circle", {"class": "dot", "cx": x.at(100 * one.difference), "cy": y, "r": 4}),
        ]
        parts.append(tag("g", {"class": f"mark {colour}"}, whole))
    better, worse = (sum(test(one) for _, one in known) for test in (_is_better, _is_worse))
    says = f"{len(known)} rows; {better} with an interval above zero, {worse} below zero. The table has the numbers."
    return figure(title, canvas(bottom + 38, parts), says=says, caption=caption)


def cost_chart(title: str, spots: Sequence[Spot], *, x_name: str, y_name: str, unit: str = "") -> Markup | None:
    """Quality upwards, cost to the right on a scale of equal factors; models of one cost stand a little apart."""
    known = [spot for spot in spots if spot.cost > 0 and math.isfinite(spot.quality)]
    if not known:
        return None
    x = spanning([spot.cost for spot in known], 56, 340, log=True, room=0.12)
    y = spanning([100 * value for spot in known for value in _reach(spot)], 190, 22, room=0.1)
    parts = [axes(x, y, x_name=x_name, y_name=y_name)]
    taken: dict[float, int] = {}
    for spot in known:
        beside = taken.get(spot.cost, 0)
        taken[spot.cost] = beside + 1
        place, level = x.at(spot.cost) + 9 * ((beside + 1) // 2) * (1 if beside % 2 else -1), y.at(100 * spot.quality)
        low, high = (y.at(100 * value) for value in _reach(spot))
        spread = "" if spot.spread is None else f" ± {percent(spot.spread)}"
        words = f"{spot.model}: {percent(spot.quality)}{spread}%, {short(spot.cost)}{unit}"
        bar = tag("line", {"class": "reach", "x1": place, "x2": place, "y1": low, "y2": high})
        parts.append(
            tag("g", {"class": f"mark {hue_of(spot.model)}"}, tip(words), bar, _shape(spot.model, place, level))
        )
    says = "; ".join(f"{spot.model}: {percent(spot.quality)}% at {short(spot.cost)}{unit}" for spot in known) + "."
    keys = [key(spot.model, hue_of(spot.model), _SHAPES.get(spot.model, "circle")) for spot in known]
    return figure(title, canvas(226, parts), says=says, legend=keys)


def reliability_chart(model: str, bins: Sequence[Bin], *, error: float | None, several: bool = False) -> Markup | None:
    """How often a model is right by how sure it is, against a model that would be as often right as it says.

    error: expected calibration error. several: of labels, the probability of one.
    """
    filled = [one for one in bins if one.count > 0]
    if not filled:
        return None
    x, y = Scale(0, 1, 38, 266), Scale(0, 1, 232, 22)
    total = sum(one.count for one in filled)
    y_name = "how often it holds" if several else "how often it is right"
    parts = [axes(x, y, x_name="how probable it says it is", y_name=y_name)]
    parts.append(tag("line", {"class": "ideal", "x1": x.at(0), "y1": y.at(0), "x2": x.at(1), "y2": y.at(1)}))
    for one in filled:
        words = (
            f"says {percent(one.confidence)}%, holds {percent(one.frequency)}% of {one.count:,} "
            f"({one.low:.2f} to {one.high:.2f})"
        )
        place, level = x.at(one.confidence), y.at(one.frequency)
        gap = tag("line", {"class": "gap", "x1": place, "x2": place, "y1": y.at(one.confidence), "y2": level})
        radius = 2.5 + 8 * math.sqrt(one.count / total)
        dot = tag("circle", {"class": "dot soft", "cx": place, "cy": level, "r": radius})
        parts.append(tag("g", {"class": f"mark {hue_of(model)}"}, tip(words), gap, dot))
    told = "" if error is None or not math.isfinite(error) else f"calibration error {percent(error)}%"
    says = f"{len(filled)} bins of {total:,} predictions; {told or 'calibration error not known'}."
    return figure(model, canvas(270, parts, width=280), says=says, caption=told)


def share_chart(title: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> Markup | None:
    """One bar a row, cut by shares that sum to one: (name, ((part, share), ...))."""
    if not rows:
        return None
    x = Scale(0, 1, 84, 350)
    parts, told, names = [], [], [name for name, _ in rows[0][1]]
    for place, (row, shares) in enumerate(rows):
        start, y = 0.0, 10 + 26 * place
        parts.append(text(78, y + 13, row, "end"))
        for part, share in shares:
            if share > 0:
                left, right = x.at(start), x.at(start + share)
                box: Attributes = {"class": "box", "x": left, "y": y, "width": right - left, "height": 18}
                words = tip(f"{row}: {part} {share:.1%}")
                parts.append(tag("g", {"class": f"mark {hue(names.index(part))}"}, words, tag("rect", box)))
            start += share
        told.append(f"{row}: " + ", ".join(f"{part} {share:.0%}" for part, share in shares if share >= 0.005))
    used = [name for name in names if any(dict(shares).get(name, 0) > 0 for _, shares in rows)]
    keys = [key(name, hue(names.index(name)), "box") for name in used]
    return figure(title, canvas(14 + 26 * len(rows), parts), says="; ".join(told) + ".", legend=keys)


def _bounds(one: Interval) -> tuple[float, float]:
    known = math.isfinite(one.low) and math.isfinite(one.high)
    return (one.low, one.high) if known else (one.difference, one.difference)


def _is_better(one: Interval) -> bool:
    return _bounds(one)[0] > 0


def _is_worse(one: Interval) -> bool:
    return _bounds(one)[1] < 0


def _reach(spot: Spot) -> tuple[float, float]:
    spread = spot.spread if spot.spread is not None and math.isfinite(spot.spread) else 0.0
    return spot.quality - spread, spot.quality + spread


def _shape(model: str, x: float, y: float) -> Markup:
    """Each model has a shape of its own, so that colour is never all that tells them apart."""
    kind = _SHAPES.get(model, "circle")
    if kind == "square":
        return tag("rect", {"class": "dot", "x": x - 5, "y": y - 5, "width": 10, "height": 10})
    if kind == "circle":
        return tag("circle", {"class": "dot", "cx": x, "cy": y, "r": 5.5})
    corners = {"diamond": ((0, -7), (7, 0), (0, 7), (-7, 0)), "triangle": ((0, -7), (7, 5), (-7, 5))}[kind]
    points = " ".join(f"{number(x + dx)},{number(y + dy)}" for dx, dy in corners)
    return tag("polygon", {"class": "dot", "points": points})
