"""What lies beside a table of chest radiographs: images, the official lists of the splits, and boxes of findings."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from distill.data.cases import Box
from distill.data.chest_csv import check_names, read_lines, read_rows
from distill.data.chest_labels import canonical, places, quoted, unknown_label
from distill.data.chest_table import ChestTable
from distill.data.folders import inside
from distill.data.images import image_names, image_size

TRAIN_LIST, TEST_LIST, BOX_LIST = "train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"
ORIGINAL_SIDE = 1024

_PARTS = re.compile(r"images_[0-9]{3}")


def image_paths(root: Path, table: ChestTable, rows: Tensor) -> tuple[dict[int, str], tuple[str, ...]]:
    """Where the image of each of the rows lies under `root`, and a note on images that the table does not have.

    Raises:
        ValueError: an image that is missing, or that lies in two folders.
    """
    found = image_files(root)
    path_of = {row: found[name] for row in rows.tolist() if (name := table.names[row]) in found}
    missing = [table.names[row] for row in rows.tolist() if row not in path_of]
    if missing:
        raise ValueError(
            f"{len(missing):,} of {len(rows):,} images in {table.path} do not lie in {root}, the first is "
            f"{quoted(missing[0])}. Unpack all images, or take the missing ones out of the table and the lists."
        )
    strangers = len(found.keys() - set(table.names))
    return path_of, (f"{strangers:,} image files are not in {table.path.name}.",) if strangers else ()


def image_files(root: Path) -> dict[str, str]:
    """Where each image lies under `root`, by its name: in `images/`, and in `images_001/images/` and so on.

    Raises:
        ValueError: no such folder, an image that lies in two of them, or a link that leads out of `root`.
    """
    parts = sorted(entry.name for entry in root.iterdir() if _PARTS.fullmatch(entry.name))
    inner = [f"{part}/images" if (root / part / "images").is_dir() else part for part in parts]
    folders = [name for name in ("images", *inner) if (root / name).is_dir()]
    if not folders:
        raise ValueError(f"{root} has neither images/ nor images_001/images/ and so on. Unpack the images there.")
    found: dict[str, str] = {}
    for folder in folders:
        for path in image_names(root, inside(root, root / folder)):
            name = path[len(folder) + 1 :]
            if name in found:
                raise ValueError(
                    f"In {root} image {quoted(name)} lies at {found[name]} and at {path}. Keep one of them."
                )
            found[name] = path
    return found


def official_rows(root: Path, table: ChestTable) -> tuple[Tensor, Tensor]:
    """The table's rows in the official training and validation list, and in the test list; both ascending.

    Raises:
        ValueError: a list is missing; an image is in a list twice, in both, in none, or in a list and not in the table;
            or a patient has images in both.
    """
    row_of = {name: row for row, name in enumerate(table.names)}
    train, test = (_listed(root, name, row_of) for name in (TRAIN_LIST, TEST_LIST))
    _refuse(train & test, table, f"in both {TRAIN_LIST} and {TEST_LIST}. Keep each in one")
    _refuse(
        ~(train | test), table, f"in {table.path.name}, but neither in {TRAIN_LIST} nor in {TEST_LIST}. Add each to one"
    )
    shared = set(table.patient[train].tolist()) & set(table.patient[test].tolist())
    if shared:
        rows_shared = torch.isin(table.patient, torch.tensor(sorted(shared)))
        _refuse(
            rows_shared, table, "of patients with images in both lists. Set data.split='patients' to cut by patient"
        )
    return train.nonzero().flatten(), test.nonzero().flatten()


def _listed(root: Path, name: str, row_of: Mapping[str, int]) -> Tensor:
    """Which rows of the table the images of a list have, bool (N,)."""
    path = inside(root, root / name)
    if not path.is_file():
        raise ValueError(f"{path} is missing, so there is no official split. Set data.split='patients' to cut one.")
    lines, names = read_lines(path)

    def where(entry: int) -> str:
        return f"{path}, line {lines[entry]}"

    check_names(names, where)
    listed = torch.zeros(len(row_of), dtype=torch.bool)
    for entry, image in enumerate(names):
        if image not in row_of:
            raise ValueError(f"{where(entry)}: image {quoted(image)} is not in the table. Remove the line.")
    listed[[row_of[image] for image in names]] = True
    return listed


def _refuse(which: Tensor, table: ChestTable, fault: str) -> None:
    if bool(which.any()):
        first = quoted(table.names[int(which.nonzero()[0])])
        raise ValueError(f"{table.path.parent}: {int(which.sum()):,} images, the first {first}, are {fault}.")


class PixelBox(NamedTuple):
    """A finding in an image, as the list gives it: row of the table, place of the label, and pixels."""

    where: str
    row: int
    label: int
    left: float
    top: float
    width: float
    height: float


def read_boxes(root: Path, table: ChestTable, labels: Sequence[str]) -> tuple[tuple[PixelBox, ...], tuple[str, ...]]:
    """The boxes in BBox_List_2017.csv of the table's images and of these labels, and a note on those of other images.

    There are none where there is no such file.

    The header's names are ragged, so columns go by place: image, finding, then x, y, width and height of the box.

    Raises:
        ValueError: a row without six fields, with an unknown label, or whose box is no box.
    """
    path = inside(root, root / BOX_LIST)
    if not path.is_file():
        return (), ()
    row_of = {name: row for row, name in enumerate(table.names)}
    place_of = places(labels)
    boxes = []
    strangers = 0
    rows = read_rows(path)
    next(rows)
    for line, fields in rows:
        where = f"{path}, line {line}"
        if len(fields) < 6:
            raise ValueError(f"{where}: {len(fields)} fields; expected image, finding, x, y, width, height.")
        name, finding = fields[0].strip(), fields[1].strip()
        if canonical(finding) not in place_of:
            raise ValueError(f"{where}, image {quoted(name)}: {unknown_label(finding, labels)}")
        try:
            left, top, width, height = (float(field) for field in fields[2:6])
        except ValueError:
            raise ValueError(f"{where}: a box is four numbers, got {quoted(','.join(fields[2:6]))}.") from None
        if not all(map(math.isfinite, (left, top, width, height))) or width <= 0 or height <= 0:
            raise ValueError(f"{where}: x, y, width, height = {left}, {top}, {width}, {height} is no box.")
        place = place_of[canonical(finding)]
        if name not in row_of:
            strangers += 1
        elif place is not None:
            boxes.append(PixelBox(where, row_of[name], place, left, top, width, height))
    return tuple(boxes), (f"{strangers:,} boxes are of images that the table does not have.",) if strangers else ()


def in_shares(boxes: Sequence[PixelBox], path_of: Mapping[int, Path]) -> tuple[tuple[Box, ...], tuple[str, ...]]:
    """The boxes of the rows that have a path, as shares of the image's sides, and notes on how they were read.

    A box is in pixels of its image, whose size is read from the file's header; the official ones have 1024 x 1024. But
    where a box does not fit and all boxed images are smaller than that, the images are reduced copies, and all boxes
    are in pixels of the originals. What reaches beyond the image is cut off.

    Raises:
        ValueError: a box that lies beside its image, or an image whose header can't be read.
    """
    boxes = [box for box in boxes if box.row in path_of]
    sizes = {row: image_size(path_of[row]) for row in sorted({box.row for box in boxes})}
    beyond = any(
        box.left + box.width > sizes[box.row][0] + 1 or box.top + box.height > sizes[box.row][1] + 1 for box in boxes
    )
    reduced = beyond and all(max(size) < ORIGINAL_SIDE for size in sizes.values())
    found = []
    for box in boxes:
        width, height = (ORIGINAL_SIDE, ORIGINAL_SIDE) if reduced else sizes[box.row]
        left, right = (min(max(x / width, 0.0), 1.0) for x in (box.left, box.left + box.width))
        top, bottom = (min(max(y / height, 0.0), 1.0) for y in (box.top, box.top + box.height))
        if left >= right or top >= bottom:
            raise ValueError(f"{box.where}: the box lies beside its image of {width}x{height} pixels.")
        found.append(Box(box.row, box.label, left, top, right, bottom))
    note = (
        f"Boxes are read in pixels of originals of {ORIGINAL_SIDE}x{ORIGINAL_SIDE}, since they do not fit the images."
    )
    return tuple(found), (note,) if reduced else ()
