"""Launched as users launch it, on CPUs: two processes train as one does, and half precision stays near the whole."""

import json
import re
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distill.cli import run_command
from tests.commands import TEACHER, run_python

# A student without BatchNorm, whose statistics each process would keep for its own half of the batch.
NETS = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, num_classes))
"""

# A loss of each kind: on labels, on the teacher's answers, and between the examples of the whole batch, of which two
# processes get 33 and 32, and of the last one 20 and 19.
LAUNCH = """
from distill import KD, SGD, CrossEntropy, Digits, Model, Recipe, RKDDistance, Term, main

recipe = Recipe(
    name="launch",
    data=Digits(),
    teacher=Model("distill.models.cifar:resnet8", weights="runs/teacher", arguments={"width": 4}),
    student=Model("nets:Net"),
    plan={
        "task": Term(CrossEntropy(), weight=0.1),
        "kd": Term(KD(temperature=4.0), weight=0.9),
        "samples": Term(RKDDistance(), student="embedding", teacher="embedding"),
    },
    optimizer=SGD(lr=0.05),
    epochs=1,
    batch_size=65,
    log_every=1,
)

if __name__ == "__main__":
    main(recipe)
"""

ON_CPU = {"CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder: recipes, the trained teacher, and the run `launch` of one process in float32."""
    folder = tmp_path_factory.mktemp("launch")
    for name, text in (("teacher.py", TEACHER), ("nets.py", NETS), ("launch.py", LAUNCH)):
        (folder / name).write_text(text)
    train(folder, "teacher.py")
    train(folder, "launch.py")
    return folder


def train(place: Path, *words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(warnings, "formatwarning", warnings.formatwarning)
        assert run_command(["train", *words]) == 0


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def losses(run: Path) -> list[dict[str, float]]:
    """The raw losses of each step, in order."""
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in log if "raw" in line]
    assert [line["step"] for line in steps] == list(range(1, 18)), "17 steps, each written once"
    return [line["raw"] for line in steps]


def accuracy_of(run: Path) -> float:
    report: dict[str, Any] = json.loads((run / "report.json").read_text())
    return float(report["outcomes"][0]["test"]["accuracy"])


def names(run: Path) -> set[str]:
    """All files, TensorBoard's by its kind alone."""
    return {re.sub(r"tfevents.*", "tfevents", str(path.relative_to(run))) for path in run.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_two_launched_processes_train_as_one_does(place: Path) -> None:
    launched = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", free_port()]
    words = ["-m", "accelerate.commands.launch", *launched, "launch.py", "--name", "two"]
    done = run_python(words, place, {**ON_CPU, "ACCELERATE_USE_CPU": "true"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Report: runs/two/report.md") == 1
    one, two = place / "runs" / "launch", place / "runs" / "two"
    assert "over 2 processes" in (two / "plan.txt").read_text()
    for step, (alone, together) in enumerate(zip(losses(one), losses(two), strict=True), start=1):
        assert together == pytest.approx(alone, abs=1e-5), f"step {step}"
    students = [load_file(run / "student" / "model.safetensors") for run in (one, two)]
    torch.testing.assert_close(students[1], students[0], rtol=0, atol=1e-5)
    assert names(two) == names(one)
    assert len(list((two / "tensorboard").iterdir())) == 1
    assert accuracy_of(two) == accuracy_of(one)


@pytest.mark.slow
def test_processes_that_do_not_know_of_each_other_are_refused(place: Path) -> None:
    """torchrun alone starts two, of which each would train everything, into one folder."""
    words = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port()]
    done = run_python([*words, "launch.py", "--name", "lonely"], place, ON_CPU)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("distill")]
    text = (
        "The launcher started 2 processes, but each sees 1. On CPUs set ACCELERATE_USE_CPU=true and launch with "
        "--multi_gpu."
    )
    assert said and set(said) <= {f"distill: {text}", f"distill (process 1): {text}"}, done.stderr
    assert not (place / "runs" / "lonely").exists()


@pytest.mark.slow
def test_the_launchers_precision_counts_where_the_recipe_says_nothing(place: Path) -> None:
    launched = ["--cpu", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "bf16"]
    words = ["-m", "accelerate.commands.launch", *launched, "launch.py", "--name", "launched-bf16"]
    done = run_python(words, place, ON_CPU)
    assert done.returncode == 0, done.stderr
    assert "precision bf16" in (place / "runs" / "launched-bf16" / "plan.txt").read_text()
    assert losses(place / "runs" / "launched-bf16") != losses(place / "runs" / "launch")


def test_bf16_stays_near_float32(place: Path) -> None:
    """bf16 has 8 significant bits, steps of 0.4%: the first losses are within 2%, all of the epoch within 5%."""
    train(place, "launch.py", "--name", "bf16", "--precision", "bf16")
    whole, half = losses(place / "runs" / "launch"), losses(place / "runs" / "bf16")
    assert whole != half
    for step, (wide, narrow) in enumerate(zip(whole, half, strict=True), start=1):
        assert narrow == pytest.approx(wide, rel=0.02 if step < 4 else 0.05), f"step {step}"
    student = load_file(place / "runs" / "bf16" / "student" / "model.safetensors")
    assert {tensor.dtype for tensor in student.values()} == {torch.float32}
    assert abs(accuracy_of(place / "runs" / "bf16") - accuracy_of(place / "runs" / "launch")) < 0.05


def test_one_recipes_precision_does_not_reach_the_next(place: Path) -> None:
    (place / "narrow.py").write_text(LAUNCH.replace('name="launch"', 'name="narrow", precision="bf16"'))
    (place / "wide.py").write_text(LAUNCH.replace('name="launch"', 'name="wide"'))
    train(place, "narrow.py", "wide.py")
    assert "precision bf16" in (place / "runs" / "narrow" / "plan.txt").read_text()
    assert losses(place / "runs" / "wide") == losses(place / "runs" / "launch")
