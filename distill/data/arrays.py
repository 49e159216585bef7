"""Images that are in memory already: the shortest way to one's own data."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.data.augment import Transform
from distill.data.examples import Part, Splits, make_splits
from distill.data.mix import Mix
from distill.data.split import check_labels, check_share, cut
from distill.view import View


@dataclass(frozen=True, eq=False)
class Arrays:
    """A data set of tensors. One's own data set is a frozen dataclass of plain settings whose `load` ends with
    `return Arrays(images, labels, classes).load(seed, mix)`; tensors themselves are no setting that a recipe can write
    down.

    images: uint8 (N, C, H, W). labels: class numbers, int (N,). classes: their names.
    validation, test: shares of all examples, cut out class by class, drawn by `split_seed` and never by the run's seed.
    augment: transforms of training images. view: mean and deviation of the images; None takes them from the training
    images.
    """

    images: Tensor
    labels: Tensor
    classes: Sequence[str]
    validation: float = 0.2
    test: float = 0.2
    augment: Sequence[Transform] = ()
    view: View | None = None
    split_seed: int = 0

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise ValueError(
                f"images is uint8 (N, C, H, W), got {self.images.dtype} {tuple(self.images.shape)}. Scale it to 0..255."
            )
        if self.labels.ndim != 1 or self.labels.is_floating_point() or len(self.labels) != len(self.images):
            raise ValueError(
                f"labels is one class number for each of the {len(self.images)} images, "
                f"got {self.labels.dtype} {tuple(self.labels.shape)}."
            )
        check_share("validation", self.validation)
        check_share("test", self.test)
        check_share("validation + test", self.validation + self.test)

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits, cut by `split_seed`."""
        labels = self.labels.long()
        check_labels(labels, len(self.classes), "The data set")
        total = len(labels)
        rest, test = cut(labels, round(self.test * total), seed=self.split_seed, name="test")
        kept, chosen = cut(labels[rest], round(self.validation * total), seed=self.split_seed, name="validation")
        train, validation = rest[kept], rest[chosen]
        return make_splits(
            train=Part(self.images[train], labels[train]),
            validation=Part(self.images[validation], labels[validation]),
            test=Part(self.images[test], labels[test]),
            classes=self.classes,
            view=statistics(self.images[train]) if self.view is None else self.view,
            augment=self.augment,
            seed=seed,
            mix=mix,
        )


def statistics(images: Tensor) -> View:
    """Mean and deviation of each channel of images uint8 (N, C, H, W), as the view of a model that brings none."""
    # Whole numbers, chunk by chunk: exact, and never a wide copy of all images.
    sums = torch.zeros(images.shape[1], dtype=torch.int64)
    squares = torch.zeros_like(sums)
    for start in range(0, len(images), 1024):
        chunk = images[start : start + 1024].long()
        sums += chunk.sum((0, 2, 3))
        squares += chunk.square().sum((0, 2, 3))
    count = images[:, 0].numel()
    mean = sums.double() / count
    deviation = (squares.double() / count - mean.square()).clamp(min=0).sqrt()
    constant = [channel for channel, value in enumerate(deviation.tolist()) if value == 0]
    if constant:
        raise ValueError(
            f"Every training image has the same value in channel {constant[0]}. Check the images, or give a view."
        )
    return View(mean=tuple((mean / 255).tolist()), std=tuple((deviation / 255).tolist()))
