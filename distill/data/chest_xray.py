"""Chest radiographs with several findings each: ChestX-ray14 as released, and sets whose table has its columns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from distill.data.augment import Crop, Flip, check_pixels
from distill.data.cases import Cases
from distill.data.chest_files import image_paths, in_shares, official_rows, read_boxes
from distill.data.chest_groups import filtered_rows, groups
from distill.data.chest_labels import FINDINGS, canonical
from distill.data.chest_table import ChestTable, find_table, read_chest_table
from distill.data.examples import Part, Splits, make_splits
from distill.data.folders import find_folder
from distill.data.image_cache import CachedImages, cached
from distill.data.images import Files, GreyFiles, UnreadableImageError, unreadable
from distill.data.mix import Mix
from distill.data.patients import cut_patients, draw_patients
from distill.data.split import check_share
from distill.view import View

CHEST_VIEW = View(mean=(0.5,), std=(0.25,))

_SPLITS = ("official", "patients", "leaky_images")
_TEST_SHARE = 0.2
_WAY_OUT = "Mend the file, or set data.skip_unreadable=True."


@dataclass(frozen=True, kw_only=True)
class ChestXray:
    """ChestX-ray14 (Wang et al., 2017, arXiv:1705.02315): grey radiographs with none, one or several of 14 findings.

    `folder` holds images/, or images_001/images/ and so on, Data_Entry_2017_v2020.csv or Data_Entry_2017.csv,
    train_val_list.txt and test_list.txt, and may hold BBox_List_2017.csv. Other sets have a CSV with the columns Image
    Index, Patient ID, and Finding Labels or a column for each label; see `read_chest_table`.

    folder: relative ones under $DISTILL_DATA, ./data, ../shared/data.
    table: file name of the CSV, plain or .gz; None takes the official one.
    labels: what is learned, in this order; other findings of the 14 are passed over.
    size: side in pixels; the whole image is resized to size x size, whatever its shape.
    split: "official" tests on the official test list. "patients" cuts the test split by patient instead. "leaky_images"
        cuts by image, as some papers did: patients that are trained on are tested on, and results are too good.
    validation: the share of what is not the test split that is cut out, by patient (in a leaky split by image), so that
        each label keeps its share as well as patients allow.
    test: the share of all that is cut out where the split is not official; None is 0.2 there.
    subset: about how many training images are kept, whole patients at a time (in a leaky split exactly, by image).
    views: the view positions that are kept, such as ("PA",); () keeps all.
    ages: the youngest and the oldest that are kept, in years. sex: "M" or "F" is kept. Unknown ones are left out.
    one_image_per_patient: of the images that the other filters leave, the first follow-up of each patient is kept.
    augment: training images are mirrored half of the time and shifted by up to a sixteenth of their side.
    cache: decoded, resized images are kept on disk, see `distill.data.image_cache`.
    verify: without a cache, every file is read to its end before training; without both, an unreadable image stops the
        run when its turn comes.
    skip_unreadable: unreadable images are left out and counted in a note, for which every file is read at each start;
        without it the first one is an error.
    split_seed: draws what is cut out and kept; the run's seed never does.

    Filters hold for all splits: results are not comparable with those on all images, and a note says so.
    """

    folder: str = "chestxray14"
    table: str | None = None
    labels: tuple[str, ...] = FINDINGS
    size: int = 224
    split: Literal["official", "patients", "leaky_images"] = "official"
    validation: float = 0.1
    test: float | None = None
    subset: int | None = None
    views: tuple[str, ...] = ()
    one_image_per_patient: bool = False
    ages: tuple[int, int] | None = None
    sex: str | None = None
    augment: bool = True
    cache: bool = True
    verify: bool = True
    skip_unreadable: bool = False
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_pixels("ChestXray.size", self.size)
        if self.split not in _SPLITS:
            raise ValueError(f"ChestXray.split is one of {', '.join(map(repr, _SPLITS))}, got {self.split!r}.")
        check_share("ChestXray.validation", self.validation)
        if self.test is not None:
            check_share("ChestXray.test", self.test)
            if self.split == "official":
                raise ValueError(f"ChestXray.test={self.test} has no effect on the official split. Leave it out.")
        if len({canonical(label) for label in self.labels} - {""}) < max(1, len(self.labels)):
            raise ValueError(
                f"ChestXray.labels are one or more different names, got {', '.join(self.labels) or 'none'}."
            )
        if self.subset is not None and self.subset < 1:
            raise ValueError(f"ChestXray.subset is a number of training images of at least 1, got {self.subset}.")
        if self.ages is not None and not 0 <= self.ages[0] <= self.ages[1]:
            raise ValueError(f"ChestXray.ages are the youngest and the oldest in years, got {self.ages}.")
        if not self.verify and (self.cache or self.skip_unreadable):
            setting = "cache=True, which decodes every file" if self.cache else "skip_unreadable=True"
            raise ValueError(f"ChestXray.verify=False has no effect beside {setting}. Leave one of them out.")

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits; images are uint8 (1, size, size). Their `cases` say whose they are, and where findings show."""
        root = find_folder(self.folder)
        table = read_chest_table(find_table(root, self.table), self.labels)
        kept, filter_notes = filtered_rows(
            table, views=self.views, ages=self.ages, sex=self.sex, one_image_per_patient=self.one_image_per_patient
        )
        path_of, image_notes = image_paths(root, table, kept)
        splits, cut_notes = self._cut(root, table, kept)
        rows = torch.cat(splits).sort().values
        files = GreyFiles(Files(root, [path_of[row] for row in rows.tolist()]), self.size)
        readable, read_notes = self._readable(files)
        rows, files = rows[readable], files.rows(readable)
        boxes, box_notes = read_boxes(root, table, self.labels)
        shares, share_notes = in_shares(boxes, {row: root / path_of[row] for row in rows.tolist()})
        cases = Cases(table.patient, groups(table), shares)
        images = self._cached(files) if self.cache else files

        def part(which: Tensor) -> Part:
            which = which[torch.isin(which, rows)]
            return Part(images.rows(torch.searchsorted(rows, which)), table.labels[which], cases.rows(which))

        train, validation, test = (part(which) for which in splits)
        return make_splits(
            train=train,
            validation=validation,
            test=test,
            classes=self.labels,
            view=CHEST_VIEW,
            augment=(Flip(), Crop(padding=max(1, self.size // 16))) if self.augment else (),
            seed=seed,
            mix=mix,
            notes=(*cut_notes, *filter_notes, *read_notes, *table.notes, *image_notes, *box_notes, *share_notes),
        )

    def _cut(self, root: Path, table: ChestTable, kept: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], list[str]]:
        """Rows of the training, validation and test split, and notes on how they were cut."""
        # To a leaky split each image is a patient of its own.
        whose = torch.arange(len(table.names)) if self.split == "leaky_images" else table.patient

        def cut(rows: Tensor, share: float, name: str) -> tuple[Tensor, Tensor]:
            stay, taken = cut_patients(
                whose[rows], table.labels[rows], share, seed=self.split_seed, name=f"ChestXray.{name}"
            )
            return rows[stay], rows[taken]

        if self.split == "official":
            rest, test = (rows[torch.isin(rows, kept)] for rows in official_rows(root, table))
            for rows, name in ((rest, "training and validation"), (test, "test")):
                if not len(rows):
                    raise ValueError(f"ChestXray: the filters leave no image of the official {name} list. Loosen them.")
        else:
            rest, test = cut(kept, _TEST_SHARE if self.test is None else self.test, "test")
        train, validation = cut(rest, self.validation, "validation")
        notes = []
        if self.split == "leaky_images":
            in_training = torch.isin(table.patient[test], table.patient[train])
            notes.append(
                f"LEAKY SPLIT, cut by image: {int(in_training.sum()):,} of {len(test):,} test images are of patients "
                "that are trained on, so results are too good and tell nothing of new patients."
            )
        elif self.split == "patients":
            notes.append("The test split is cut by patient; results are not comparable with those on an official list.")
        if self.subset is not None:
            total = len(train)
            train = train[draw_patients(whose[train], self.subset, seed=self.split_seed, name="ChestXray.subset")]
            notes.append(f"Trained on {len(train):,} of {total:,} training images.")
        return (train, validation, test), notes

    def _readable(self, files: GreyFiles) -> tuple[Tensor, list[str]]:
        """The places of the readable files, and a note on others."""
        broken = unreadable(files.files) if self.skip_unreadable or (self.verify and not self.cache) else {}
        readable = torch.ones(len(files), dtype=torch.bool)
        if not broken:
            return readable.nonzero().flatten(), []
        first = broken[min(broken)]
        if not self.skip_unreadable:
            others = f" {len(broken) - 1} more cannot be read either." if len(broken) > 1 else ""
            raise ValueError(f"{first}{others} {_WAY_OUT}")
        readable[list(broken)] = False
        return readable.nonzero().flatten(), [f"{len(broken):,} unreadable images are left out. {first}"]

    def _cached(self, files: GreyFiles) -> CachedImages:
        try:
            return cached(files, size=self.size, name="chest X-rays")
        except UnreadableImageError as error:
            raise ValueError(f"{error} {_WAY_OUT}") from error
