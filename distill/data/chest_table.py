"""Tables of chest radiographs: what is known of each image, read from a CSV in the columns of ChestX-ray14."""

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from distill.data.chest_csv import check_names, read_rows
from distill.data.chest_labels import FINDINGS, joined_values, label_columns, quoted, value
from distill.data.folders import inside
from distill.messages import nearest

TABLES = (
    "Data_Entry_2017_v2020.csv",
    "Data_Entry_2017.csv",
    "Data_Entry_2017_v2020.csv.gz",
    "Data_Entry_2017.csv.gz",
)

_IMAGE, _FINDINGS, _PATIENT = "Image Index", "Finding Labels", "Patient ID"
_FOLLOW_UP, _AGE, _SEX, _VIEW = "Follow-up #", "Patient Age", "Patient Gender", "View Position"
_OTHER_NAMES = {"patient sex": "patient gender"}
_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F", "unknown": ""}
_OLDEST = 120  # years; the release of 2017 has people of 414
_YEARS = {"": 1, "Y": 1, "M": 12, "D": 365}
_AGES = re.compile(r"([0-9]{1,6})(?:\.0)?([YMD]?)")

Cell = TypeVar("Cell", bound=Hashable)


@dataclass(frozen=True, eq=False)
class ChestTable:
    """What a table says of N images.

    names: of the image files. labels: float32 (N, K), 1, 0, or NaN where unknown.
    patient, follow_up, age: int64 (N,); an age in whole years, -1 where unknown.
    sex, view: of each image, "" where unknown.
    notes: what was counted and a reader of the results should know.
    """

    path: Path
    names: tuple[str, ...]
    labels: Tensor
    patient: Tensor
    follow_up: Tensor
    age: Tensor
    sex: tuple[str, ...]
    view: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find_table(root: Path, name: str | None) -> Path:
    """The table of that name in the folder; where none is named, the first of the official ones that is there.

    Raises:
        ValueError: there is none, or it leads out of the folder.
    """
    for candidate in TABLES if name is None else (name,):
        path = inside(root, root / candidate)
        if path.is_file():
            return path
    found = sorted(entry.name for entry in root.iterdir() if entry.name.lower().endswith((".csv", ".csv.gz")))
    if name is not None:
        raise ValueError(f"{root} has no table {name!r}. Nearest: {nearest(name, found)}.")
    raise ValueError(f"{root} has none of {', '.join(TABLES)}. Name its table with data.table: {nearest('', found)}.")


def read_chest_table(path: Path, labels: Sequence[str] = FINDINGS) -> ChestTable:
    """The table in a CSV file, plain or gzipped; no image is needed.

    Labels stand in one column `Finding Labels`, joined by `|`, or each in a column of its own, as 1, 0, and -1 or
    nothing where unknown. `Image Index` and `Patient ID` are needed; follow-up, age, sex and view are read where they
    are there, and other columns are passed over.

    Raises:
        ValueError: a row that can't be read, an image that stands there twice or whose name leads out of its folder, or
            a label that is not known; with its line.
    """
    rows = read_rows(path)
    _, header = next(rows)
    records = list(rows)
    if not records:
        raise ValueError(f"{path} has no rows below its header.")

    def column(name: str) -> list[str]:
        place = _place(path, header, name)
        return [""] * len(records) if place is None else [fields[place].strip() for _, fields in records]

    def where(row: int) -> str:
        return f"{path}, line {records[row][0]}"

    for needed in (_IMAGE, _PATIENT):
        if _place(path, header, needed) is None:
            raise ValueError(f"{path} has no column {needed!r}. Nearest: {nearest(needed, header)}.")
    names = column(_IMAGE)
    check_names(names, where)
    values = _labels(
        path, header, [fields for _, fields in records], labels, lambda row: f"{where(row)}, image {quoted(names[row])}"
    )
    age = _each(column(_AGE), _age, where)
    counts = (
        (int((age > _OLDEST).sum()), f"have ages above {_OLDEST} years, which are taken as unknown"),
        (int(values.isnan().all(1).sum()), "have no label that is known"),
    )
    return ChestTable(
        path=path,
        names=tuple(names),
        labels=values,
        patient=_patients(column(_PATIENT), where),
        follow_up=_each(column(_FOLLOW_UP), _whole, where),
        age=age.where(age <= _OLDEST, -1),
        sex=tuple(_SEXES.get(text.casefold(), text) for text in column(_SEX)),
        view=tuple(column(_VIEW)),
        notes=tuple(f"{count:,} images {what}." for count, what in counts if count),
    )


def _place(path: Path, header: Sequence[str], name: str) -> int | None:
    """The column of that name; None where there is none."""
    names = [_OTHER_NAMES.get(field, field) for field in (field.strip().casefold() for field in header)]
    count = names.count(name.casefold())
    if count > 1:
        raise ValueError(f"{path} has {count} columns {name!r}. Keep one.")
    return names.index(name.casefold()) if count else None


def _labels(
    path: Path,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    labels: Sequence[str],
    where: Callable[[int], str],
) -> Tensor:
    """The labels' values in each row, float32 (N, K)."""
    place = _place(path, header, _FINDINGS)
    if place is not None:
        return _each([fields[place] for fields in rows], lambda text: joined_values(text, labels), where).float()
    try:
        places = label_columns(header, labels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    cells = [tuple(fields[place] for place in places) for fields in rows]
    return _each(cells, lambda texts: tuple(map(value, texts, labels)), where).float()


def _each(cells: Sequence[Cell], read: Callable[[Cell], object], where: Callable[[int], str]) -> Tensor:
    """The numbers that `read` makes of each cell. Few are different: the official labels have 836 combinations."""
    numbers = {cell: number for number, cell in enumerate(dict.fromkeys(cells))}
    values = []
    for cell in numbers:
        try:
            values.append(read(cell))
        except ValueError as error:
            raise ValueError(f"{where(cells.index(cell))}: {error}") from None
    return torch.tensor(values)[torch.tensor([numbers[cell] for cell in cells])]


def _age(text: str) -> int:
    """Whole years out of `58`, `058Y`, `013M` or `005D`; -1 out of nothing."""
    if text in ("", "-1"):
        return -1
    match = _AGES.fullmatch(text)
    if match is None:
        raise ValueError(f"{quoted(text)} is no age. Write it as 58, 058Y, 013M or 005D, or leave it empty.")
    return int(match[1]) // _YEARS[match[2]]


def _whole(text: str) -> int:
    """A whole number; 0 out of nothing."""
    if not text:
        return 0
    match = re.fullmatch(r"([0-9]{1,9})(?:\.0)?", text)
    if match is None:
        raise ValueError(f"{quoted(text)} is no whole number.")
    return int(match[1])


def _patients(texts: Sequence[str], where: Callable[[int], str]) -> Tensor:
    """A number for each patient: the one that is written, or else their places in alphabetical order."""
    different = sorted(set(texts))
    if "" in different:
        raise ValueError(f"{where(texts.index(''))}: no {_PATIENT}, but the sets are cut by patient. Fill it in.")
    if all(text.isascii() and text.isdecimal() and len(text) <= 18 for text in different):
        return _each(texts, int, where)
    numbers = {text: number for number, text in enumerate(different)}
    return _each(texts, numbers.__getitem__, where)
