"""Writes a tiny set of chest radiographs as ChestX-ray14 is laid out: random grey squares with made-up findings."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
# Half of the images have a finding that half of those with another have too.
CYCLE = ("No Finding", "Effusion", "Effusion|Mass", "No Finding", "Mass", "No Finding")
LAST = "00000012_002.png"  # of the last row that `chest_rows` gives


class Row(NamedTuple):
    """One image of the table; `test` puts it in the test list."""

    name: str
    findings: str
    patient: int
    follow_up: int = 0
    age: str = "50"
    sex: str = "F"
    view: str = "PA"
    test: bool = False

    @property
    def line(self) -> str:
        """The image's line in Data_Entry_2017_v2020.csv."""
        name, findings, patient, follow_up, age, sex, view, _ = self
        return f"{name},{findings},{follow_up},{patient},{age},{sex},{view},2500,2048,0.168,0.168"


def chest_rows(*, patients: int = 12, images: int = 3) -> list[Row]:
    """`images` of each patient, the last third of the patients in the test list."""
    return [
        Row(
            name=f"{patient:08d}_{follow_up:03d}.png",
            findings=CYCLE[(patient + follow_up) % len(CYCLE)],
            patient=patient,
            follow_up=follow_up,
            age=str(10 + 7 * patient),
            sex="FM"[patient % 2],
            view=("PA", "AP")[follow_up % 2],
            test=patient > patients * 2 // 3,
        )
        for patient in range(1, patients + 1)
        for follow_up in range(images)
    ]


def write_chest(
    folder: Path,
    rows: Sequence[Row] | None = None,
    *,
    size: int = 16,
    table: str = "Data_Entry_2017_v2020.csv",
    boxes: Sequence[str] = (),
) -> Path:
    """Writes images, table, both lists and, where there are any, box lines such as "a.png,Mass,1,2,3,4"."""
    rows = chest_rows() if rows is None else rows
    (folder / "images").mkdir(parents=True)
    for seed, row in enumerate(rows):
        pixels = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / row.name)
    (folder / table).write_text("\n".join([HEADER, *(row.line for row in rows)]) + "\n")
    # The official lists have no newline at their end.
    for name, test in (("train_val_list.txt", False), ("test_list.txt", True)):
        (folder / name).write_text("\n".join(row.name for row in rows if row.test is test))
    if boxes:
        (folder / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER, *boxes]) + "\n")
    return folder
