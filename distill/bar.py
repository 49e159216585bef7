"""What a person sees of training: a bar with loss, rate and time left; in a log file, a line now and then."""

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Line = Mapping[str, object]
_LOG_LINES = 5


class Bar:
    """Shows the examples trained out of all, the last loss, examples per second, validation quality and time left.

    On a terminal it is one moving line; elsewhere about five lines for a training run.
    shows: False shows nothing, for processes other than the main one.
    """

    def __init__(self, console: Console, title: str, *, shows: bool) -> None:
        self._console, self._shows = console, shows
        self._title = "".join(character if character.isprintable() else "?" for character in title)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
        )
        hidden = not (shows and console.is_terminal)
        self._progress = Progress(*columns, console=console, transient=True, disable=hidden)
        self._task = self._progress.add_task(self._title, total=1, status="")
        self._loss = self._rate = self._validation = ""
        self._done = self._total = self._printed = 0

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, examples: int) -> None:
        """Say how many examples this process will train on in all."""
        self._total = examples
        self._progress.update(self._task, total=examples)

    def tick(self, examples: int) -> None:
        """Say how many more examples are done."""
        self._done += examples
        self._progress.update(self._task, advance=examples)

    def line(self, line: Line) -> None:
        """Take up a line of the journal."""
        if isinstance(loss := line.get("loss"), float):
            self._loss, self._rate = f"loss {loss:.4f}", f"{line['examples_per_second']:.0f}/s"
        quality = line.get("validation")
        if isinstance(quality, Mapping):
            name = "auroc" if "auroc" in quality else "accuracy"
            self._validation = f"validation {quality[name]:.4f}"
        status = " · ".join(part for part in (self._loss, self._validation, self._rate) if part)
        self._progress.update(self._task, status=status)
        due = self._total * (self._printed + 1) // _LOG_LINES
        if self._shows and not self._console.is_terminal and quality is not None and self._done >= due:
            self._printed = self._done * _LOG_LINES // max(self._total, 1)
            text = f"{self._title} · epoch {line['epoch']} · {status}"
            self._console.print(text, markup=False, emoji=False, soft_wrap=True)
