"""A cache of decoded, resized images on disk: each file is decoded once, and read from a memory map from then on.

A build that was killed goes on where it stopped, and no row is used before it is whole. Every read compares the pixels
with the checksum that was taken when they were decoded, a third of a millisecond for 1024x1024; a row that does not fit
is named in a warning and decoded anew.
"""

import hashlib
import math
import os
import re
import shutil
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distill.data.image_rows import (
    RECORD,
    Numbers,
    Records,
    Rows,
    alone,
    find,
    images_file,
    known_shape,
    put_records,
    read_records,
    records_file,
    rows_held,
    wanted_records,
    write_about,
)
from distill.data.image_rows import Decodes as Decodes
from distill.data.images import in_threads

_FORMAT = 1
# Rows between two waits for the disk, and what each thread loses when it is killed: about a second of decoding.
_CHUNK = 64


def cache_place() -> Path:
    """Where caches lie: $DISTILL_CACHE, else $XDG_CACHE_HOME/distill, else ~/.cache/distill."""
    if place := os.environ.get("DISTILL_CACHE"):
        return Path(place).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "distill"


class CachedImages:
    """Images out of a cache, uint8 (C, size, size) each. Workers share one memory map; pickling opens it anew."""

    def __init__(self, rows: Rows, which: Numbers) -> None:
        self._rows, self._which = rows, which
        count = int(rows.slots.max()) + 1
        pixels = np.memmap(images_file(rows.folder), np.uint8, mode="r", shape=(count, *rows.shape))
        records = np.memmap(records_file(rows.folder), RECORD, mode="r", shape=(count,))
        # Plain arrays over the maps: each row of a memmap would be a memmap, which takes several times as long.
        self._pixels, self._records = np.asarray(pixels), np.asarray(records)

    def __reduce__(self) -> tuple[Callable[..., "CachedImages"], tuple[Any, ...]]:
        return CachedImages, (self._rows, self._which)

    def __len__(self) -> int:
        return len(self._which)

    def __getitem__(self, index: int, /) -> Tensor:
        number = int(self._which[index])
        pixels = self._read(number)
        return torch.from_numpy(self._mend(number) if pixels is None else pixels)

    def rows(self, which: Tensor) -> "CachedImages":
        """The chosen images only, in the order asked for."""
        return CachedImages(self._rows, self._which[which.numpy()])

    def _read(self, number: int) -> npt.NDArray[np.uint8] | None:
        """A copy of the row; None where it does not fit its record."""
        slot = self._rows.slots[number]
        pixels, record = self._pixels[slot].copy(), self._records[slot]
        ours = record["name"] == self._rows.wanted["name"][number] and record["bytes"] > 0
        return pixels if ours and zlib.crc32(pixels.data) == record["checksum"] else None

    def _mend(self, number: int) -> npt.NDArray[np.uint8]:
        """The image of a row that does not fit: another process may be at it; else it is damaged and written anew."""
        rows, outcome = self._rows, "is decoded anew"
        try:
            with alone(rows.folder):
                pixels = self._read(number)
                if pixels is not None:
                    return pixels
                rows.fill([number])
        except OSError as error:
            outcome = f"cannot be written anew ({error.strerror or error}) and is decoded each time"
        warnings.warn(
            f"The image cache {rows.folder} is damaged at {rows.files.path(number)}, which {outcome}.", stacklevel=3
        )
        return rows.decode(number)


def cached(files: Decodes, *, size: int, name: str) -> CachedImages:
    """The same images, read from a cache on disk, after decoding those that it lacks.

    A file whose size or time of change is not what it was when it was cached is decoded anew, and counted in a warning.
    One process writes at a time (except on Windows, which has no such lock), and others that lack images wait for it.
    A cache that has them all is only read, so it may lie where nothing can be written. Another split or order of the
    same files uses the same rows. Rows of files that are gone stay until the folder is removed.

    name: of the data set and of the way `files` decodes it; each way needs its own.

    Raises:
        ValueError: no files, images of unlike shapes, or no place for the cache: full, not to be written, in the data.
        UnreadableImageError: a file that cannot be decoded; what was decoded before it stays.
    """
    if not len(files):
        raise ValueError(f"There are no images of {name} in {files.root} to cache.")
    folder = _folder(files.root, size=size, name=name)
    wanted = wanted_records(files)
    shape = known_shape(folder, size)
    found = None if shape is None else find(folder, shape, wanted)
    if shape is not None and found is not None and found.fresh.all():
        rows = Rows(folder, shape, files, wanted, found.slots)
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with alone(folder):
                rows = _build(folder, files, wanted, size=size, name=name)
        except OSError as error:
            raise ValueError(
                f"Cannot write the image cache {folder}: {error.strerror or error}. Set DISTILL_CACHE elsewhere."
            ) from error
    return CachedImages(rows, np.arange(len(files)))


def _folder(root: Path, *, size: int, name: str) -> Path:
    """The cache's folder. Raises: ValueError: it would lie inside the data."""
    root, place = root.resolve(), cache_place()
    if place.resolve().is_relative_to(root):
        raise ValueError(f"The image cache {place} would lie inside the data, {root}. Set DISTILL_CACHE elsewhere.")
    key = hashlib.blake2b(repr((_FORMAT, name, size, os.fsencode(root))).encode(), digest_size=8).hexdigest()
    return place / f"images-{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}-{size}-{key}"


def _build(folder: Path, files: Decodes, wanted: Records, *, size: int, name: str) -> Rows:
    """Decode what the cache lacks. No other process may write meanwhile."""
    shape = known_shape(folder, size) or write_about(folder, files, size=size, name=name)
    # Looked up again: another process may have filled them while this one waited.
    found = find(folder, shape, wanted)
    rows = Rows(folder, shape, files, wanted, found.slots)
    todo = (~found.fresh).nonzero()[0]
    if not len(todo):
        return rows
    held, row_bytes = rows_held(folder, shape), math.prod(shape)
    changed = int((found.there & found.whole & ~found.fresh).sum())
    _check_space(folder, (len(todo) - changed) * row_bytes, name)
    # A build writes records first, so that more pixels than records means that records were lost.
    if (found.there & ~found.whole).any() or held > len(read_records(folder)):
        warnings.warn(f"The image cache {folder} was cut short. What it lost is decoded anew.", stacklevel=3)
    if changed:
        warnings.warn(
            f"{changed} of {len(files)} images of {name} have changed since they were cached and are decoded anew.",
            stacklevel=3,
        )
    empty = np.zeros(len(todo), dtype=RECORD)
    empty["name"] = wanted["name"][todo]
    put_records(folder, found.slots[todo], empty)
    # Only ever longer: cutting the file would kill a process that reads it through a memory map.
    if (end := int(found.slots.max()) + 1) > held:
        images_file(folder).touch()
        os.truncate(images_file(folder), end * row_bytes)

    def fill(part: range) -> None:
        rows.fill(todo[part.start : part.stop].tolist())

    in_threads(fill, len(todo), description="Decoding images for the cache", chunk=_CHUNK)
    return rows


def _check_space(folder: Path, needed: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"The image cache of {name} needs {needed / 1e9:.1f} GB more, and {cache_place()} has {free / 1e9:.1f} GB "
            "free. Set DISTILL_CACHE to a larger place, choose a smaller size, or do without the cache."
        )
