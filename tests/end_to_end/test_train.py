"""The real command on a tiny pair: what a run leaves behind, and that it can be run again, resumed and taken away."""

import json
import math
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distill import metrics
from distill.cli import run_command
from distill.data import Digits
from distill.models.cifar import resnet8
from distill.trainer.lines import SHARES
from distill.view import View
from tests.commands import PAIR, TEACHER, run_python, snapshot

# Dropout and a worker process, since both use the random state that a resumed run has to find again. Where it is told
# to, the process kills itself in its second epoch.
KILLED = """
import os
import signal
from dataclasses import dataclass

from torch import nn

from distill import SGD, CrossEntropy, Digits, Model, Recipe, Term


class Net(nn.Sequential):
    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, num_classes))


@dataclass(frozen=True)
class Falling:
    def factor(self, epoch: float, epochs: int) -> float:
        if 1.3 < epoch < 2 and "KILL" in os.environ:
            os.kill(os.getpid(), int(os.environ["KILL"]))
        return 1 - epoch / epochs


recipe = Recipe(
    name="killed",
    data=Digits(augment=True),
    student=Model("killed:Net"),
    plan={"task": Term(CrossEntropy())},
    optimizer=SGD(lr=0.05),
    schedule=Falling(),
    epochs=3,
    batch_size=100,
    ema=0.9,
    workers=1,
    log_every=3,
)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of this file's runs: the recipes, and what the teacher and the pair left."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "teacher.py").write_text(TEACHER)
    (folder / "pair.py").write_text(PAIR)
    train(folder, "teacher.py")
    before = snapshot(folder / "runs" / "teacher")
    train(folder, "pair.py")
    assert snapshot(folder / "runs" / "teacher") == before, "the teacher's run is as it was"
    return folder


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command changes in a process is put back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)


def train(place: Path, *words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run_command(["train", *words]) == 0


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def results(report: dict[str, Any]) -> list[Any]:
    """What a report says of each student, without the time it took."""
    return [{key: value for key, value in one.items() if key not in ("seconds", "spent")} for one in report["outcomes"]]


def answers(student: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of the test examples, from the bare network and PyTorch alone; all is read from the folder."""
    config = read(student / "config.json")
    model = resnet8(config["num_classes"], config["in_channels"], **config["arguments"]).eval()
    model.load_state_dict(load_file(student / "model.safetensors"), strict=True)
    test = Digits().load(0, None).test
    view = View(config["view"]["size"], tuple(config["view"]["mean"]), tuple(config["view"]["std"])).module()
    with torch.no_grad():
        return model(view(torch.stack([test[(0, row)].image for row in range(len(test))]))), test.labels


def test_a_run_leaves_its_files(place: Path) -> None:
    run = place / "runs" / "pair"
    names = {path.name for path in run.iterdir()}
    files = {"recipe.json", "plan.txt", "metrics.jsonl", "result.json", "answers.safetensors", "compare.json"}
    reports = {"report.json", "report.md", "report.html"}
    assert names == files | reports | {"tensorboard", "checkpoints", "student", "arms", "teacher"}
    assert {path.name for path in (run / "student").iterdir()} == {"model.safetensors", "config.json"}
    assert len(list((run / "tensorboard").glob("events.*"))) == 1
    assert {path.name for path in (run / "arms").iterdir()} == {
        f"{arm}-{seed}" for arm in ("transferred", "plain", "initialized") for seed in (0, 1)
    } - {"transferred-0"}
    for arm in (run, *(run / "arms").iterdir()):
        saved = [read(path / "progress.json") for path in (arm / "checkpoints").iterdir()]
        assert 1 <= len(saved) <= 2 and max(one["step"] for one in saved) == 34
        assert (arm / "student" / "model.safetensors").is_file() and (arm / "result.json").is_file()
    assert not list(run.rglob(".*"))
    assert "Conv1x1" in (run / "plan.txt").read_text() and "transferred" in (run / "report.md").read_text()


def test_the_log_has_each_term_and_each_validation(place: Path) -> None:
    """Two epochs of 1,079 examples in batches of 64 are 34 steps; a line comes at each epoch's end."""
    log = lines(place / "runs" / "pair" / "metrics.jsonl")
    trained, validated = ([line for line in log if key in line] for key in ("loss", "validation"))
    assert [line["step"] for line in trained] == [line["step"] for line in validated] == [17, 34]
    for line in trained:
        assert set(line["raw"]) == set(line["weighted"]) == {"task", "kd", "hint"}
        assert line["loss"] == pytest.approx(sum(line["weighted"].values()), rel=1e-6)
        assert line["weighted"]["task"] == pytest.approx(0.1 * line["raw"]["task"], rel=1e-6)
        assert all(0 <= line[name] <= 1 for name in SHARES)
        assert sum(line[name] for name in SHARES) == pytest.approx(1.0)
    assert trained[1]["raw"]["kd"] < trained[0]["raw"]["kd"]


def test_what_the_student_answered_before_training_is_logged_and_reported(place: Path) -> None:
    """The transferred student and the initialized one start alike, from the teacher; the plain one does not."""
    run = place / "runs" / "pair"
    start = {(one["arm"], one["seed"]): one["start"] for one in read(run / "report.json")["outcomes"]}
    first = lines(run / "metrics.jsonl")[0]
    assert (first["step"], first["epoch"], first["start"]) == (0, 0, start["transferred", 0])
    assert len(start) == 6 and start["transferred", 1] == start["initialized", 1] != start["plain", 1]
    assert set(first["start"]) == set(read(run / "report.json")["outcomes"][0]["validation"])
    mean = (start["transferred", 0]["accuracy"] + start["transferred", 1]["accuracy"]) / 2
    assert f"{mean:.2%} (transferred) before training." in (run / "report.md").read_text().replace("\\", "")


