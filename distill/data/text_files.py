"""Files of texts: decoding them, and reading columns out of CSV, TSV and parquet."""

import codecs
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.data.folders import inside
from distill.messages import nearest, one_line

# A novel has about 500,000 characters: what is longer is a quotation mark that was never closed, or no text at all.
MOST_CHARACTERS = 1_000_000
# A parquet file may name one long text a thousand times: so many bytes are read in any case, and so many times its own.
_MOST_UNPACKED, _MOST_TIMES, _ROWS_AT_ONCE = 2**28, 100, 256

SUFFIXES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Table:
    """Columns of a file. numbers: the line, or the row, that each entry begins at, counted from 1 as `unit` says."""

    path: Path
    columns: Mapping[str, Sequence[str]]
    numbers: Sequence[int]
    unit: str

    def where(self, entry: int) -> str:
        """The place of an entry, for messages."""
        return f"{self.path}, {self.unit} {self.numbers[entry]}"


def check_encoding(name: str, encoding: str) -> None:
    """Refuses an encoding that Python does not have, or that does not give text."""
    try:
        "a".encode(encoding)
    except (LookupError, ValueError):
        raise ValueError(
            f"{name}={encoding!r} is no encoding of text. Write 'utf-8-sig', 'gb18030' or another name of Python's."
        ) from None


def present(root: Path, name: str) -> Path:
    """The file of that name in the data set's folder.

    Raises:
        ValueError: it is missing, or leads out of the folder.
    """
    path = inside(root, root / name)
    if not path.is_file():
        files = sorted(entry.name for entry in root.iterdir() if entry.is_file() and not entry.name.startswith("."))
        raise ValueError(f"{path} is missing. Nearest in {root}: {nearest(name, files)}.")
    return path


def read_text(path: Path, *, encoding: str = "utf-8-sig", way_out: str = "Save it as UTF-8.") -> str:
    """The file's characters, with or without a byte order mark in front; line ends become "\\n".

    Raises:
        ValueError: bytes that are none in this encoding, or NUL characters; the first is named by its line.
    """
    data = path.read_bytes()
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        offset = error.start - error.object.rfind(b"\n", 0, error.start)
        raise ValueError(
            f"{path}, line {line}, byte {offset}: 0x{error.object[error.start]:02x} is not {encoding}. {way_out}"
        ) from None
    # UTF-16 without its mark, or a program's own file, reads as text full of them.
    if "\0" in text:
        raise ValueError(f"{path}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: a NUL, so it is no text file.")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def check_length(text: str, where: str) -> None:
    """Refuses a text that is longer than any that someone wrote to be read at once."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(
            f"{where}: {len(text):,} characters are more than the {MOST_CHARACTERS:,} that a text may have."
        )


def read_table(path: Path, columns: Sequence[str], *, encoding: str = "utf-8-sig") -> Table:
    """The named columns of a file: .csv with quotation marks, .tsv without, or .parquet; labels and texts stripped.

    Raises:
        ValueError: another kind of file, a column that it does not have, or a damaged file.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} ends in {suffix!r}. Tables of texts end in {', '.join(SUFFIXES)}.")
    table = _read_parquet(path, columns) if suffix == ".parquet" else _read_lines(path, columns, suffix, encoding)
    for name, entries in table.columns.items():
        if not entries:
            raise ValueError(f"{path} has no rows below its column {name!r}.")
        for entry, text in enumerate(entries):
            if len(text) > MOST_CHARACTERS:
                check_length(text, table.where(entry))
    return table


def _read_lines(path: Path, columns: Sequence[str], suffix: str, encoding: str) -> Table:
    try:
        other = "utf-8-sig" if codecs.lookup(encoding).name == "gb18030" else "gb18030"
        way_out = f"Save it as {encoding}, or set encoding={other!r} where it is that."
        text = read_text(path, encoding=encoding, way_out=way_out)
    except UnicodeError as error:
        raise ValueError(f"{path} is not {encoding}: {one_line(error)}.") from None
    records = _records(path, text, suffix)
    _, header = next(records, (1, []))
    names = [name.strip() for name in header]
    places = [_find(path, name, names) for name in columns]
    found: list[list[str]] = [[] for _ in columns]
    numbers = []
    for line, fields in records:
        if len(fields) != len(names):
            hint = " Put a field that holds a comma into quotation marks." if suffix == ".csv" else ""
            raise ValueError(f"{path}, line {line}: {len(fields)} fields, but the header has {len(names)}.{hint}")
        numbers.append(line)
        for place, entries in zip(places, found, strict=True):
            entries.append(fields[place].strip())
    return Table(path, dict(zip(columns, found, strict=True)), numbers, "line")


def _records(path: Path, text: str, suffix: str) -> Iterator[tuple[int, list[str]]]:
    """The line that each record begins at, and its fields; empty lines are passed over."""
    if suffix == ".tsv":
        for number, line in enumerate(text.split("\n"), start=1):
            if line:
                yield number, line.split("\t")
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    before = csv.field_size_limit()
    while True:
        start = reader.line_num + 1
        # The limit is the process's: it is lifted for one record, since others may read files in between.
        csv.field_size_limit(MOST_CHARACTERS)
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            way_out = "Close each quotation mark, and write one inside a quoted field twice."
            raise ValueError(f"{path}, line {start}: {one_line(error)}. {way_out}") from None
        finally:
            csv.field_size_limit(before)
        if fields:
            yield start, fields


def _find(path: Path, name: str, names: Sequence[str]) -> int:
    if names.count(name) != 1:
        if name in names:
            raise ValueError(f"{path} has {names.count(name)} columns {name!r}. Give each a name of its own.")
        raise ValueError(f"{path} has no column {name!r}. Nearest: {nearest(name, names)}.")
    return names.index(name)


def _read_parquet(path: Path, columns: Sequence[str]) -> Table:
    try:
        from pyarrow import ArrowException
        from pyarrow import Table as ArrowTable
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ValueError(f"{path} is parquet, which needs pyarrow. Install it: pip install 'distill[text]'.") from None
    try:
        with ParquetFile(path) as file:
            for name in columns:
                _find(path, name, file.schema_arrow.names)
            limit = max(_MOST_UNPACKED, _MOST_TIMES * path.stat().st_size)
            batches, size = [], 0
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
                size += batch.nbytes
                if size > limit:
                    raise ValueError(
                        f"{path} unpacks to more than {_MOST_TIMES} times its size. If that is right, save it without "
                        "compression and dictionaries."
                    )
                batches.append(batch)
            schema = batches[0].schema if batches else file.schema_arrow
            read = ArrowTable.from_batches(batches, schema)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as parquet: {one_line(error)}.") from None
    found: dict[str, list[str]] = {name: [] for name in columns}
    for name, entries in found.items():
        try:
            values = read[name].to_pylist()
        except (OverflowError, ValueError) as error:  # a moment that Python has no number for, or text that is none
            kind = read[name].type
            raise ValueError(f"{path}: column {name!r} of type {kind} can't be read: {one_line(error)}.") from None
        for row, value in enumerate(values, start=1):
            if value is not None and not isinstance(value, str | int | float):
                kind = type(value).__name__
                raise ValueError(f"{path}, row {row}: column {name!r} holds {kind}, neither text nor a number.")
            # A missing value is the empty text, as in a CSV file.
            entries.append("" if value is None else str(value).strip())
    return Table(path, found, range(1, read.num_rows + 1), "row")
