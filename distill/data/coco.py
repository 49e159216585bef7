"""COCO: photographs with all objects that are in them, from the official instances_*.json and folders of images."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2

from distill.data.augment import Flip
from distill.data.examples import Part, Splits, make_splits
from distill.data.folders import find_folder, inside
from distill.data.images import Files
from distill.data.mix import Mix
from distill.data.patients import cut_patients
from distill.data.photos import IMAGENET_VIEW, Listing, Photos
from distill.data.split import check_share


class Instances(NamedTuple):
    """What an annotation file says of its images.

    categories: names by number, in the order of the numbers.
    labels: float32 (N, K), 1 where an image has an object of the category, else 0.
    """

    names: tuple[str, ...]
    categories: dict[int, str]
    labels: Tensor


def read_instances(path: Path) -> Instances:
    """Images and objects of an annotation file in COCO's form; an object counts even where it stands for a crowd.

    Raises:
        ValueError: no such file, or another form; or an object of an image or category that is not listed.
    """
    if not path.is_file():
        raise ValueError(
            f"{path} is missing. Coco reads annotations/instances_trainYEAR.json and instances_valYEAR.json."
        )
    try:
        document = json.loads(path.read_bytes(), object_hook=_without_outline)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({' '.join(str(error).split())}). Copy it again.") from error
    listed = _entries(path, document, "categories", {"id": int, "name": str})
    categories = {entry["id"]: entry["name"] for entry in sorted(listed, key=lambda entry: entry["id"])}
    images = _entries(path, document, "images", {"id": int, "file_name": str})
    _check_once(path, "category", [entry["id"] for entry in listed])
    _check_once(path, "category", categories.values())
    _check_once(path, "image", [entry["id"] for entry in images])
    _check_once(path, "image", [entry["file_name"] for entry in images])
    rows = {entry["id"]: row for row, entry in enumerate(images)}
    columns = {number: column for column, number in enumerate(categories)}
    labels = torch.zeros(len(images), len(categories))
    objects = _entries(path, document, "annotations", {"image_id": int, "category_id": int})
    for what, known in (("image_id", rows), ("category_id", columns)):
        strange = next((entry[what] for entry in objects if entry[what] not in known), None)
        if strange is not None:
            raise ValueError(f"{path} has an object with {what} {strange}, which it does not list. Is it complete?")
    labels[[rows[entry["image_id"]] for entry in objects], [columns[entry["category_id"]] for entry in objects]] = 1
    return Instances(tuple(entry["file_name"] for entry in images), categories, labels)


def check_files(root: Path, folder: str, names: Sequence[str]) -> None:
    """Refuses names of images that lie elsewhere than in the folder, or nowhere; the folder is listed once.

    Raises:
        ValueError: no such folder, a name with a path in it, a missing image, or a link out of `root`.
    """
    place = inside(root, root / folder)
    if not place.is_dir():
        raise ValueError(f"There is no folder {place} with the images of annotations/instances_{folder}.json.")
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ValueError(f"Image {name!r} of annotations/instances_{folder}.json leads out of {place}.")
    entries = {entry.name: entry for entry in os.scandir(place)}
    absent = [name for name in names if name not in entries]
    if absent:
        others = f", and {len(absent) - 1} more are missing" if len(absent) > 1 else ""
        raise ValueError(f"There is no image {absent[0]!r} in {place}{others}. Unpack all of {folder}.zip.")
    for name in names:
        if entries[name].is_symlink():
            inside(root, place / name)


@dataclass(frozen=True)
class Coco(Photos):
    """COCO (Lin et al. 2014, arXiv:1405.0312) by what is in an image: one label for each of its 80 categories.

    annotations/instances_trainYEAR.json and instances_valYEAR.json, trainYEAR/ and valYEAR/. The official validation
    images are the test split; the validation split is cut out of the training images so that each label keeps its
    share. Each image is resized to size x size as a whole, whatever its shape, since a crop may lose what its labels
    name; so `resize` and `packed` stay None, and `augment` mirrors only. Images without an object stay, with no label.

    folder: relative ones under $DISTILL_DATA, ./data, ../shared/data.
    year: 2017 or 2014, which have the same images, cut in two other ways.
    validation: the share of the training images that is cut out.
    """

    folder: str = "coco"
    year: int = 2017
    validation: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize is not None:
            raise ValueError(f"Coco.resize has no effect: images are resized whole to size={self.size}. Leave it out.")
        if self.packed is not None:
            raise ValueError(
                f"Coco.packed={self.packed} would cut off the borders of images, and with them what labels name. "
                "Leave it out."
            )
        check_share("Coco.validation", self.validation)

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits; images are uint8 (3, size, size), labels float32 (N, 80)."""
        root = find_folder(self.folder)
        places = [f"train{self.year}", f"val{self.year}"]
        train, test = (read_instances(_annotations(root, place)) for place in places)
        if train.categories != test.categories:
            raise ValueError(
                f"{root}: the categories of {places[0]} and {places[1]} differ. Take files of one release."
            )
        classes = tuple(train.categories.values())
        for place, part in zip(places, (train, test), strict=True):
            check_files(root, place, part.names)
        all_train, all_test = (
            self.checked(Listing(Files(root, [f"{place}/{name}" for name in part.names]), part.labels), classes, place)
            for place, part in zip(places, (train, test), strict=True)
        )
        kept, taken = cut_patients(
            torch.arange(len(all_train.labels)),
            all_train.labels,
            self.validation,
            seed=self.split_seed,
            name="Coco.validation",
        )
        parts = [Part(part.files, part.labels) for part in (all_train.rows(kept), all_train.rows(taken), all_test)]
        whole = _Whole(self.size)
        return make_splits(
            train=parts[0],
            validation=parts[1],
            test=parts[2],
            classes=classes,
            view=IMAGENET_VIEW,
            augment=(whole, Flip()) if self.augment else (whole,),
            prepare=(whole,),
            seed=seed,
            mix=mix,
            notes=_empty(places, (all_train, all_test)),
        )


