"""Rows of bytes by number, in shards on disk: each process of each run writes one of its own, and reads all."""

import os
import secrets
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
_NOWHERE = -1


class Rows:
    """Rows of one width in a folder.

    A shard is two files: NAME.rows, the rows one behind the other, and NAME.numbers, which row each of them is. Numbers
    are written once their rows are safe on the disk, so a process that is killed loses what it had not kept and leaves
    nothing that is half. No two processes write to one file, on one machine or on several.

    width: bytes of a row. count: how many numbers there are, from 0 on. Both decide the memory: six bytes a number.
    """

    def __init__(self, folder: Path, width: int, count: int) -> None:
        self.folder, self.width = folder, width
        self._shard = np.full(count, _NOWHERE, np.int16)
        self._slot = np.zeros(count, np.int32)
        self._names: list[str] = []
        self._known: dict[str, int] = {}
        self._maps: list[Bytes] = []
        self._name = f"{secrets.token_hex(8)}"
        self._numbers: list[Numbers] = []
        self.refresh()

    def refresh(self) -> None:
        """See what all processes have kept by now."""
        for path in sorted(self.folder.glob("*.numbers")) if self.folder.is_dir() else []:
            name, kept = path.stem, path.stat().st_size // 8
            known = self._known.get(name, 0)
            if kept <= known:
                continue
            data = path.with_suffix(".rows")
            whole = data.stat().st_size // self.width if data.exists() else 0
            if whole < kept:
                warnings.warn(f"{data} lacks {kept - whole} rows, which are asked of the teacher anew.", stacklevel=2)
                kept = whole
            if name not in self._known:
                self._names.append(name)
                self._maps.append(np.empty((0, self.width), np.uint8))
            number = self._names.index(name)
            numbers = np.fromfile(path, np.int64, count=kept)
            fits = (numbers >= 0) & (numbers < len(self._shard))
            self._shard[numbers[fits]] = number
            self._slot[numbers[fits]] = np.flatnonzero(fits)
            self._known[name] = kept
            if kept:
                rows = np.memmap(data, np.uint8, mode="r", shape=(kept, self.width))
                self._maps[number] = np.asarray(rows)

    def has(self, numbers: Numbers) -> npt.NDArray[np.bool_]:
        """Which of them are there."""
        return np.asarray(self._shard[numbers] != _NOWHERE)

    def count(self) -> int:
        """How many are there."""
        return int((self._shard != _NOWHERE).sum())

    def read(self, numbers: Numbers) -> Bytes:
        """Their rows, uint8 (len(numbers), width); all of them are there."""
        found = np.empty((len(numbers), self.width), np.uint8)
        shards, slots = self._shard[numbers], self._slot[numbers]
        for shard in np.unique(shards):
            of_shard = shards == shard
            found[of_shard] = self._maps[shard][slots[of_shard]]
        return found

    def add(self, numbers: Numbers, rows: Bytes) -> None:
        """Write rows behind one another; nobody sees them before they are kept.

        Raises:
            OSError: they can't be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{self._name}.rows").open("ab") as file:
            file.write(np.ascontiguousarray(rows).data)
        self._numbers.append(numbers)

    def keep(self) -> None:
        """Make what was added safe, and then known to all who refresh.

        Raises:
            OSError: it can't be written.
        """
        if not self._numbers:
            return
        _sync(self.folder / f"{self._name}.rows")
        path = self.folder / f"{self._name}.numbers"
        with path.open("ab") as file:
            file.write(np.concatenate(self._numbers).astype(np.int64).data)
        _sync(path)
        self._numbers.clear()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
