"""A profile of a few updates: what it leaves, which updates it is of, and that training is as it was without it."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from distill import profiling
from distill.cli import run_command
from distill.clock import Stopwatch
from distill.fit import fit_arm
from distill.profiling import found_in, recording
from distill.recipe import Model, Recipe
from tests.test_fit import TIMED, StoppingBar, lines_of, same
from tests.tiny import on_cpu, pair_recipe, parts_of, plain_recipe

RECIPE = """
from tests.tiny import plain_recipe

recipe = plain_recipe(epochs=4)
"""


def trained(recipe: Recipe, folder: Path, *, profile: bool) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    parts = parts_of(recipe)
    folder.mkdir()
    fit_arm(parts, folder, on_cpu(), seed=0, resume=False, bar=StoppingBar(), profile=profile)
    lines = [{key: value for key, value in line.items() if key not in TIMED} for line in lines_of(folder)]
    return parts.student.state_dict(), lines


def test_a_profiled_run_leaves_both_files_and_is_the_same_to_the_bit(tmp_path: Path) -> None:
    """By hand: epochs have nine updates; the eleventh is the second's second and is tried, the next five are kept."""
    dropping = Model("tests.tiny:net", arguments={"dropout": 0.3})
    recipe = pair_recipe(student=dropping, batch_size=4)
    one, other = (trained(recipe, tmp_path / str(asked), profile=asked) for asked in (True, False))
    assert same(one[0], other[0]) and one[1] == other[1]
    assert not (tmp_path / "False" / "profile").exists()
    folder = tmp_path / "True" / "profile"
    assert sorted(path.name for path in folder.iterdir()) == ["table.txt", "trace.json"]
    names = [event.get("name") for event in json.loads((folder / "trace.json").read_text())["traceEvents"]]
    for part in ("teacher", "forward", "losses", "backward", "optimizer"):
        assert names.count(part) == 5, part
    assert "evaluation" not in names
    table = (folder / "table.txt").read_text()
    assert table.startswith("The operations of updates 12 to 16 ") and "aten::convolution" in table


@pytest.mark.parametrize(
    ("changes", "updates"),
    [
        ({"epochs": 4}, "update 12 "),
        ({"epochs": 2}, "update 6 "),
        ({"epochs": 1}, "update 3 "),
        ({"epochs": 2, "batch_size": 18}, "update 4 "),
        ({"epochs": 1, "batch_size": 18}, None),
        ({"epochs": 3, "batch_size": 36}, None),
    ],
)
def test_of_a_short_run_the_last_updates_are_recorded(
    changes: dict[str, Any], updates: str | None, tmp_path: Path
) -> None:
    """Epochs have three updates, or as few as their batches need; behind the last of an epoch none can begin."""
    trained(plain_recipe(**changes), tmp_path / "run", profile=True)
    folder = tmp_path / "run" / "profile"
    if updates is None:
        assert not folder.exists() and found_in(folder).startswith("Nothing was profiled: too few updates were left")
    else:
        assert (folder / "table.txt").read_text().startswith(f"The operations of {updates}")
        assert "evaluation" not in (folder / "trace.json").read_text()


def test_an_update_too_long_for_a_trace_has_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "_OPERATIONS", 5)
    trained(plain_recipe(epochs=5), tmp_path / "run", profile=True)
    folder = tmp_path / "run" / "profile"
    assert [path.name for path in folder.iterdir()] == ["table.txt"]
    assert (folder / "table.txt").read_text().startswith("The operations of update 11 ")
    assert found_in(folder) == f"Profile: {folder / 'table.txt'}; an update has too many operations for a trace."


class Recorded:
    """A profiler of updates of a hundred operations each; the ones that it has seen are named in its files."""

    def __init__(self, **settings: Any) -> None:
        self.updates: list[int] = []
        self.running = False
        alive.append(self)

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    def events(self) -> list[int]:
        return [0] * 100 * len(self.updates)

    def key_averages(self) -> "Recorded":
        return self

    def table(self, **settings: Any) -> str:
        return f"saw {self.updates}"

    def export_chrome_trace(self, path: str) -> None:
        Path(path).write_text(str(self.updates))


alive: list[Recorded] = []


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    alive.clear()
    monkeypatch.setattr(profiling, "profile", Recorded)


def go(folder: Path, *, start: int = 0, breaks: int | None = None) -> Stopwatch:
    """Three epochs of ten updates each, without the first ones."""
    watch = Stopwatch(torch.device("cpu"))
    with recording(folder, watch, torch.device("cpu"), 30 - start) as after_update:
        for update in range(start + 1, 31):
            if update == breaks:
                raise ArithmeticError
            for recorder in alive:
                if recorder.running:
                    assert watch.named
                    recorder.updates.append(update)
            after_update(update % 10 == 0)
    return watch


@pytest.mark.parametrize(
    ("operations", "start", "updates"),
    [
        (200_000, 2, "[13, 14, 15, 16, 17]"),
        (499, 2, "[13, 14, 15, 16]"),
        (100, 2, "[13]"),
        (200_000, 0, "[12, 13, 14, 15, 16]"),
        (200_000, 6, "[17, 18, 19, 20]"),
        (200_000, 21, "[29, 30]"),
    ],
)
@pytest.mark.usefixtures("told")
def test_as_many_updates_are_kept_as_a_trace_can_hold(
    operations: int, start: int, updates: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: a hundred operations each; nine go by, the tenth is tried, all from where the run goes on.

    Where the ninth ends an epoch one more goes by; what is recorded ends with its epoch.
    """
    monkeypatch.setattr(profiling, "_OPERATIONS", operations)
    watch = go(tmp_path / "profile", start=start)
    assert (tmp_path / "profile" / "trace.json").read_text() == updates
    assert len(alive) == 2 and not watch.named


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("breaks", [10, 13])
def test_a_run_that_ends_amid_an_update_stops_the_profiler(breaks: int, tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError):
        go(tmp_path / "profile", breaks=breaks)
    assert alive and not any(recorder.running for recorder in alive)
    assert not (tmp_path / "profile").exists()


def test_the_command_says_where_the_profile_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain.py").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    assert run_command(["train", "plain.py", "--profile"]) == 0
    out = capsys.readouterr().out
    folder = Path("runs/plain/profile")
    assert f"Profile: {folder / 'table.txt'}, and {folder / 'trace.json'} for ui.perfetto.dev" in out
    assert "Time of training (plain, " in out and (folder / "trace.json").stat().st_size < 10_000_000
    assert "## Where the time went" in Path("runs/plain/report.md").read_text()
    spent = json.loads(Path("runs/plain/report.json").read_text())["outcomes"][0]
    assert sum(spent["spent"].values()) == pytest.approx(spent["seconds"]) and spent["spent"]["forward"] > 0
    assert "profile" not in Path("runs/plain/recipe.json").read_text()
    assert run_command(["plan", "plain.py", "--profile"]) == 2
    assert "profile" in capsys.readouterr().err
