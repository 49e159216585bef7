"""Examples of images with labels, and the three splits that every data set gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from distill.batch import Batch
from distill.data.augment import Pixels, Transform, transformed
from distill.data.cases import Cases
from distill.data.draws import Key
from distill.data.mix import Mix, blended_images, blended_labels
from distill.data.split import check_classes, check_labels, check_several
from distill.data.texts import TextSplits
from distill.view import View


class Images(Protocol):
    """Images by number, each uint8 (C, H, W): one tensor (N, C, H, W), or files that are decoded when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


class Part(NamedTuple):
    """What a split is made of: images, and the labels of each.

    labels: a class number, int64 (N,); or several labels, float32 (N, K), 1 where one holds, 0 where not, NaN unknown.
    cases: what else is known of the examples; None where nothing is.
    """

    images: Images
    labels: Tensor
    cases: Cases | None = None


@dataclass(frozen=True)
class Example:
    """One example of a split.

    image: (C, H, W), uint8, or float in [0, 1] where examples are mixed.
    label: class number, int64 (), or float (K,) where examples are mixed or have several labels.
    index: its number in the split.
    """

    image: Tensor
    label: Tensor
    index: int


class Examples(Dataset[Example]):
    """One split, with keys (epoch, index): what an example looks like depends on (seed, epoch, index) and nothing else.

    So it is the same with any number of workers and processes, in any order, and after a resume. Transforms that draw
    nothing make the epoch meaningless, as in evaluation.
    """

    def __init__(
        self,
        part: Part,
        *,
        num_classes: int,
        transforms: Sequence[Transform] = (),
        seed: int = 0,
        mix: Mix | None = None,
    ) -> None:
        self.images = part.images
        self.labels = part.labels
        self.cases = part.cases
        self.num_classes = num_classes
        self.transforms = tuple(transforms)
        self.seed = seed
        self.mix = mix

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> None:
        """None: all images of a batch are of one size."""
        return None

    def __getitem__(self, key: Key) -> Example:
        index = int(key[1])
        if self.mix is None:
            return Example(self.crop(*key), self.labels[index], index)
        batch = self.__getitems__([key])
        assert isinstance(batch.inputs, Tensor)
        return Example(batch.inputs[0], batch.labels[0], index)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """The examples of these keys in their order, to the bit those that come one by one; a DataLoader asks here.

        Raises:
            ValueError: images of unlike sizes.
        """
        keys = [(int(epoch), int(index)) for epoch, index in keys]
        index = torch.tensor([index for _, index in keys])
        images, labels = self._stacked(keys), self.labels[index]
        if self.mix is None:
            return Batch(images, labels, index)
        height, width = images.shape[-2:]
        blends = [
            self.mix.draw(self.seed, epoch, index, num_examples=len(self), height=height, width=width)
            for epoch, index in keys
        ]
        others = images.clone()
        mixed = [row for row, blend in enumerate(blends) if blend.partner != keys[row][1]]
        if mixed:
            others[mixed] = self._stacked([(keys[row][0], blends[row].partner) for row in mixed])
        partners = torch.tensor([blend.partner for blend in blends])
        soft = blended_labels(blends, labels, self.labels[partners], self.num_classes)
        return Batch(blended_images(blends, images, others), soft, index)

    def crop(self, epoch: int, index: int) -> Tensor:
        """The example's image after its transforms and before any mixing, uint8 (C, H, W)."""
        return self._crops([(int(epoch), int(index))])[0]

    def _crops(self, keys: Sequence[Key]) -> Pixels:
        rows = [index for _, index in keys]
        images: Pixels = (
            torch.from_numpy(self.images.numpy()[rows])
            if isinstance(self.images, Tensor)
            else [self.images[row] for row in rows]
        )
        return transformed(images, self.transforms, keys, seed=self.seed)

    def _stacked(self, keys: Sequence[Key]) -> Tensor:
        crops = self._crops(keys)
        if isinstance(crops, Tensor):
            return crops
        sizes = sorted({tuple(crop.shape) for crop in crops})
        raise ValueError(
            f"Images of one batch are of one size, got {sizes[0]} and {sizes[-1]}. Give a transform that resizes."
        )


def collate(examples: Batch | Sequence[Example]) -> Batch:
    """Examples as one batch, in their order; those that came together are one already."""
    if isinstance(examples, Batch):
        return examples
    return Batch(
        inputs=torch.stack([example.image for example in examples]),
        labels=torch.stack([example.label for example in examples]),
        index=torch.tensor([example.index for example in examples]),
    )


@dataclass(frozen=True)
class Splits:
    """A data set, cut: examples to train on, to choose by, and to report on once.

    classes: the names, in the order of the class numbers, or of the labels where an example has several.
    view: the data's own statistics, for models that bring none.
    notes: what was counted on the way and a reader of the results should know, a sentence each.
    origin: what the images are, where every page and picture that shows them must say so; empty else.
    """

    train: Examples
    validation: Examples
    test: Examples
    classes: tuple[str, ...]
    view: View
    notes: tuple[str, ...] = ()
    origin: str = ""

    @property
    def several(self) -> bool:
        """Whether an example may have several labels, or none."""
        return self.train.labels.is_floating_point()

    @property
    def collate(self) -> Callable[[Sequence[Any]], Batch]:
        """Makes a batch of examples."""
        return collate


@runtime_checkable
class Data(Protocol):
    """A data set: a frozen dataclass of plain settings that can be loaded.

    `seed` is the run's: it moves augmentation and mixing, never the split, so that runs over seeds share their test
    examples.
    """

    def load(self, seed: int, mix: Mix | None) -> Splits | TextSplits:
        """The splits, read and checked. Raises: ValueError in one line for anything wrong with settings or files."""


def make_splits(
    *,
    train: Part,
    validation: Part,
    test: Part,
    classes: Sequence[str],
    view: View,
    seed: int,
    mix: Mix | None = None,
    augment: Sequence[Transform] = (),
    prepare: Sequence[Transform] = (),
    notes: Sequence[str] = (),
    origin: str = "",
) -> Splits:
    """The splits of a data set out of its parts.

    augment: transforms of training images; prepare: of validation and test images, without chance.

    Raises:
        ValueError: a split without examples, labels that name no class, or a class without training examples; of
            several labels, a split in which no label can be judged.
    """
    several = train.labels.is_floating_point()
    notes = tuple(notes)
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        if len(part.images) != len(part.labels):
            raise ValueError(f"The {name} split has {len(part.images)} images and {len(part.labels)} labels.")
        if several:
            notes += check_several(part.labels, classes, name)
        else:
            check_labels(part.labels, len(classes), f"The {name} split")
    if not several:
        check_classes(train.labels, classes)
    num_classes = len(classes)
    return Splits(
        train=Examples(train, num_classes=num_classes, transforms=augment, seed=seed, mix=mix),
        validation=Examples(validation, num_classes=num_classes, transforms=prepare, seed=seed),
        test=Examples(test, num_classes=num_classes, transforms=prepare, seed=seed),
        classes=tuple(classes),
        view=view,
        notes=notes,
        origin=origin,
    )
