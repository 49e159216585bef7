"""Labels of chest radiographs: their names in every known spelling, and the values that a table gives them."""

import re
from collections.abc import Sequence

from distill.messages import nearest

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
NO_FINDING = "No Finding"

_SPELLINGS = {
    "infiltrate": "infiltration",
    "infiltrates": "infiltration",
    "pleuraleffusion": "effusion",
    "nofindings": "nofinding",
}
_BETWEEN_WORDS = re.compile(r"[\s_-]+")
_UNKNOWN = float("nan")
_VALUES = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": _UNKNOWN, "-1.0": _UNKNOWN, "": _UNKNOWN}


def quoted(text: str) -> str:
    """A text out of a file, for messages: on one line, in quotation marks, and cut where it is long."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def canonical(name: str) -> str:
    """The same for all spellings of a label: case, spaces, hyphens and underscores play no part."""
    key = _BETWEEN_WORDS.sub("", name).casefold()
    return _SPELLINGS.get(key, key)


def places(labels: Sequence[str]) -> dict[str, int | None]:
    """The place in `labels` of each known label by its canonical spelling; None of a finding that is not among them."""
    known: dict[str, int | None] = {canonical(name): None for name in (*FINDINGS, NO_FINDING)}
    return known | {canonical(name): place for place, name in enumerate(labels)}


def unknown_label(name: str, labels: Sequence[str]) -> str:
    """What to say of a label that is not known."""
    near = nearest(name[:80], dict.fromkeys((*labels, *FINDINGS, NO_FINDING)))
    return f"label {quoted(name)} is not known. Nearest: {near}. Where it is meant, add it to data.labels."


def joined_values(text: str, labels: Sequence[str]) -> tuple[float, ...]:
    """The values of `labels` in a field of names joined by `|`: 1 or 0, and NaN of all where it is empty or -1.

    Raises:
        ValueError: a label that is not known, or `No Finding` beside another.
    """
    names = [name for part in text.split("|") if (name := part.strip())]
    if not names or names == ["-1"]:
        return (_UNKNOWN,) * len(labels)
    place_of = places(labels)
    found: dict[str, int | None] = {}
    for name in names:
        if canonical(name) not in place_of:
            raise ValueError(unknown_label(name, labels))
        found[canonical(name)] = place_of[canonical(name)]
    if canonical(NO_FINDING) in found and len(found) > 1:
        raise ValueError(f"{quoted(text)} has {NO_FINDING!r} beside a finding. Keep the one that is true.")
    present = set(found.values())
    return tuple(float(place in present) for place in range(len(labels)))


def label_columns(header: Sequence[str], labels: Sequence[str]) -> tuple[int, ...]:
    """The column of each label in a table that has one for each.

    Raises:
        ValueError: a label has no column, or several.
    """
    keys = [canonical(name) for name in header]
    for label in labels:
        count = keys.count(canonical(label))
        if count != 1:
            raise ValueError(
                f"{count or 'no'} columns are of label {label!r}, and there is no column 'Finding Labels'. Nearest: "
                f"{nearest(label, header)}."
            )
    return tuple(keys.index(canonical(label)) for label in labels)


def value(text: str, label: str) -> float:
    """1, 0, or NaN out of a label's own column.

    Raises:
        ValueError: another text.
    """
    if text.strip() not in _VALUES:
        raise ValueError(f"{quoted(text)} of label {label!r} is none of 1, 0, and -1 or nothing where unknown.")
    return _VALUES[text.strip()]
