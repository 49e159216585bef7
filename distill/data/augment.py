"""Random changes of training images, and the fixed ones that prepare images for evaluation.

Random ones change each image by numbers that are drawn for it, a whole batch at once, so that each has a crop of its
own. Any of torchvision's transforms can stand beside these; it is called image by image.

Pixels are moved by NumPy: torch would wake its other threads for work of microseconds, and wait for them where the
cores are busy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor
from torchvision.transforms import v2

from distill.data.draws import Key, Numbers, drawn_from, uniforms

Pixels: TypeAlias = Tensor | list[Tensor]
"""Images of a batch: uint8 (B, C, H, W), or one (C, H, W) each, whose sizes may differ."""

_ATTEMPTS = 10


class ByItself(Protocol):
    """One image (C, H, W) into another; draws from torch's CPU generator only."""

    def __call__(self, image: Tensor, /) -> Tensor:
        """The changed image."""


@runtime_checkable
class ByNumbers(Protocol):
    """One image (C, H, W) into another by numbers in [0, 1) that are drawn for it."""

    @property
    def num_drawn(self) -> int:
        """How many numbers it takes."""

    def one(self, image: Tensor, numbers: Sequence[float]) -> Tensor:
        """The changed image."""


@runtime_checkable
class ByBatch(Protocol):
    """Images (B, C, H, W) into others, each by its own numbers alone, whatever stands beside it."""

    @property
    def num_drawn(self) -> int:
        """How many numbers each image takes."""

    def batch(self, images: Tensor, numbers: Numbers) -> Tensor:
        """The changed images. numbers: in [0, 1), float64 (B, num_drawn)."""


Transform: TypeAlias = ByItself | ByNumbers | ByBatch


def together(images: Pixels) -> Pixels:
    """The images as one tensor where all are of one size."""
    if isinstance(images, Tensor) or len({image.shape for image in images}) > 1:
        return images
    return torch.from_numpy(np.stack([image.numpy() for image in images]))


def transformed(images: Pixels, transforms: Sequence[Transform], keys: Sequence[Key], *, seed: int) -> Pixels:
    """The images after all transforms, each drawn from (seed, its place among the transforms, epoch, index) alone.

    keys: the (epoch, index) of each image.
    """
    for place, transform in enumerate(transforms):
        images = _applied(transform, images, keys, ("augment", seed, place))
    return together(images)


def _applied(transform: Transform, images: Pixels, keys: Sequence[Key], purpose: tuple[str, int, int]) -> Pixels:
    if isinstance(transform, ByBatch):
        numbers, images = uniforms(purpose, keys, transform.num_drawn), together(images)
        if isinstance(images, Tensor):
            return transform.batch(images, numbers)
        pairs = zip(images, numbers, strict=True)
        return [transform.batch(image[None], own[None])[0] for image, own in pairs]
    if isinstance(transform, ByNumbers):
        rows = uniforms(purpose, keys, transform.num_drawn).tolist()
        return [transform.one(image, row) for image, row in zip(images, rows, strict=True)]
    changed = []
    for image, key in zip(images, keys, strict=True):
        with drawn_from(*purpose, *key):
            changed.append(transform(image))
    return changed


@dataclass(frozen=True)
class Crop:
    """A crop of the image's own size, anywhere in the image with `padding` black pixels around it.

    As torchvision's `RandomCrop(size, padding)`: each place is as likely as any other.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 1:
            raise ValueError(f"Crop.padding is a number of pixels of at least 1, got {self.padding}.")

    @property
    def num_drawn(self) -> int:
        """Two: from above, and from the left."""
        return 2

    def batch(self, images: Tensor, numbers: Numbers) -> Tensor:
        """Crops of the padded images, as large as the images."""
        count, channels, height, width = images.shape
        border = self.padding
        padded = np.zeros((count, channels, height + 2 * border, width + 2 * border), dtype=np.uint8)
        padded[:, :, border:-border, border:-border] = images.numpy()
        tops, lefts = (numbers * (2 * border + 1)).astype(np.int64).T
        windows = sliding_window_view(padded, (height, width), axis=(2, 3))
        return torch.from_numpy(windows[np.arange(count), :, tops, lefts])


@dataclass(frozen=True)
class Flip:
    """The image mirrored left to right with the given probability; as torchvision's `RandomHorizontalFlip`."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ValueError(f"Flip.probability is above 0 and at most 1, got {self.probability}.")

    @property
    def num_drawn(self) -> int:
        """One."""
        return 1

    def batch(self, images: Tensor, numbers: Numbers) -> Tensor:
        """The images, mirrored or not."""
        pixels = images.numpy().copy()
        rows = (numbers[:, 0] < self.probability).nonzero()[0]
        pixels[rows] = pixels[rows][..., ::-1]
        return torch.from_numpy(pixels)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the image, of `scale` times its area and any shape within `ratio`, resized to size x size.

    As torchvision's (bilinear, antialiased): the area is uniform, the ratio of width to height log-uniform, and the
    place uniform. Of ten draws the first is taken that fits into the image, else the largest part in its middle whose
    ratio is within the bounds.
    """

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        check_pixels("RandomResizedCrop.size", self.size)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"RandomResizedCrop.scale is (least, most) of the area, in (0, 1], got {self.scale}.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"RandomResizedCrop.ratio is (least, most) of width to height, got {self.ratio}.")

    @property
    def num_drawn(self) -> int:
        """An area and a ratio for each attempt, and a place."""
        return 2 * _ATTEMPTS + 2

    def one(self, image: Tensor, numbers: Sequence[float]) -> Tensor:
        """The part, (C, size, size)."""
        top, left, height, width = self.part(numbers, *image.shape[-2:])
        part = image[:, top : top + height, left : left + width]
        resized: Tensor = v2.functional.resize(part, [self.size, self.size], antialias=True)
        return resized

    def part(self, numbers: Sequence[float], height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of the part that 22 numbers in [0, 1) choose from an image of that size."""
        *sizes, down, across = numbers
        least, most = (math.log(bound) for bound in self.ratio)
        for share, shape in zip(sizes[::2], sizes[1::2], strict=True):
            area = height * width * (self.scale[0] + share * (self.scale[1] - self.scale[0]))
            ratio = math.exp(least + shape * (most - least))
            tall, wide = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < tall <= height and 0 < wide <= width:
                return int(down * (height - tall + 1)), int(across * (width - wide + 1)), tall, wide
        tall = max(1, min(height, round(width / self.ratio[0])))
        wide = max(1, min(width, round(height * self.ratio[1])))
        return (height - tall) // 2, (width - wide) // 2, tall, wide


@dataclass(frozen=True)
class Resize:
    """The whole image with its shorter side at `size` pixels, bilinear with antialiasing."""

    size: int

    def __post_init__(self) -> None:
        check_pixels("Resize.size", self.size)

    def __call__(self, image: Tensor, /) -> Tensor:
        """The resized image."""
        resized: Tensor = v2.functional.resize(image, [self.size], antialias=True)
        return resized


@dataclass(frozen=True)
class CenterCrop:
    """The size x size pixels in the middle; a smaller image is padded with black."""

    size: int

    def __post_init__(self) -> None:
        check_pixels("CenterCrop.size", self.size)

    def __call__(self, image: Tensor, /) -> Tensor:
        """The middle, (C, size, size)."""
        cropped: Tensor = v2.functional.center_crop(image, [self.size, self.size])
        return cropped


def check_pixels(name: str, value: int) -> None:
    """Refuses a length in pixels below 1."""
    if value < 1:
        raise ValueError(f"{name} is a length in pixels of at least 1, got {value}.")
