"""Folders of images: train/CLASS/*.jpg, and beside train, where they exist, validation and test."""

from dataclasses import dataclass
from pathlib import Path

import torch

from distill.data.examples import Splits
from distill.data.folders import find_folder, inside
from distill.data.images import Files, image_names
from distill.data.mix import Mix
from distill.data.photos import Listing, Photos
from distill.data.split import check_share

VALIDATION_NAMES = ("validation", "val", "valid")


@dataclass(frozen=True)
class ImageFolder(Photos):
    """Images in one folder for each class, with the classes in alphabetical order.

    `folder` holds train/CLASS/..., and may hold validation/ (or val/, valid/) and test/ with the same classes. What is
    missing is made up for so that the test images play no part in any choice:

    - train, validation and test: each as it is;
    - train and validation only, as in ImageNet: the validation folder is the test split, since that is where results on
      such sets are reported, and a share of train is the validation split;
    - train and test only: a share of train is the validation split;
    - train only: shares of it are the validation and the test split.

    folder: relative ones under $DISTILL_DATA, ./data, ../shared/data.
    validation, test: the shares of train that are cut out class by class; None is 0.1 where one is needed.
    The view is ImageNet's, the usual one for photographs.
    """

    folder: str
    validation: float | None = None
    test: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, share in (("validation", self.validation), ("test", self.test)):
            if share is not None:
                check_share(f"ImageFolder.{name}", share)
        if (self.validation or 0) + (self.test or 0) >= 1:
            raise ValueError(
                f"ImageFolder.validation={self.validation} and test={self.test} leave nothing to train on."
            )

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits; images are uint8 (3, size, size)."""
        root = find_folder(self.folder)
        present = [name for name in VALIDATION_NAMES if (root / name).is_dir()]
        if len(present) > 1:
            raise ValueError(f"{root} holds {' and '.join(present)}. Keep one folder of validation images.")
        held_out = present[0] if present else None
        has_test = (root / "test").is_dir()
        test_name, validation_name = ("test", held_out) if has_test else (held_out, None)
        self._check_effect("validation", self.validation, validation_name)
        self._check_effect("test", self.test, test_name)

        classes = class_names(root, "train")
        train = self.checked(read_split(root, "train", classes), classes, "train")
        total = len(train.labels)
        if test_name is None:
            size = round(total * (0.1 if self.test is None else self.test))
            train, test = train.cut(size, seed=self.split_seed, name="ImageFolder.test")
        else:
            test = self.checked(read_split(root, test_name, classes), classes, "test")
        if validation_name is None:
            # A share of all that lies in train, whether or not the test split was cut out of it before.
            size = round(total * (0.1 if self.validation is None else self.validation))
            train, validation = train.cut(size, seed=self.split_seed, name="ImageFolder.validation")
        else:
            validation = self.checked(read_split(root, validation_name, classes), classes, "validation")
        return self.splits(train=train, validation=validation, test=test, classes=classes, seed=seed, mix=mix)

    def _check_effect(self, name: str, share: float | None, split: str | None) -> None:
        if share is not None and split is not None:
            raise ValueError(f"ImageFolder.{name}={share} has no effect: the folder {split!r} is the {name} split.")


def class_names(root: Path, split: str) -> tuple[str, ...]:
    """Names of the class folders of a split, sorted; hidden ones are passed over.

    Raises:
        ValueError: no such split, or nothing in it that is a folder.
    """
    folder = inside(root, root / split)
    if not folder.is_dir():
        raise ValueError(f"{root} has no folder {split!r}. Images lie in {split}/CLASS/.")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(f"{folder} has no class folders. Images lie in {split}/CLASS/.")
    return tuple(names)


def read_split(root: Path, split: str, classes: tuple[str, ...]) -> Listing:
    """The image files of a split, class after class.

    Raises:
        ValueError: the split's classes are not those expected, or one has no images; a link that leads out of `root`.
    """
    found = class_names(root, split)
    if found != classes:
        missing, extra = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
        faults = [f"{what} {', '.join(names)}" for what, names in (("lacks", missing), ("adds", extra)) if names]
        raise ValueError(f"{root / split} {' and '.join(faults)}, compared with train. Splits need the same classes.")
    names: list[str] = []
    counts: list[int] = []
    for name in classes:
        of_class = list(image_names(root, inside(root, root / split / name)))
        if not of_class:
            raise ValueError(f"{root / split / name} has no images. Add some, or remove the class from every split.")
        names += of_class
        counts.append(len(of_class))
    return Listing(Files(root, names), torch.repeat_interleave(torch.tensor(counts)))
