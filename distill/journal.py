"""What a run writes while it goes: `metrics.jsonl`, one line of plain values each, and TensorBoard events."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

Line = Mapping[str, object]


class Journal:
    """Lines of one training run. Only the main process writes; the others call it too, without effect.

    folder: the run's folder.
    resume_after: keep the lines up to this step and write on from there; None starts anew.
    """

    def __init__(self, folder: Path, *, writes: bool, resume_after: int | None = None) -> None:
        self._path = folder / "metrics.jsonl"
        self._writer: SummaryWriter | None = None
        if not writes:
            return
        kept = [] if resume_after is None else [line for line in _lines(self._path) if _step(line) <= resume_after]
        draft = folder / f".{self._path.name}.draft"
        draft.write_text("".join(f"{json.dumps(line)}\n" for line in kept))
        draft.replace(self._path)
        _number_events(folder / "tensorboard")
        purge = 0 if resume_after is None else resume_after + 1  # TensorBoard hides what is there from this step on
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def write(self, line: Line) -> None:
        """Append a line. Numbers, and numbers one mapping deep, also go to TensorBoard at the line's `step`."""
        if self._writer is None:
            return
        with self._path.open("a") as file:
            file.write(f"{json.dumps(line)}\n")
        for name, value in line.items():
            values = value.items() if isinstance(value, Mapping) else [("", value)]
            for inner, number in values:
                if isinstance(number, (int, float)) and name != "step":
                    self._writer.add_scalar(f"{name}/{inner}" if inner else name, float(number), _step(line))

    def close(self) -> None:
        """Flush and close the event file."""
        if self._writer is not None:
            self._writer.close()


def _number_events(folder: Path) -> None:
    """Give older event files names that sort before any new one's, in the order in which they were written.

    TensorBoard reads them in the order of their names, which begin with the time: where the clock was set back, an
    older file would hide what a newer one says.
    """
    for number, path in enumerate(sorted(folder.glob("events.out.tfevents.*"))):
        path.rename(path.with_name(f"events.out.tfevents.{number:010d}"))


def _lines(path: Path) -> list[dict[str, object]]:
    """The lines of the file but a last one that a crash cut off: it has no line end."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _step(line: Line) -> int:
    step = line["step"]
    assert isinstance(step, int)
    return step
