"""Photographs that are decoded once: the square in their middle, packed as uint8 in the image cache."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from distill.data.augment import CenterCrop, Resize
from distill.data.image_cache import CachedImages, cached
from distill.data.images import Files


@dataclass(frozen=True, eq=False)
class Squares:
    """Image files decoded to the square in their middle, uint8 (3, size, size), after their shorter side is resized."""

    files: Files
    resize: Resize
    crop: CenterCrop

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Tensor:
        return self.crop(self.resize(self.files[index]))

    @property
    def root(self) -> Path:
        """The folder that the files lie under."""
        return self.files.root

    def path(self, index: int) -> Path:
        """Where the file lies."""
        return self.files.path(index)


def packed(files: Files, resize: Resize, crop: CenterCrop) -> CachedImages:
    """The files' squares out of the image cache, those that it lacks after decoding them.

    Raises:
        ValueError: an image that cannot be decoded, or no place for the cache, as `cached` has it.
    """
    return cached(Squares(files, resize, crop), size=crop.size, name=f"photographs resized to {resize.size}")
