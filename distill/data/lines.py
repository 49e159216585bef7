"""Texts that stay in their files: one a line, plain or in a field of JSON, each read when its turn comes."""

import json
import os
from array import array
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, overload

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from distill.data.text_files import MOST_CHARACTERS, check_length
from distill.messages import nearest, one_line

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A character has at most 4 bytes in UTF-8, and 12 as JSON may escape it; a line may have other fields beside.
_MOST_BYTES = 16 * MOST_CHARACTERS
_CHECKED = 1000  # lines of each file that are read before training
_SHOWN_FROM = 2**28  # bytes of a file that takes a while
_TOLD_EVERY = 2**16  # lines


class Lines(Sequence[str]):
    """Texts of one or more files, of which only the places are in memory.

    A file is opened for each text, in microseconds: an object that holds no open file can be given to other processes.

    field: of the JSON of a line; None where a line is the text.
    file, start, size: int64 (N,): which file each text is in, the byte that its line begins at, and its bytes.
    """

    def __init__(self, files: Sequence[Path], field: str | None, *, file: Tensor, start: Tensor, size: Tensor) -> None:
        self.files, self.field = tuple(files), field
        self.file, self.start, self.size = file, start, size

    def __len__(self) -> int:
        return len(self.start)

    @overload
    def __getitem__(self, which: int) -> str: ...
    @overload
    def __getitem__(self, which: slice) -> "Lines": ...
    def __getitem__(self, which: int | slice) -> "str | Lines":
        if isinstance(which, slice):
            return self.rows(torch.arange(len(self))[which])
        path, start = self.files[int(self.file[which])], int(self.start[which])
        with path.open("rb") as file:
            file.seek(start)
            line = file.read(int(self.size[which]))
        try:
            return text_of(line, self.field)
        except ValueError as error:
            raise ValueError(f"{path}, line {_line_number(path, start)}: {error}") from None

    def rows(self, which: Tensor) -> "Lines":
        """The chosen texts only."""
        return Lines(self.files, self.field, file=self.file[which], start=self.start[which], size=self.size[which])


def text_of(line: bytes, field: str | None) -> str:
    """The text of a line, or of a field of its JSON, without white space around it.

    Raises:
        ValueError: no UTF-8, no JSON, no such field, or more than anyone wrote to be read at once.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1}: 0x{line[error.start]:02x} is not utf-8. Save it as UTF-8.") from None
    if field is not None:
        text = _field(text, field)
    text = text.strip()
    check_length(text, "its text")
    return text


def index_lines(files: Sequence[Path], field: str | None) -> tuple[Lines, int]:
    """The texts of the files, in their order, and the number of empty lines, which are passed over.

    A process goes through each file once. Its first thousand lines are read as they will be in training.

    Raises:
        ValueError: a line that can't be read, or is too long; it is named.
    """
    states = [path.stat() for path in files]
    found = [_index(path, field, at.st_size, at.st_mtime_ns) for path, at in zip(files, states, strict=True)]
    file = torch.cat([torch.full((len(start),), number) for number, (start, _, _) in enumerate(found)])
    start, size = torch.cat([one[0] for one in found]), torch.cat([one[1] for one in found])
    return Lines(files, field, file=file, start=start, size=size), sum(empty for _, _, empty in found)


@cache  # each seed of a run asks for the same files again
def _index(path: Path, field: str | None, num_bytes: int, changed: int) -> tuple[Tensor, Tensor, int]:
    """Where each line of a file begins that is not empty, its bytes, and how many are empty.

    num_bytes, changed: of the file as it is now; a file that was changed is gone through again.
    """
    starts, sizes, empty, begin = array("q"), array("q"), 0, 0
    console = Console(stderr=True)
    # Of several processes on one terminal, the first one speaks.
    silent = num_bytes < _SHOWN_FROM or not console.is_terminal or os.environ.get("RANK", "0") != "0"
    with path.open("rb") as file, Progress(console=console, transient=True, disable=silent) as progress:
        task = progress.add_task(f"Finding the texts of {path.name}", total=num_bytes)
        if file.read(len(_BYTE_ORDER_MARK)) == _BYTE_ORDER_MARK:
            begin = len(_BYTE_ORDER_MARK)
        file.seek(begin)
        for number, line in enumerate(iter(partial(file.readline, _MOST_BYTES + 1), b""), start=1):
            if len(line) > _MOST_BYTES:
                raise ValueError(f"{path}, line {number}: more than {_MOST_BYTES:,} bytes. Write one text a line.")
            if line.isspace():
                empty += 1
            else:
                if number <= _CHECKED:
                    try:
                        text_of(line, field)
                    except ValueError as error:
                        raise ValueError(f"{path}, line {number}: {error}") from None
                starts.append(begin)
                sizes.append(len(line))
            begin += len(line)
            if number % _TOLD_EVERY == 0:
                progress.update(task, completed=begin)
    return torch.tensor(starts, dtype=torch.int64), torch.tensor(sizes, dtype=torch.int64), empty


def _field(line: str, field: str) -> str:
    try:
        values: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON ({one_line(error)}). Write one object a line.") from None
    if not isinstance(values, dict):
        raise ValueError(f"JSON of {type(values).__name__}, not of an object with a field {field!r}.")
    if field not in values:
        raise ValueError(f"no field {field!r}. Nearest: {nearest(field, values)}.")
    text = values[field]
    if not isinstance(text, str):
        raise ValueError(f"field {field!r} holds {type(text).__name__}, not text.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"field {field!r} has half a character, {text[error.start]!r}. Write it as UTF-8.") from None
    return text


def _line_number(path: Path, start: int) -> int:
    """The number of the line that begins at a byte, counted from 1."""
    number, left = 1, start
    with path.open("rb") as file:
        while left and (part := file.read(min(left, 2**20))):
            number += part.count(b"\n")
            left -= len(part)
    return number
