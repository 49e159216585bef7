"""Rows of pixels on disk, and a record for each: what a cache of images is made of.

The folder holds three files: `images.u8`, the pixels row after row; `records`, of which file each row is and in what
state that file was; and `about.json`, what the folder is of. A row counts only by its record, which is written when the
row's pixels have reached the disk. Rows are found by the file's name, and no row ever changes its name.
"""

import hashlib
import json
import math
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from torch import Tensor

if sys.platform != "win32":
    import fcntl

# bytes, modified (ns): the file's when its row was made; bytes is 0 while the row is not there.
RECORD = np.dtype([("name", "S16"), ("bytes", "<i8"), ("modified", "<i8"), ("checksum", "<i8")])

Records = npt.NDArray[np.void]
Numbers = npt.NDArray[np.int64]
Shape = tuple[int, int, int]


class Decodes(Protocol):
    """Image files under one folder that decode to one size: uint8 (C, size, size) each."""

    @property
    def root(self) -> Path:
        """The folder."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...

    def path(self, index: int) -> Path:
        """Where the file lies."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of some files in a cache's folder.

    shape: of each image, (C, size, size).
    wanted: what the record of each file should be, but for its checksum (N,).
    slots: the row of each file, int64 (N,).
    """

    folder: Path
    shape: Shape
    files: Decodes
    wanted: Records
    slots: Numbers

    def fill(self, numbers: Sequence[int]) -> None:
        """Decode these files into their rows, up to the first that fails; their records follow the pixels."""
        done: list[int] = []
        checksums: list[int] = []
        with images_file(self.folder).open("r+b") as out:
            try:
                for number in numbers:
                    pixels = self.decode(number)
                    out.seek(int(self.slots[number]) * pixels.nbytes)
                    out.write(pixels.data)
                    done.append(number)
                    checksums.append(zlib.crc32(pixels.data))
            finally:
                out.flush()
                os.fsync(out.fileno())
                records = self.wanted[done]
                records["checksum"] = checksums
                put_records(self.folder, self.slots[done], records)

    def decode(self, number: int) -> npt.NDArray[np.uint8]:
        """The pixels of a file. Raises: ValueError: they have another shape than those in the cache."""
        image = self.files[number]
        if tuple(image.shape) != self.shape or image.dtype != torch.uint8:
            raise ValueError(
                f"{self.files.path(number)} gives {image.dtype} {tuple(image.shape)}, and the cache {self.folder} "
                f"holds torch.uint8 {self.shape}. Decode all images alike; if all have changed, remove that folder."
            )
        return np.ascontiguousarray(image.numpy())


class Found(NamedTuple):
    """What a cache has of some files (N,).

    slots: the row of each file; new ones follow the last.
    there: whether the row has been filled, be it from another state of the file.
    whole: whether the pixels' file reaches over the row.
    fresh: whether the row can be used.
    """

    slots: Numbers
    there: npt.NDArray[np.bool_]
    whole: npt.NDArray[np.bool_]
    fresh: npt.NDArray[np.bool_]


def find(folder: Path, shape: Shape, wanted: Records) -> Found:
    """Look the files up by their names."""
    known = read_records(folder)
    slot_of = {name: slot for slot, name in enumerate(known["name"].tolist())}
    names, end = wanted["name"].tolist(), len(known)
    for name in names:
        if name not in slot_of:
            slot_of[name] = end
            end += 1
    slots = np.array([slot_of[name] for name in names], dtype=np.int64)
    records = np.concatenate([known, np.zeros(end - len(known), dtype=RECORD)])[slots]
    there, whole = records["bytes"] > 0, slots < rows_held(folder, shape)
    same = (records["bytes"] == wanted["bytes"]) & (records["modified"] == wanted["modified"])
    return Found(slots, there, whole, same & there & whole)


def wanted_records(files: Decodes) -> Records:
    """The records that the files should have now; the one of a file that cannot be looked at fits no row."""
    root = os.fsencode(files.root)
    records = []
    for number in range(len(files)):
        path = os.fsencode(files.path(number))
        name = hashlib.blake2b(path.removeprefix(root), digest_size=16).digest()
        try:
            state = os.stat(path)  # noqa: PTH116 - the path is bytes by now
        except OSError:
            records.append((name, 0, 0, 0))
        else:
            records.append((name, state.st_size, state.st_mtime_ns, 0))
    return np.array(records, dtype=RECORD)


def read_records(folder: Path) -> Records:
    """The records of all rows; none where the cache is new. A last one that was cut off is left out."""
    path = records_file(folder)
    return np.fromfile(path, dtype=RECORD) if path.is_file() else np.zeros(0, dtype=RECORD)


def put_records(folder: Path, slots: Numbers, records: Records) -> None:
    """Write the records of these rows and wait for the disk."""
    path = records_file(folder)
    path.touch()
    with path.open("r+b") as out:
        for slot, record in zip(slots.tolist(), records, strict=True):
            out.seek(slot * RECORD.itemsize)
            out.write(record.tobytes())
        out.flush()
        os.fsync(out.fileno())


def rows_held(folder: Path, shape: Shape) -> int:
    """How many whole rows the pixels' file is long enough for."""
    path = images_file(folder)
    return path.stat().st_size // math.prod(shape) if path.is_file() else 0


def known_shape(folder: Path, size: int) -> Shape | None:
    """The shape of the cache's images; None where the folder does not tell, or is not there."""
    try:
        return int(json.loads((folder / "about.json").read_text())["channels"]), size, size
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_about(folder: Path, files: Decodes, *, size: int, name: str) -> Shape:
    """Look at the first image, and write down what the cache is of."""
    channels = len(files[0])
    about = {"name": name, "root": str(files.root.resolve()), "size": size, "channels": channels}
    aside = folder / "about.json.new"
    aside.write_text(json.dumps(about, indent=1) + "\n")
    aside.replace(folder / "about.json")
    return channels, size, size


def images_file(folder: Path) -> Path:
    """The pixels, uint8, row after row."""
    return folder / "images.u8"


def records_file(folder: Path) -> Path:
    """A `RECORD` for each row."""
    return folder / "records"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside, no other process writes to the cache; the system opens the lock of a process that is killed.

    On Windows there is no such lock.
    """
    with (folder / "lock").open("a") as lock:
        if sys.platform == "win32":
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if os.environ.get("RANK", "0") == "0":
                text = f"Waiting for another process that fills the image cache {folder}."
                Console(stderr=True).print(text, markup=False, soft_wrap=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Closing would not do: a process forked meanwhile holds the file open too.
            fcntl.flock(lock, fcntl.LOCK_UN)
