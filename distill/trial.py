"""What came of trying settings of a recipe: times of a step beside those of the recipe as it is, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

# Settings of a recipe as a command line gives them, such as (("precision", "bf16"),).
Settings = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Trial:
    """What came of some settings.

    outcome: in a few words; why it failed, or was not tried, where `ratio` is None.
    seconds: of a step. ratio: to a step of the recipe as it is, the median of rounds in which both took turns.
    first_seconds: of the first step, which compiles. memory: bytes at the peak on a GPU; None elsewhere.
    """

    settings: Settings
    outcome: str
    seconds: float | None = None
    ratio: float | None = None
    first_seconds: float | None = None
    memory: int | None = None


def merged(settings: Settings, more: Settings) -> Settings:
    """Both together; where both say something the latter counts."""
    return tuple({**dict(settings), **dict(more)}.items())


def words(settings: Settings) -> list[str]:
    """The settings as the words of a command line."""
    return [word for name, value in settings for word in (f"--{name}", value)]


def table(trials: Sequence[Trial]) -> Table:
    """The trials in rows: settings, milliseconds of a step, its share of the recipe's as it is, first step, outcome."""
    made = Table(title="Steps", title_justify="left")
    made.add_column("setting", no_wrap=True)
    for name in ("ms", "of as it is", "first s"):
        made.add_column(name, justify="right")
    on_gpu = any(trial.memory is not None for trial in trials)
    if on_gpu:
        made.add_column("peak MiB", justify="right")
    made.add_column("outcome", overflow="fold")
    for trial in trials:
        numbers = (
            _number(trial.seconds, 1000, ",.1f"),
            _number(trial.ratio, 1, ".2f"),
            _number(trial.first_seconds, 1, ".1f"),
            *((_number(trial.memory, 2**-20, ",.0f"),) if on_gpu else ()),
        )
        name = "\n".join(f"{name} {value}" for name, value in trial.settings) or "as it is"
        made.add_row(escape(name), *numbers, escape(trial.outcome))
    return made


def advice(best: Trial, more: Settings = ()) -> str:
    """What to add to the command line, in a line.

    more: settings that act on what a step waits for, and not on the step.
    """
    found = " ".join(words((*best.settings, *more)))
    if not found:
        return "Nothing that was tried makes a step cheaper here."
    return f"A step takes {best.ratio:.2f} of its time with: {found}" if best.settings else f"To wait less: {found}"


def _number(value: float | None, factor: float, form: str) -> str:
    return "" if value is None else format(value * factor, form)
