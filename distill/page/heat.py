"""How alike layers are, as a heat map."""

import math
from collections.abc import Sequence

from distill.page.figure import WIDTH, canvas, figure, shorten, text, tip
from distill.page.html import Attributes, Markup, tag

_LEFT, _MOST, _NAME = 112, 32, 16
# Blue to yellow, as far apart in lightness as in hue, so that it is told apart without colours (after cividis).
_STOPS = ((0, 32, 77), (61, 78, 109), (124, 123, 120), (187, 174, 110), (255, 234, 70))


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    marked: frozenset[tuple[str, str]] = frozenset(),
) -> Markup | None:
    """Values in [0, 1] as cells; of more than 32 rows or columns, evenly chosen ones.

    marked: pairs of a row and a column that are outlined.
    """
    if not rows or not columns:
        return None
    chosen_rows, chosen_columns = _chosen(len(rows)), _chosen(len(columns))
    side = min((WIDTH - _LEFT - 4) / len(chosen_columns), 34.0)
    high = min(max(side, 14.0), 26.0)
    top = 8.0
    parts, outlines = [], []
    for row, at_row in enumerate(chosen_rows):
        y = top + high * row
        parts.append(text(_LEFT - 6, y + high / 2 + 3.5, shorten(rows[at_row], 18), "end"))
        for column, at_column in enumerate(chosen_columns):
            value = values[at_row][at_column]
            x = _LEFT + side * column
            box: Attributes = {"x": x, "y": y, "width": side - 0.5, "height": high - 0.5}
            known = math.isfinite(value)
            words = f"{rows[at_row]} and {columns[at_column]}: {f'{value:.3f}' if known else 'not known'}"
            cell = [tip(words), tag("rect", {**box, "fill": _colour(value) if known else "none"})]
            if side >= 24 and known:
                ink = "#fff" if value < 0.55 else "#000"
                spot: Attributes = {"x": x + side / 2, "y": y + high / 2 + 3, "text-anchor": "middle"}
                cell.append(tag("text", {**spot, "class": "small", "fill": ink}, f"{100 * value:.0f}"))
            parts.append(tag("g", {"class": "mark cell"}, cell))
            if (rows[at_row], columns[at_column]) in marked:
                inner: Attributes = {"x": x + 1, "y": y + 1, "width": side - 2.5, "height": high - 2.5}
                outlines.append(tag("rect", {"class": "outline", **inner}))
    bottom = top + high * len(chosen_rows)
    for column, at_column in enumerate(chosen_columns):
        x, y = _LEFT + side * (column + 0.5) + 3, bottom + 6
        turned: Attributes = {"transform": f"translate({x:.1f} {y:.1f}) rotate(-90)", "text-anchor": "end"}
        parts.append(tag("text", turned, shorten(columns[at_column], _NAME)))
    found = [value for row in values for value in row if math.isfinite(value)]
    says = f"{len(rows)} layers of the student in rows, {len(columns)} of the teacher in columns"
    says += f"; from {min(found):.2f} to {max(found):.2f}." if found else "."
    deepest = max(len(shorten(columns[place], _NAME)) for place in chosen_columns)
    left_out = len(chosen_rows) < len(rows) or len(chosen_columns) < len(columns)
    caption = f"Evenly chosen from {len(rows)} x {len(columns)}; compare.json has all." if left_out else ""
    return figure(title, canvas(bottom + 16 + 6.5 * deepest, parts, outlines), says=says, caption=caption)


def scale_bar() -> Markup:
    """What the colours mean."""
    cells = [
        tag("rect", {"x": 10 * n, "y": 0, "width": 10.5, "height": 10, "fill": _colour(n / 20)}) for n in range(21)
    ]
    drawing = tag("svg", {"viewBox": "0 0 210 10", "aria-hidden": "true", "class": "ramp"}, cells)
    return tag("p", {"class": "ramp"}, tag("span", None, "0"), drawing, tag("span", None, "1, alike"))


def _chosen(count: int) -> list[int]:
    if count <= _MOST:
        return list(range(count))
    return [round(place * (count - 1) / (_MOST - 1)) for place in range(_MOST)]


def _colour(value: float) -> str:
    place = min(max(value, 0.0), 1.0) * (len(_STOPS) - 1)
    at = min(int(place), len(_STOPS) - 2)
    mixed = (round(a + (b - a) * (place - at)) for a, b in zip(_STOPS[at], _STOPS[at + 1], strict=True))
    return "#" + "".join(f"{one:02x}" for one in mixed)
