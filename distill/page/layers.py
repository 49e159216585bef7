"""Which layer of the student learns from which of the teacher, as a map of arrows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distill.page.figure import WIDTH, canvas, figure, hue, key, shorten, text, tip
from distill.page.html import Markup, tag

_ROW, _LEFT, _RIGHT = 22, 138, 222
LABELS = "labels"


@dataclass(frozen=True)
class Pull:
    """One term: the student's taps, and the teacher's or none where it learns from the labels.

    chosen: how the layers were chosen, where the recipe leaves that to the run.
    """

    term: str
    weight: str
    loss: str
    student: tuple[str, ...]
    teacher: tuple[str, ...]
    head: str
    chosen: str = ""


def layer_map(pulls: Sequence[Pull]) -> Markup | None:
    """The student's taps on the left, the teacher's on the right, in the order of the plan; an arrow a pair."""
    if not pulls:
        return None
    left = list(dict.fromkeys(tap for pull in pulls for tap in pull.student))
    right = list(dict.fromkeys(tap for pull in pulls for tap in pull.teacher or (LABELS,)))
    height = 34 + _ROW * max(len(left), len(right))
    parts = [
        text(_LEFT - 8, 14, "student", "end", "name"),
        text(_RIGHT + 8, 14, "teacher", "start", "name"),
        *_names(left, _LEFT - 8, "end"),
        *_names(right, _RIGHT + 8, "start"),
    ]
    ends: dict[str, int] = {}
    for place, pull in enumerate(pulls):
        for start, end in _pairs(pull):
            y0 = _level(right.index(end))
            # Heads that meet at one tap stand a little apart.
            ends[start] = ends.get(start, -1) + 1
            y1 = _level(left.index(start)) + 5 * ((ends[start] + 1) // 2) * (1 if ends[start] % 2 else -1)
            bend = (_LEFT + _RIGHT) / 2
            line = f"M{_RIGHT} {y0}C{bend} {y0} {bend} {y1} {_LEFT + 6} {y1}"
            head = f"{_LEFT},{y1} {_LEFT + 8},{y1 - 4} {_LEFT + 8},{y1 + 4}"
            words = tip(f"{pull.term}: {pull.loss}, {end} to {start}, weight {pull.weight}")
            drawn = [tag("path", {"class": "arrow", "d": line}), tag("polygon", {"class": "tip", "points": head})]
            parts.append(tag("g", {"class": f"mark {hue(place)}"}, words, drawn))
    told = "; ".join(
        f"{pull.term} from {' and '.join(pull.teacher or (LABELS,))} to {' and '.join(pull.student)}" for pull in pulls
    )
    keys = [key(pull.term, hue(place)) for place, pull in enumerate(pulls)]
    return figure("What learns from what", canvas(height, parts, width=WIDTH), says=f"{told}.", legend=keys)


def _pairs(pull: Pull) -> Iterator[tuple[str, str]]:
    """Taps that meet one to one; where one side has fewer, each of the other meets them all."""
    teacher = pull.teacher or (LABELS,)
    if len(teacher) == len(pull.student):
        yield from zip(pull.student, teacher, strict=True)
    else:
        yield from ((start, end) for start in pull.student for end in teacher)


def _names(taps: Sequence[str], x: float, anchor: str) -> Iterator[Markup]:
    for place, tap in enumerate(taps):
        yield tag("g", {"class": "mark"}, tip(tap), text(x, _level(place) + 3.5, shorten(tap, 20), anchor))


def _level(place: int) -> float:
    return 22 + _ROW * (place + 0.5)
