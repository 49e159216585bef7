"""What a run logged while it trained, as curves thin enough for a page."""

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distill.page.scale import Curve, thin

FILE = "metrics.jsonl"


@dataclass(frozen=True)
class History:
    """One trained student over its steps.

    raw, weighted: of each term of the plan, as its loss gives it and as it counts. validation: of each metric.
    others: learning rate, gradient norm and examples a second, as far as they were logged.
    """

    arm: str
    seed: int
    raw: Mapping[str, Curve]
    weighted: Mapping[str, Curve]
    validation: Mapping[str, Curve]
    others: Mapping[str, Curve]


@dataclass
class _Points:
    x: "array[float]" = field(default_factory=lambda: array("d"))
    y: "array[float]" = field(default_factory=lambda: array("d"))


_GROUPS = ("raw", "weighted", "validation", "start")
_SINGLE = ("learning_rate", "gradient_norm", "examples_per_second")


def read_history(folder: Path, arm: str, seed: int, *, most: int = 200) -> History:
    """The curves in a folder's log, each in at most `most` points; a last line that a crash cut off is left out.

    Raises:
        ValueError: the log is missing or damaged; names the file and the line.
    """
    path = folder / FILE
    points: dict[tuple[str, str], _Points] = {}
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith("\n"):
                    _add(points, line, f"{path}, line {number}")
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: it is no text.") from error
    found: dict[str, dict[str, Curve]] = {group: {} for group in (*_GROUPS, "")}
    for (group, name), one in points.items():
        found["validation" if group == "start" else group][name] = thin(one.x, one.y, most)
    return History(arm, seed, found["raw"], found["weighted"], found["validation"], found[""])


def _add(points: dict[tuple[str, str], _Points], line: str, where: str) -> None:
    try:
        values = json.loads(line)
        step = float(values["step"])
        for group in _GROUPS:
            for name, value in values.get(group, {}).items():
                _point(points, ("validation" if group == "start" else group, name), step, value)
        for name in _SINGLE:
            if name in values:
                _point(points, ("", name), step, values[name])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{where} is damaged: not a line of a run's log.") from error


def _point(points: dict[tuple[str, str], _Points], key: tuple[str, str], step: float, value: object) -> None:
    if not isinstance(value, int | float):
        raise TypeError(key)
    one = points.setdefault(key, _Points())
    one.x.append(step)
    one.y.append(float(value))
