"""What data sets of image files share: their size in pixels, their check before training, and their splits."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.data.augment import CenterCrop, Flip, RandomResizedCrop, Resize, check_pixels
from distill.data.examples import Part, Splits, make_splits
from distill.data.images import Files, unreadable
from distill.data.mix import Mix
from distill.data.split import check_labels, check_several, cut
from distill.view import View

IMAGENET_VIEW = View(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Listing:
    """Image files with a class number each, int64 (N,), or several labels each, float32 (N, K)."""

    files: Files
    labels: Tensor

    def rows(self, which: Tensor) -> "Listing":
        """The chosen ones only."""
        return Listing(self.files.rows(which), self.labels[which])

    def cut(self, size: int, *, seed: int, name: str) -> tuple["Listing", "Listing"]:
        """What stays, and the `size` examples that are cut out class by class."""
        kept, taken = cut(self.labels, size, seed=seed, name=name)
        return self.rows(kept), self.rows(taken)


@dataclass(frozen=True, kw_only=True)
class Photos:
    """Settings of every data set of image files; files are decoded, in RGB, when they are needed.

    size: side in pixels of the crop that teacher and student share; each model's view may resize it further.
    resize: shorter side in pixels before the middle is cropped for evaluation; None is size / 0.875, as 256 is to 224.
    augment: training images are a random part of the image, resized, and mirrored half of the time; without it they are
        prepared as in evaluation.
    verify: every file is read to its end before training, about a millisecond each; without it an unreadable image
        stops the run when its turn comes.
    skip_unreadable: unreadable images are left out and counted in a warning; without it the first one is an error.
    split_seed: draws what is cut out of the training images; the run's seed never does.
    """

    size: int = 224
    resize: int | None = None
    augment: bool = True
    verify: bool = True
    skip_unreadable: bool = False
    split_seed: int = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_pixels(f"{name}.size", self.size)
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"{name}.resize={self.resize} is smaller than the crop, size={self.size}.")
        if self.skip_unreadable and not self.verify:
            raise ValueError(
                f"{name}.skip_unreadable needs verify=True: only a check before training finds what to skip."
            )

    def checked(self, listing: Listing, classes: Sequence[str], split: str) -> Listing:
        """The listing, or with `skip_unreadable` its readable part.

        Raises:
            ValueError: no examples, or an unreadable image, which is named.
        """
        if listing.labels.is_floating_point():
            check_several(listing.labels, classes, split)
        else:
            check_labels(listing.labels, len(classes), f"The {split} split in {listing.files.root}")
        broken = unreadable(listing.files) if self.verify else {}
        if not broken:
            return listing
        first = broken[min(broken)]
        if not self.skip_unreadable:
            others = f" {len(broken) - 1} more cannot be read either." if len(broken) > 1 else ""
            raise ValueError(f"{first}{others} Mend or remove the file, or set data.skip_unreadable=True.")
        warnings.warn(
            f"{len(broken)} of {len(listing.labels)} images of the {split} split are unreadable and left out. {first}",
            stacklevel=2,
        )
        readable = torch.ones(len(listing.labels), dtype=torch.bool)
        readable[list(broken)] = False
        return listing.rows(readable.nonzero().flatten())

    def splits(
        self,
        *,
        train: Listing,
        validation: Listing,
        test: Listing,
        classes: Sequence[str],
        seed: int,
        mix: Mix | None,
    ) -> Splits:
        """The splits of checked listings, with the transforms that these settings ask for."""
        prepare = (Resize(round(self.size / 0.875) if self.resize is None else self.resize), CenterCrop(self.size))
        return make_splits(
            train=Part(train.files, train.labels),
            validation=Part(validation.files, validation.labels),
            test=Part(test.files, test.labels),
            classes=classes,
            view=IMAGENET_VIEW,
            augment=(RandomResizedCrop(self.size), Flip()) if self.augment else prepare,
            prepare=prepare,
            seed=seed,
            mix=mix,
        )