@dataclass(frozen=True)
class _Whole:
    """The whole image on size x size pixels, bilinear with antialiasing."""

    size: int

    def __call__(self, image: Tensor, /) -> Tensor:
        resized: Tensor = v2.functional.resize(image, [self.size, self.size], antialias=True)
        return resized


def _annotations(root: Path, place: str) -> Path:
    return inside(root, root / "annotations" / f"instances_{place}.json")


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry as it is read, without the outline of its object: the outlines take most of the memory."""
    entry.pop("segmentation", None)
    return entry


def _entries(path: Path, document: Any, key: str, fields: dict[str, type]) -> list[dict[str, Any]]:
    entries = document.get(key) if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} lists no {key}. Give an annotation file in the form of COCO's instances_*.json.")
    for number, entry in enumerate(entries):
        for field, kind in fields.items():
            if not isinstance(entry, dict) or type(entry.get(field)) is not kind:
                raise ValueError(f"{path}, {key}[{number}] needs {field} of type {kind.__name__}, got {entry!r:.80}.")
    return entries


def _check_once(path: Path, what: str, values: Iterable[int | str]) -> None:
    seen = set[int | str]()
    for value in values:
        if value in seen:
            raise ValueError(f"{path} lists {what} {value!r} twice. Is it of one release?")
        seen.add(value)


def _empty(places: Sequence[str], listings: Sequence[Listing]) -> tuple[str, ...]:
    """A note of the images without an object, if there are any."""
    counts = [int((listing.labels.sum(1) == 0).sum()) for listing in listings]
    shares = [
        f"{count} of {len(listing.labels)} of {place}"
        for count, listing, place in zip(counts, listings, places, strict=True)
    ]
    return (f"Images without any object, which have no label: {', '.join(shares)}.",) if any(counts) else ()
