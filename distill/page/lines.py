"""Curves over steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distill.page.figure import axes, canvas, figure, key, path
from distill.page.html import Markup, tag
from distill.page.scale import Curve, short, spanning

_LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 46, 350, 22, 190, 226
_NAMED = 9


@dataclass(frozen=True)
class Line:
    """One curve. colour: a class. faint: drawn thinner, behind the others, and not named in the legend."""

    name: str
    colour: str
    curve: Curve
    faint: bool = False


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    y_name: str,
    x_name: str = "step",
    caption: str = "",
    y_text: Callable[[float], str] = short,
    percent: bool = False,
    legend: bool = True,
) -> Markup | None:
    """A plot of curves that share both axes; None where no curve has a point.

    percent: values are shares, and read as such.
    """
    drawn = sorted((line for line in lines if line.curve.x), key=lambda line: not line.faint)
    if not drawn:
        return None
    x = spanning([value for line in drawn for value in (line.curve.x[0], line.curve.x[-1])], _LEFT, _RIGHT, room=0)
    y = spanning([value for line in drawn for value in line.curve.y], _BOTTOM, _TOP)
    frame = axes(x, y, x_name=x_name, y_name=y_name, y_text=y_text)
    curves = []
    for line in drawn:
        xs, ys = [x.at(value) for value in line.curve.x], [y.at(value) for value in line.curve.y]
        kind = f"curve {line.colour}{' faint' if line.faint else ''}"
        curves.append(tag("path", {"class": kind, "d": path(xs, ys)}))
    named = [line for line in lines if not line.faint and line.curve.x]
    ends = "; ".join(f"{line.name}: {y_text(line.curve.y[0])} to {y_text(line.curve.y[-1])}" for line in named[:_NAMED])
    more = f"; and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    points = {
        "x": [x.low, x.high, x.start, x.end],
        "y": [y.low, y.high, y.start, y.end],
        "unit": "%" if percent else "",
        "lines": [
            {
                "name": line.name,
                "colour": line.colour,
                "x": [_digits(value) for value in line.curve.x],
                "y": [_digits(100 * value if percent else value) for value in line.curve.y],
            }
            for line in drawn
        ],
    }
    keys = [key(line.name, line.colour) for line in named] if legend and len(named) > 1 else ()
    return figure(
        title,
        canvas(_HEIGHT, frame, curves),
        says=f"Curves over {x_name}: {ends}{more}.",
        caption=caption,
        points=points,
        legend=keys,
    )


def _digits(value: float) -> float | int:
    found = float(f"{value:.5g}")
    return int(found) if found == int(found) else found
