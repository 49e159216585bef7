"""Each line is in the file and in TensorBoard; a resumed run writes on from its checkpoint; one process writes."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distill.journal import Journal


def line(step: int, loss: float = 0.5) -> dict[str, Any]:
    return {"step": step, "epoch": step / 2, "loss": loss, "raw": {"kd": 2 * loss}, "stage": "train"}


def lines(folder: Path) -> list[Any]:
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would show."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def write(folder: Path, *written: dict[str, Any], resume_after: int | None = None) -> None:
    journal = Journal(folder, writes=True, resume_after=resume_after)
    for one in written:
        journal.write(one)
    journal.close()


def test_each_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path, writes=True)
    for step in (1, 2):
        journal.write(line(step))
        assert lines(tmp_path) == [line(number) for number in range(1, step + 1)]
    journal.close()


def test_numbers_and_numbers_one_deep_are_in_tensorboard_at_their_step(tmp_path: Path) -> None:
    write(tmp_path, line(3, 0.5), {"step": 4, "epoch": 2, "validation": {"accuracy": 0.75, "name": "x"}}, line(9, 0.25))
    assert scalars(tmp_path) == {
        "epoch": [(3, 1.5), (4, 2.0), (9, 4.5)],
        "loss": [(3, 0.5), (9, 0.25)],
        "raw/kd": [(3, 1.0), (9, 0.5)],
        "validation/accuracy": [(4, 0.75)],
    }


def test_a_resumed_journal_keeps_the_lines_up_to_its_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, *map(line, (1, 2, 3, 4)))
    write(tmp_path, line(3, 7.0), line(4, 8.0), resume_after=2)
    assert lines(tmp_path) == [line(1), line(2), line(3, 7.0), line(4, 8.0)]
    assert scalars(tmp_path)["loss"] == [(1, 0.5), (2, 0.5), (3, 7.0), (4, 8.0)]


def test_a_journal_that_starts_anew_shows_nothing_of_the_one_before(tmp_path: Path) -> None:
    """A run that was stopped before its first checkpoint starts anew in the same folder."""
    write(tmp_path, *map(line, (0, 1, 2, 3)))
    write(tmp_path, line(1, 7.0))
    assert lines(tmp_path) == [line(1, 7.0)]
    assert scalars(tmp_path)["loss"] == [(1, 7.0)]


@pytest.mark.parametrize("rest", ['{"step": 3, "lo', "{", '{"step": 3, "loss": 0.5}'])
def test_a_line_that_a_crash_cut_off_is_dropped(rest: str, tmp_path: Path) -> None:
    write(tmp_path, *map(line, (1, 2)))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(rest)
    write(tmp_path, line(3), resume_after=2)
    assert lines(tmp_path) == [line(1), line(2), line(3)]


def test_resuming_without_the_file_starts_one(tmp_path: Path) -> None:
    write(tmp_path, line(5), resume_after=4)
    assert lines(tmp_path) == [line(5)]


def test_a_crash_while_the_journal_is_reopened_loses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, *map(line, (1, 2)))

    def crash(self: Path, *args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            Journal(tmp_path, writes=True, resume_after=2)
    assert lines(tmp_path) == [line(1), line(2)]


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    write(tmp_path, line(1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for resume_after in (None, 0):
        journal = Journal(tmp_path, writes=False, resume_after=resume_after)
        journal.write(line(1, 9.0))
        journal.close()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    Journal(tmp_path / "none", writes=False).write(line(1))
    assert not (tmp_path / "none").exists()


def test_tensorboard_shows_a_resumed_run_where_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads files in the order of their names, which begin with the time."""
    now = 2e9
    monkeypatch.setattr(time, "time", lambda: now)
    write(tmp_path, line(1, 0.1), line(2, 0.2))
    now -= 1000
    write(tmp_path, line(2, 0.4), line(3, 0.3), resume_after=1)
    now -= 1000
    write(tmp_path, line(4, 0.5), resume_after=3)
    shown = scalars(tmp_path)["loss"]
    assert shown == [(step, pytest.approx(loss)) for step, loss in ((1, 0.1), (2, 0.4), (3, 0.3), (4, 0.5))]
