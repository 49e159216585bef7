"""Tables that can be sorted: what a cell shows, and the number that it is sorted by."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from distill.page.html import Child, Markup, join, tag
from distill.report.statistics import Interval
from distill.report.units import points

MISSING = "-"
# Text in more characters may be broken into lines.
_SHORT = 40
_NUMBER = re.compile(r"^[+-]?[\d.,]+($|[\s%±(])")


class Cell(NamedTuple):
    """What a cell shows, and the number it is sorted by; None where it is sorted by its text."""

    shows: Child
    value: float | None = None


def table(
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[Cell | str]],
    *,
    caption: str = "",
    sortable: bool = True,
    highlight: int | None = None,
) -> Markup:
    """A table whose first column names its rows.

    title: what it is called by a screen reader. highlight: the row that matters most.
    """
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    right = [_is_number([row[place] for row in cells]) for place in range(len(head))]
    top = [
        tag("th", {"scope": "col", "class": "number" if place and right[place] else None}, name)
        for place, name in enumerate(head)
    ]
    body = [
        tag("tr", {"class": "main" if place == highlight else None}, _row(row, right))
        for place, row in enumerate(cells)
    ]
    whole = tag(
        "table",
        {"class": "sortable" if sortable and len(rows) > 1 else None},
        tag("caption", {"class": "unseen"}, title),
        tag("thead", None, tag("tr", None, top)),
        tag("tbody", None, body),
    )
    box = tag("div", {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": f"Table: {title}"}, whole)
    return join([box, tag("p", {"class": "caption"}, caption) if caption else ()])


def share(value: float, decimals: int = 2) -> Cell:
    """A share in [0, 1] as a percentage; a dash where it is not known."""
    return Cell(f"{100 * value:.{decimals}f}", value) if math.isfinite(value) else Cell(MISSING)


def quantity(value: float | None, shows: str) -> Cell:
    """A number in words of its own; a dash where it is not known."""
    return Cell(MISSING) if value is None or not math.isfinite(value) else Cell(shows, value)


def gain(interval: Interval | None) -> Cell:
    """A difference of shares in points with its interval; a dash where it is not known."""
    if interval is None or not math.isfinite(interval.difference):
        return Cell(MISSING)
    return Cell(gain_text(interval), interval.difference)


def gain_text(interval: Interval) -> str:
    """The same as text; without bounds where they are not known."""
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return points(interval.difference)
    return f"{points(interval.difference)} ({points(interval.low)} to {points(interval.high)})"


def _row(row: Sequence[Cell], right: Sequence[bool]) -> Iterator[Markup]:
    for place, cell in enumerate(row):
        value = None if cell.value is None or not math.isfinite(cell.value) else f"{cell.value:.8g}"
        if place == 0:
            yield tag("th", {"scope": "row", "data-value": value}, cell.shows)
        else:
            kind = "number" if right[place] else "long" if len(str(cell.shows)) > _SHORT else None
            yield tag("td", {"class": kind, "data-value": value}, cell.shows)


def _is_number(column: Sequence[Cell]) -> bool:
    shown = [cell for cell in column if cell.shows not in (MISSING, "")]
    return all(cell.value is not None or _NUMBER.match(str(cell.shows)) for cell in shown)
