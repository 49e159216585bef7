"""What all plots share: the frame with its axes, the figure around it, colours by name, and the reading of points."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from distill.page.html import Child, Markup, data, join, number, tag
from distill.page.scale import Scale, short

WIDTH = 360
# Names of classes in page.css, never text from outside.
_MODELS = ("teacher", "plain", "initialized", "transferred")
_HUES = 8
GREY = "hue-rest"


def hue_of(model: str) -> str:
    """The class of a model's colour."""
    return f"hue-{model}" if model in _MODELS else "hue-other"


def hue(place: int) -> str:
    """The class of the colour of the `place`-th of several things; grey when the colours are used up."""
    return f"hue-{place}" if place < _HUES else GREY


def figure(
    title: str,
    svg: Markup,
    *,
    says: str,
    caption: str = "",
    points: Mapping[str, Any] | None = None,
    legend: Child = (),
) -> Markup:
    """A plot under its title.

    says: what a screen reader says of it. points: of curves, for the script that reads values off them.
    """
    plot = {"class": "plot", "tabindex": "0", "role": "group", "aria-label": f"{title}. {says}"}
    return tag(
        "figure",
        {"class": "chart"},
        tag("figcaption", None, title),
        tag("div", plot, svg, () if points is None else data(points)),
        tag("ul", {"class": "legend"}, legend) if legend else (),
        tag("p", {"class": "caption"}, caption) if caption else (),
    )


def canvas(height: float, *children: Child, width: float = WIDTH) -> Markup:
    """The drawing itself; the group around it speaks for it."""
    view = f"0 0 {number(width)} {number(height)}"
    return tag("svg", {"viewBox": view, "aria-hidden": "true", "focusable": "false"}, *children)


def key(name: str, colour: str, shape: str = "line") -> Markup:
    """One entry of a legend. shape: "line", "box", or that of the mark."""
    return tag("li", None, tag("span", {"class": f"key {shape} {colour}"}), name)


def axes(
    x: Scale,
    y: Scale,
    *,
    x_name: str,
    y_name: str,
    x_text: Callable[[float], str] = short,
    y_text: Callable[[float], str] = short,
) -> Markup:
    """Grid lines at round values of y, ticks at those of x, and both names."""
    left, right, bottom, top = x.start, x.end, y.start, y.end
    parts = []
    for value in y.ticks():
        place = y.at(value)
        parts.append(tag("line", {"class": "grid", "x1": left, "x2": right, "y1": place, "y2": place}))
        parts.append(text(left - 6, place + 3.5, y_text(value), "end"))
    for value in x.ticks(4):
        place = x.at(value)
        parts.append(tag("line", {"class": "axis", "x1": place, "x2": place, "y1": bottom, "y2": bottom + 4}))
        parts.append(text(place, bottom + 16, x_text(value), "middle"))
    parts.append(tag("line", {"class": "axis", "x1": left, "x2": right, "y1": bottom, "y2": bottom}))
    parts.append(text((left + right) / 2, bottom + 31, x_name, "middle", "name"))
    parts.append(text(0, top - 8, y_name, "start", "name"))
    return join(parts)


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> Markup:
    """Text in a plot, at its baseline."""
    return tag("text", {"x": x, "y": y, "text-anchor": anchor, "class": kind or None}, words)


def tip(words: str) -> Markup:
    """What is said of a mark when it is pointed at; without a script the browser shows it."""
    return tag("title", None, words)


def shorten(name: str, most: int) -> str:
    """A long name without its middle: the ends tell names of layers apart."""
    if len(name) <= most:
        return name
    head = (most - 1) // 3
    return f"{name[:head]}…{name[-(most - 1 - head) :]}"


def path(xs: Sequence[float], ys: Sequence[float]) -> str:
    """A line through points, as relative steps, which are shorter to write."""
    tenths = [(round(10 * x), round(10 * y)) for x, y in zip(xs, ys, strict=True)]
    words = [f"M{number(tenths[0][0] / 10)} {number(tenths[0][1] / 10)}l"]
    for (x0, y0), (x1, y1) in pairwise(tenths):
        words.append(f"{number((x1 - x0) / 10)} {number((y1 - y0) / 10)}")
    return " ".join(words).replace("l ", "l") if len(tenths) > 1 else words[0].rstrip("l") + "h.1"
