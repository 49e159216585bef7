"""Which chest radiographs of a table are kept, and the groups of people and of views that they fall into."""

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.data.cases import UNKNOWN
from distill.data.chest_labels import quoted
from distill.data.chest_table import ChestTable


def filtered_rows(
    table: ChestTable,
    *,
    views: tuple[str, ...] = (),
    ages: tuple[int, int] | None = None,
    sex: str | None = None,
    one_image_per_patient: bool = False,
) -> tuple[Tensor, tuple[str, ...]]:
    """The rows that the filters keep, ascending, and a note on each filter that is on.

    Raises:
        ValueError: a filter that leaves no image; what the table has instead is named.
    """
    filters = []
    if views:
        filters.append((f"views={views}", _among(table.view, views), f"views {_values(table.view)}"))
    if ages is not None:
        known = table.age[table.age >= 0]
        there = f"ages {int(known.min())} to {int(known.max())}" if len(known) else "no ages"
        filters.append((f"ages={ages}", (table.age >= ages[0]) & (table.age <= ages[1]), there))
    if sex is not None:
        filters.append((f"sex={sex!r}", _among(table.sex, (sex,)), f"sexes {_values(table.sex)}"))
    keep = torch.ones(len(table.names), dtype=torch.bool)
    notes: tuple[str, ...] = ()
    for setting, which, has in filters:
        if not bool((keep & which).any()):
            raise ValueError(f"ChestXray.{setting} leaves no image of {table.path}, which has {has}.")
        notes += (_note(setting, keep, keep & which),)
        keep &= which
    if one_image_per_patient:
        first = _first_of_patient(table, keep)
        notes += (_note("one_image_per_patient=True", keep, first),)
        keep = first
    if notes:
        notes += ("Results on filtered images are not comparable with published ones, which are on all images.",)
    return keep.nonzero().flatten(), notes


def groups(table: ChestTable) -> dict[str, tuple[str, ...]]:
    """Each image's sex, its age in bands of 20 years, and its view; without those that are unknown of all images."""
    found = {"sex": table.sex, "age": tuple(_band(age) for age in table.age.tolist()), "view": table.view}
    return {name: values for name, values in found.items() if set(values) != {UNKNOWN}}


def _note(setting: str, before: Tensor, after: Tensor) -> str:
    return f"{setting} keeps {int(after.sum()):,} of {int(before.sum()):,} images."


def _among(values: Sequence[str], wanted: Sequence[str]) -> Tensor:
    return torch.tensor([value in wanted for value in values])


def _values(values: Sequence[str]) -> str:
    return ", ".join(quoted(value) for value in sorted(set(values) - {UNKNOWN})[:10]) or "unknown"


def _first_of_patient(table: ChestTable, keep: Tensor) -> Tensor:
    """Of the rows that are kept, each patient's first by follow-up and then by name, bool (N,)."""
    follow_up, patient = table.follow_up.tolist(), table.patient.tolist()
    rows = sorted(keep.nonzero().flatten().tolist(), key=lambda row: (follow_up[row], table.names[row]), reverse=True)
    # Later ones overwrite: the first comes last.
    first = torch.zeros_like(keep)
    first[list({patient[row]: row for row in rows}.values())] = True
    return first


def _band(age: int) -> str:
    if age < 0:
        return UNKNOWN
    low = min(age // 20 * 20, 80)
    return "80+" if low == 80 else f"{low}-{low + 19}"