def test_the_report_has_every_student_and_the_teacher(place: Path) -> None:
    report = read(place / "runs" / "pair" / "report.json")
    assert {(one["arm"], one["seed"]) for one in report["outcomes"]} == {
        (arm, seed) for arm in ("transferred", "plain", "initialized") for seed in (0, 1)
    }
    assert report["seeds"] == [0, 1]
    assert all(math.isfinite(value) for one in report["outcomes"] for value in one["test"].values())
    assert report["teacher"]["test"]["accuracy"] > 0.5
    assert report["teacher"]["test"] == read(place / "runs" / "teacher" / "report.json")["outcomes"][0]["test"]
    assert report["teacher_cost"]["parameters"] == 5142 and report["student_cost"]["parameters"] == 1384
    assert report["student_cost"]["bytes"] == (place / "runs/pair/student/model.safetensors").stat().st_size
    assert set(report["summary"]["arms"]) == {"transferred", "plain", "initialized"}


def test_the_saved_students_load_into_the_bare_network_and_give_the_reported_numbers(place: Path) -> None:
    run = place / "runs" / "pair"
    teacher, _ = answers(place / "runs" / "teacher" / "student")
    report = read(run / "report.json")
    for one in report["outcomes"]:
        arm = f"{one['arm']}-{one['seed']}"
        logits, labels = answers(run / "student" if arm == "transferred-0" else run / "arms" / arm / "student")
        assert one["test"] == pytest.approx(metrics.quality(logits, labels), abs=1e-6)
        assert one["agreement"] == pytest.approx(metrics.agreement(logits, teacher), abs=1e-9)
        assert one["divergence"] == pytest.approx(metrics.divergence(logits, teacher), abs=1e-5)


def test_the_arms_are_different_students(place: Path) -> None:
    run = place / "runs" / "pair"
    files = [path.read_bytes() for path in run.rglob("student/model.safetensors")]
    assert len(files) == 6 and len(set(files)) == 6


def test_the_recipe_of_a_run_runs_again_to_the_same_numbers(place: Path) -> None:
    train(place, "runs/pair/recipe.json", "--name", "again")
    first, again = place / "runs" / "pair", place / "runs" / "again"
    assert results(read(first / "report.json")) == results(read(again / "report.json"))
    students = sorted(path.relative_to(first) for path in first.rglob("student/*"))
    assert len(students) == 12
    assert all((first / path).read_bytes() == (again / path).read_bytes() for path in students)


def test_resuming_a_finished_run_changes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(place / "runs")
    train(place, "pair.py", "--resume", "auto")
    assert snapshot(place / "runs") == before
    out = capsys.readouterr().out
    assert "runs/pair is complete already." in out and "transferred" in out
    assert out.endswith("Report: runs/pair/report.md\nReport: runs/pair/report.html\n")


def test_a_run_that_lost_its_report_gets_the_same_one_without_training(place: Path) -> None:
    run = place / "runs" / "pair"
    before, report = snapshot(run), read(run / "report.json")
    (run / "report.json").unlink()
    train(place, "pair.py", "--resume", "auto")
    after, again = snapshot(run), read(run / "report.json")
    changing = {"report.json", "report.md", "report.html"}
    assert {name: after[name] for name in after if name not in changing} == {
        name: before[name] for name in before if name not in changing
    }
    for key in set(report) - {"started", "teacher_cost", "student_cost", "summary"}:
        assert again[key] == report[key], key
    assert again["summary"]["arms"] == report["summary"]["arms"]
    assert again["summary"]["verdict"] == report["summary"]["verdict"]


@pytest.mark.parametrize("told", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1], ids=lambda told: told.name)
def test_a_killed_run_resumes_to_the_same_bits(told: signal.Signals, place: Path) -> None:
    """SIGKILL loses what came after the epoch's checkpoint; the others save at their step, and say so by the code."""
    (place / "killed.py").write_text(KILLED)
    name = f"killed-{told.name}"
    done = run_python(["-m", "distill", "train", "killed.py", "--name", name], place, {"KILL": str(int(told))})
    run, straight = place / "runs" / name, place / "straight" / name
    saved = sorted(path.name for path in (run / "checkpoints").glob("step-*"))
    if told == signal.SIGKILL:
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert saved == ["step-00000011"]
        assert lines(run / "metrics.jsonl")[-1]["step"] > 11, "killed in the middle of an epoch"
    else:
        assert done.returncode == 75, done.stderr
        assert len(saved) == 2 and "step-00000011" < saved[1] < "step-00000022"
        said = done.stderr.splitlines()[-1]
        assert said.startswith(f"distill: {told.name} stopped ") and said.endswith("Go on with --resume auto.")
    assert not (run / "student").exists()
    train(place, "killed.py", "--name", name, "--resume", "auto")
    train(place, "killed.py", "--name", name, "--root", "straight")
    for name in ("student/model.safetensors", "student/config.json", "recipe.json"):
        assert (run / name).read_bytes() == (straight / name).read_bytes(), name
    assert results(read(run / "report.json")) == results(read(straight / "report.json"))
    timed = ("examples_per_second", *SHARES)
    logs = [
        [{key: value for key, value in line.items() if key not in timed} for line in lines(one / "metrics.jsonl")]
        for one in (run, straight)
    ]
    assert logs[0] == logs[1]
