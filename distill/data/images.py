"""Image files: finding, checking and decoding them."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from distill.data.folders import inside

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

_DEEPEST = 100

T = TypeVar("T")


class UnreadableImageError(ValueError):
    """An image that cannot be decoded, named with the reason in one line."""


def decode(path: Path) -> npt.NDArray[np.uint8]:
    """The pixels in RGB, uint8 (H, W, 3): grey and palettes spread to three channels, transparency dropped.

    Raises:
        UnreadableImageError: no image, a truncated one, more pixels than Pillow allows, or more than 8 bits a channel.
    """
    return np.array(_read(path, whole=True), dtype=np.uint8)


def decode_grey(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """The whole image in grey at size x size pixels, uint8 (size, size), bilinear with antialiasing; else as `decode`.

    An image that is not square is stretched to one.
    """
    grey = _read(path, whole=True, mode="L").resize((size, size), Image.Resampling.BILINEAR)
    return np.array(grey, dtype=np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, of which the file's header alone is read.

    Raises:
        UnreadableImageError: no image.
    """
    with _named(path), Image.open(path) as image:
        return image.width, image.height


def _read(path: Path, *, whole: bool, mode: str = "RGB") -> Image.Image:
    """The image in the mode; where not `whole`, a JPEG at an eighth of its sides, with its file read to its end."""
    with _named(path), Image.open(path) as image:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise ValueError(f"{image.width}x{image.height} is more than the {limit} pixels that Pillow allows")
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"more than 8 bits a channel (mode {image.mode}), convert it to 8 bits")
        if not whole:
            image.draft(None, (1, 1))
        image.load()
        opaque: Image.Image = image.convert("RGBA") if "transparency" in image.info else image
        return opaque.convert(mode)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever goes wrong with the image is an error that names it."""
    try:
        yield
    # Pillow answers a damaged file with OSError, SyntaxError, struct.error and others, each format with its own.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        name = str(path) if str(path).isprintable() else repr(str(path))
        raise UnreadableImageError(f"Cannot read image {name}: {reason.rstrip('.')}.") from error


class Files:
    """Image files under one folder, decoded when asked for: uint8 (3, H, W), each of its own size.

    The names lie in one block of bytes, so that forked workers share them instead of copying a million strings.
    """

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.root = root
        self._block = b"".join(encoded)
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int, /) -> Tensor:
        return torch.from_numpy(decode(self.path(index))).permute(2, 0, 1)

    def path(self, index: int) -> Path:
        """Where the file lies."""
        return self.root / self._name(index)

    def rows(self, which: Tensor) -> "Files":
        """The chosen files only, in the order asked for."""
        return Files(self.root, [self._name(index) for index in which.tolist()])

    def _name(self, index: int) -> str:
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._block[start : int(self._ends[index])])


@dataclass(frozen=True, eq=False)
class GreyFiles:
    """Image files decoded in grey at size x size pixels: uint8 (1, size, size), the whole image whatever its shape."""

    files: Files
    size: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Tensor:
        return torch.from_numpy(decode_grey(self.path(index), self.size))[None]

    @property
    def root(self) -> Path:
        """The folder that the files lie under."""
        return self.files.root

    def path(self, index: int) -> Path:
        """Where the file lies."""
        return self.files.path(index)

    def rows(self, which: Tensor) -> "GreyFiles":
        """The chosen files only, in the order asked for."""
        return GreyFiles(self.files.rows(which), self.size)


def image_names(root: Path, folder: Path) -> Iterator[str]:
    """Names under `root` of the image files in and below `folder`, sorted within each; hidden ones are passed over.

    Raises:
        ValueError: a link that leads out of `root`, or a link to a folder; or folders in folders without end.
    """
    if len(folder.relative_to(root).parts) > _DEEPEST:
        raise ValueError(
            f"{str(folder)[:80]}... lies more than {_DEEPEST} folders deep. Give the folder of the images."
        )
    prefix = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_symlink() and inside(root, folder / entry.name).is_dir():
            link = folder / entry.name
            raise ValueError(
                f"{link} is a link to a folder, so its images may count twice. Put the folder itself there."
            )
        if entry.is_dir():
            yield from image_names(root, folder / entry.name)
            continue
        # A path object for each of a hundred thousand files would take most of the time.
        _, dot, ending = entry.name.rpartition(".")
        if dot + ending.lower() in SUFFIXES:
            yield prefix + entry.name


def unreadable(files: Files) -> dict[int, str]:
    """Numbers of the files that cannot be decoded, each with the error's line; every file is read to its end."""

    def check(rows: range) -> dict[int, str]:
        found = {}
        for index in rows:
            try:
                _read(files.path(index), whole=False)
            except UnreadableImageError as error:
                found[index] = str(error)
        return found

    parts = in_threads(check, len(files), description="Checking images")
    return {index: reason for part in parts for index, reason in part.items()}


def in_threads(work: Callable[[range], T], count: int, *, description: str, chunk: int = 256) -> list[T]:
    """What `work` gives for consecutive ranges of 0..count, in order, computed in threads; many show a progress bar."""
    ranges = [range(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    console = Console(stderr=True)
    # Of several processes on one terminal, the first one speaks.
    silent = count <= 2000 or not console.is_terminal or os.environ.get("RANK", "0") != "0"
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(work, ranges)
        return list(track(results, description, len(ranges), console=console, transient=True, disable=silent))
