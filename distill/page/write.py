"""A run's page, written into its folder: at the end of the run, and again by `distill report RUN`."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from distill.data import Splits, TextSplits
from distill.finished import Finished, read_run
from distill.folder import write_whole
from distill.page.document import document
from distill.page.gathered import gather
from distill.parser import Parser

FILE = "report.html"


def write_page(run: Finished, splits: Splits | TextSplits | None = None, *, with_examples: bool = True) -> Path:
    """Write report.html whole or not at all, from what the run kept; the place where it lies.

    splits: the run's data, of which examples are shown; None loads them where they are needed.
    with_examples: whether examples are shown at all.
    """
    path = run.folder / FILE
    write_whole(path, document(gather(run, splits, with_examples=with_examples)))
    return path


def report(words: Sequence[str], console: Console) -> None:
    """The command: make the pages of complete runs anew.

    Raises:
        ValueError: a folder is not that of a complete run, or can't be written.
    """
    parser = Parser(
        prog="distill report",
        description="Make report.html of a run anew, from what the run and distill compare kept in its folder.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a complete run, such as runs/digits")
    parser.add_argument("--no-examples", action="store_true", help="show no examples of the data: reads no data")
    parser.add_argument("--allow-import", action="append", default=[], metavar="MODULE", help="see distill train")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    given = parser.parse_args(list(words))
    runs = [read_run(folder, tuple(given.allow_import)) for folder in given.runs]
    for run in runs:
        try:
            path = write_page(run, with_examples=not given.no_examples)
        except OSError as error:
            raise ValueError(f"{run.folder / FILE} can't be written: {error.strerror}.") from error
        console.print(f"Report: {path}", markup=False, highlight=False, soft_wrap=True)
