"""CIFAR-10 and CIFAR-100: small photographs of things, 50,000 to train on and 10,000 to test."""

from dataclasses import dataclass

import torch

from distill.data.augment import Crop, Flip
from distill.data.cifar_files import Cifar, read_cifar10, read_cifar100
from distill.data.examples import Part, Splits, make_splits
from distill.data.folders import find_folder
from distill.data.mix import Mix
from distill.data.split import cut
from distill.view import View

CIFAR10_VIEW = View(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
CIFAR100_VIEW = View(mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761))


@dataclass(frozen=True, kw_only=True)
class CifarSettings:
    """Settings of both sets (Krizhevsky 2009); images are held in memory, uint8 (3, 32, 32).

    validation: how many training images are cut out class by class to choose by.
    subset: how many of those that are left are trained on, drawn class by class; None is all.
    augment: training images are cropped out of a border of four black pixels, and mirrored half of the time.
    split_seed: draws validation and subset; the run's seed never does.
    """

    validation: int = 5000
    subset: int | None = None
    augment: bool = True
    split_seed: int = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.validation < 1:
            raise ValueError(f"{name}.validation is a number of images of at least 1, got {self.validation}.")
        if self.subset is not None and self.subset < 1:
            raise ValueError(f"{name}.subset is a number of images of at least 1, got {self.subset}.")

    def splits(self, cifar: Cifar, view: View, *, seed: int, mix: Mix | None) -> Splits:
        """The splits of what was read; only images that are used get decoded."""
        name, stored = type(self).__name__, cifar.train
        train, validation = cut(stored.labels, self.validation, seed=self.split_seed, name=f"{name}.validation")
        if self.subset is not None and self.subset != len(train):
            _, chosen = cut(stored.labels[train], self.subset, seed=self.split_seed, name=f"{name}.subset")
            train = train[chosen]
        return make_splits(
            train=Part(stored.images(train), stored.labels[train]),
            validation=Part(stored.images(validation), stored.labels[validation]),
            test=Part(cifar.test.images(torch.arange(len(cifar.test.labels))), cifar.test.labels),
            classes=cifar.classes,
            view=view,
            augment=(Crop(padding=4), Flip()) if self.augment else (),
            seed=seed,
            mix=mix,
        )


@dataclass(frozen=True)
class Cifar10(CifarSettings):
    """CIFAR-10: ten classes. Reads torchvision's pickles, the binary files, or train.parquet and test.parquet.

    folder: relative ones under $DISTILL_DATA, ./data, ../shared/data. The files lie in it, or in cifar-10-batches-py or
        cifar-10-batches-bin inside it.
    """

    folder: str = "cifar10"

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits; parquet is decoded once, in seconds."""
        return self.splits(read_cifar10(find_folder(self.folder)), CIFAR10_VIEW, seed=seed, mix=mix)


@dataclass(frozen=True)
class Cifar100(CifarSettings):
    """CIFAR-100 with its hundred fine classes. Reads torchvision's pickles or the binary files.

    folder: relative ones under $DISTILL_DATA, ./data, ../shared/data. The files lie in it, or in cifar-100-python or
        cifar-100-binary inside it.
    """

    folder: str = "cifar100"

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits."""
        return self.splits(read_cifar100(find_folder(self.folder)), CIFAR100_VIEW, seed=seed, mix=mix)
