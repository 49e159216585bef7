"""A run's log, read as curves."""

from pathlib import Path

import pytest

from distill.page.history import read_history
from tests.page.made import write_log


def test_every_term_raw_and_weighted_and_the_start(tmp_path: Path) -> None:
    write_log(tmp_path, ("task", "kd"), 20)
    history = read_history(tmp_path, "plain", 1)
    assert set(history.raw) == set(history.weighted) == {"task", "kd"}
    assert history.raw["kd"].x == tuple(range(1, 21))
    assert history.weighted["kd"].y[0] == history.raw["kd"].y[0] / 2
    assert history.validation["accuracy"].x == (0, 10, 20)
    assert set(history.others) == {"learning_rate", "gradient_norm", "examples_per_second"}


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    write_log(tmp_path, ("task",), 5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "ra')
    assert read_history(tmp_path, "plain", 0).raw["task"].x[-1] == 5


@pytest.mark.parametrize("line", ["{", "[]", '{"raw": {}}', '{"step": 1, "raw": {"a": "b"}}', '{"step": 1, "raw": 3}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    write_log(tmp_path, ("task",), 1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 3 is damaged: not a line of a run's log"):
        read_history(tmp_path, "plain", 0)


def test_a_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"metrics\.jsonl can't be read: No such file"):
        read_history(tmp_path, "plain", 0)
