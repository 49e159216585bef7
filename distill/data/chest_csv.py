"""Files beside chest radiographs that say what is in them: CSV tables, plain or gzipped, and lists of image names."""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from distill.data.chest_labels import quoted
from distill.messages import one_line

_MOST_BYTES = 2**28  # once unpacked; the official table has 8 MB
_NO_NAMES = frozenset({"", ".", ".."})


def check_names(names: Sequence[str], where: Callable[[int], str]) -> None:
    """Refuses a name of an image that leads out of the images' folder, here or on another system, and a second one."""
    seen: set[str] = set()
    for row, name in enumerate(names):
        if "\\" in name or name in _NO_NAMES or ("/" in name and not _NO_NAMES.isdisjoint(name.split("/"))):
            raise ValueError(
                f"{where(row)}: image name {quoted(name)} leads out of its folder. Give a plain file name."
            )
        if name in seen:
            raise ValueError(f"{where(row)}: image {quoted(name)} stands there twice. Keep one of its lines.")
        seen.add(name)


def read_lines(path: Path) -> tuple[list[int], list[str]]:
    """The lines of a list that are not empty: the number of each, and its text without white space around it."""
    lines = {number: text for number, line in enumerate(_text(path).split("\n"), start=1) if (text := line.strip())}
    return list(lines), list(lines.values())


def read_rows(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The records of a CSV file, header first, each with the line it ends at.

    A comma at the end of the lines, as in the release of 2017, makes no field: empty names at the header's end are left
    out, and rows may go on after the last name with empty fields.

    Raises:
        ValueError: a file that can't be read, or a row of fewer or more fields than the header.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    width = 0
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {one_line(error)}.") from None
        if not fields:
            continue
        if not width:
            while fields and not fields[-1].strip():
                fields.pop()
            width = len(fields)
        elif len(fields) != width and (len(fields) < width or any(field.strip() for field in fields[width:])):
            raise ValueError(
                f"{path}, line {reader.line_num}: {len(fields)} fields, but the header has {width}. "
                "Put a field that holds a comma into quotation marks."
            )
        # Tuples of text are nothing to the garbage collector, while lists cost it as long as their reading takes.
        yield reader.line_num, tuple(fields)
    if not width:
        raise ValueError(f"{path} is empty.")


def _text(path: Path) -> str:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        return data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"Cannot read {path}: {one_line(error)}.") from None
