"""What data sets of image files share: their size in pixels, their check before training, and their splits."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.data.augment import CenterCrop, Flip, RandomResizedCrop, Resize, check_pixels
from distill.data.examples import Part, Splits, make_splits
from distill.data.images import Files, UnreadableImageError, unreadable
from distill.data.mix import Mix
from distill.data.packed import packed
from distill.data.split import check_labels, check_several, cut
from distill.view import View

IMAGENET_VIEW = View(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

_WAY_OUT = "Mend or remove the file, or set data.skip_unreadable=True."


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
    packed: images are decoded once and kept as uint8 in the image cache: training images as the square in their middle,
        with sides of so many pixels, out of which the random part is taken; those of evaluation to the bit as they are
        prepared without it. The smallest part, 8 % of the area, is 0.28 times as wide as the square, and blurred where
        that is less than the size. None decodes files whenever they are needed, and takes the part out of the whole
        image.
    """

    size: int = 224
    resize: int | None = None
    augment: bool = True
    verify: bool = True
    skip_unreadable: bool = False
    split_seed: int = 0
    packed: int | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_pixels(f"{name}.size", self.size)
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"{name}.resize={self.resize} is smaller than the crop, size={self.size}.")
        if self.packed is not None and self.packed < self.size:
            raise ValueError(
                f"{name}.packed={self.packed} is smaller than the crop, size={self.size}. Give at least the size."
            )
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
        # Packing reads every file to its end, once for all runs.
        wanted = self.verify and (self.packed is None or self.skip_unreadable)
        broken = unreadable(listing.files) if wanted else {}
        if not broken:
            return listing
        first = broken[min(broken)]
        if not self.skip_unreadable:
            others = f" {len(broken) - 1} more cannot be read either." if len(broken) > 1 else ""
            raise ValueError(f"{first}{others} {_WAY_OUT}")
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
        resize = Resize(round(self.size / 0.875) if self.resize is None else self.resize)
        prepare = (resize, CenterCrop(self.size))
        augment = (RandomResizedCrop(self.size), Flip()) if self.augment else prepare
        parts = [Part(listing.files, listing.labels) for listing in (train, validation, test)]
        if self.packed is not None:
            square = (Resize(self.packed), CenterCrop(self.packed)) if self.augment else prepare
            try:
                parts = [
                    Part(packed(listing.files, *kept), listing.labels)
                    for listing, kept in ((train, square), (validation, prepare), (test, prepare))
                ]
            except UnreadableImageError as error:
                raise ValueError(f"{error} {_WAY_OUT}") from error
        return make_splits(
            train=parts[0],
            validation=parts[1],
            test=parts[2],
            classes=classes,
            view=IMAGENET_VIEW,
            augment=augment if self.augment or self.packed is None else (),
            prepare=prepare if self.packed is None else (),
            seed=seed,
            mix=mix,
        )
