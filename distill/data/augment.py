"""Random changes of training images, and the fixed ones that prepare images for evaluation.

Each takes one image uint8 (C, H, W) and gives another. Random ones draw from torch's CPU generator, as all of
torchvision's transforms do, so any of those can stand beside these; `Examples` seeds that generator for each example.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2


class Transform(Protocol):
    """One image (C, H, W) into another; draws from torch's CPU generator only."""

    def __call__(self, image: Tensor, /) -> Tensor:
        """The changed image."""


@dataclass(frozen=True)
class Crop:
    """A crop of the image's own size, anywhere in the image with `padding` black pixels around it.

    The same draws and pixels as torchvision's `RandomCrop(size, padding)`, in a fifth of its time.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 1:
            raise ValueError(f"Crop.padding is a number of pixels of at least 1, got {self.padding}.")

    def __call__(self, image: Tensor, /) -> Tensor:
        """A crop of the padded image, as large as the image."""
        height, width = image.shape[-2:]
        top, left = torch.randint(0, 2 * self.padding + 1, (2,)).tolist()
        padded = F.pad(image, (self.padding,) * 4)
        return padded[:, top : top + height, left : left + width]


@dataclass(frozen=True)
class Flip:
    """The image mirrored left to right with the given probability; as torchvision's `RandomHorizontalFlip`."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ValueError(f"Flip.probability is above 0 and at most 1, got {self.probability}.")

    def __call__(self, image: Tensor, /) -> Tensor:
        """The image, mirrored or not."""
        return image.flip(-1) if torch.rand(1).item() < self.probability else image


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the image, of `scale` times its area and any shape within `ratio`, resized to size x size."""

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        check_pixels("RandomResizedCrop.size", self.size)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"RandomResizedCrop.scale is (least, most) of the area, in (0, 1], got {self.scale}.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"RandomResizedCrop.ratio is (least, most) of width to height, got {self.ratio}.")

    def __call__(self, image: Tensor, /) -> Tensor:
        """The part, (C, size, size)."""
        cropped: Tensor = v2.RandomResizedCrop(self.size, scale=self.scale, ratio=self.ratio, antialias=True)(image)
        return cropped


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
