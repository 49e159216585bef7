"""A step that was made cheaper is the same step: compiled, over micro-batches, sizes, epochs, stages and processes."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from distill import speed as speeding
from distill.build import make_accelerator, stage_trainer, training_feed
from distill.heads import Conv1x1
from distill.losses import KD, Hint
from distill.measure import evaluating
from distill.plan import Term
from distill.recipe import SGD, Model, Recipe, Speed
from distill.trainer import Trainer
from tests.compiling import pair
from tests.compiling import quick_backend as quick_backend
from tests.processes import run_processes
from tests.tiny import on_cpu, parts_of

BOTH = Speed(compile="both")


def stepped(recipe: Recipe, epochs: int = 2) -> tuple[Trainer, list[dict[str, float]]]:
    """The trainer behind some epochs, and each step's losses."""
    accelerator = make_accelerator(recipe) if "RANK" in os.environ else on_cpu()
    parts = parts_of(recipe)
    trainer, _ = stage_trainer(parts, recipe.all_stages()[0], accelerator, seed=3)
    feed, losses = training_feed(parts, accelerator, seed=3), []
    for epoch in range(epochs):
        trainer.learner.train()
        for progress, window in feed(epoch):
            losses.append({name: float(value) for name, value in trainer.step(window, progress).items()})
    return trainer, losses


def far(some: list[dict[str, float]], others: list[dict[str, float]]) -> float:
    """The largest difference of two runs' losses, as a share."""
    assert len(some) == len(others) > 0
    return max(
        abs(a[name] - b[name]) / max(abs(b[name]), 1e-3) for a, b in zip(some, others, strict=True) for name in b
    )


@pytest.mark.parametrize(
    ("speed", "most"),
    [
        (Speed(channels_last=True), 1e-4),
        (Speed(fold_teacher=True), 1e-4),
        (Speed(teacher_precision="bf16"), 0.03),
        (Speed(compile="student"), 1e-5),
        (Speed(compile="teacher"), 1e-5),
        (Speed(channels_last=True, compile="both", fold_teacher=True), 1e-4),
    ],
    ids=["channels last", "fold", "bf16 teacher", "student", "teacher", "together"],
)
@pytest.mark.parametrize("micro_batch_size", [None, 4])
def test_a_cheaper_step_has_the_same_losses(speed: Speed, most: float, micro_batch_size: int | None) -> None:
    """With ragged batches, a relation over micro-batches, dropout, and a pass without gradient before."""
    dropping = Model("tests.tiny:net", arguments={"dropout": 0.3})
    changes = {"micro_batch_size": micro_batch_size, "student": dropping}
    _trainer, losses = stepped(pair(speed, **changes))
    _, expected = stepped(pair(None, **changes))
    assert far(losses, expected) < most
    assert counters["graph_break"] == {}


def test_the_bound_on_losses_can_be_missed() -> None:
    _, losses = stepped(pair(None))
    _, others = stepped(pair(None, optimizer=SGD(lr=0.021)))
    assert far(losses, others) > 1e-3


def test_a_compiled_student_is_no_other_student() -> None:
    trainer, _ = stepped(pair(BOTH))
    plain, _ = stepped(pair(None))
    assert [*trainer.learner.state_dict()] == [*plain.learner.state_dict()]
    assert counters["stats"]["unique_graphs"] > 0


def test_batches_of_many_sizes_compile_a_few_graphs() -> None:
    """36 examples in batches of 13, 13, 10; then in twos to elevens: the size becomes a variable of the graph."""
    recipe = pair(BOTH)
    parts, accelerator = parts_of(recipe), on_cpu()
    trainer, _ = stage_trainer(parts, recipe.all_stages()[0], accelerator, seed=3)
    trainer.learner.train()
    graphs = []
    batch = next(iter(training_feed(parts, accelerator, seed=3)(0)))[1][0]
    for size in (13, 13, 10, 2, 3, 5, 7, 11, 13, 4):
        trainer.step([batch.rows(slice(size))])
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] == 2
    assert graphs[2] == graphs[-1] == 4


def test_validation_between_epochs_compiles_nothing_and_changes_nothing() -> None:
    recipe = pair(BOTH)
    parts, accelerator = parts_of(recipe), on_cpu()
    trainer, _learner = stage_trainer(parts, recipe.all_stages()[0], accelerator, seed=3)
    losses, graphs = [], []
    for epoch in range(4):
        trainer.learner.train()
        for progress, window in training_feed(parts, accelerator, seed=3)(epoch):
            losses.append({name: float(value) for name, value in trainer.step(window, progress).items()})
        graphs.append(counters["stats"]["unique_graphs"])
        with evaluating(parts.student), torch.no_grad():
            parts.student(window[0].inputs.float())
    _, expected = stepped(pair(None), epochs=4)
    assert far(losses, expected) < 1e-5
    assert graphs[0] == graphs[-1]


def test_each_stage_and_seed_compiles_its_own_taps() -> None:
    """Two students of one kind, with other weights and then with other taps, in one process."""
    for changes in (
        {},
        {"seed": 1},
        {"plan": {"kd": Term(KD()), "hint": Term(Hint(), student="layer2", teacher="layer2", head=Conv1x1())}},
    ):
        _, losses = stepped(pair(BOTH, **changes))
        _, expected = stepped(pair(None, **changes))
        assert far(losses, expected) < 1e-5


# With generated code, and in two processes


@pytest.mark.slow
def test_inductor_makes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert speeding._BACKEND == "inductor"
    speeding.check_compiler("cpu")
    dropping = Model("tests.tiny:net", arguments={"dropout": 0.3})
    _, losses = stepped(pair(BOTH, student=dropping, micro_batch_size=7))
    assert counters["graph_break"] == {} and counters["stats"]["unique_graphs"] > 0
    _, expected = stepped(pair(None, student=dropping, micro_batch_size=7))
    assert far(losses, expected) < 1e-5


def in_a_process(speed: Speed | None) -> tuple[list[dict[str, float]], Any]:
    speeding._BACKEND = "aot_eager"
    trainer, losses = stepped(pair(speed, micro_batch_size=4))
    return losses, {name: tensor.clone() for name, tensor in trainer.learner.state_dict().items()}


@pytest.mark.slow
def test_two_processes_make_the_same_steps(tmp_path: Path) -> None:
    (tmp_path / "compiled").mkdir()
    compiled = run_processes(in_a_process, 2, tmp_path / "compiled", BOTH)
    eager = run_processes(in_a_process, 2, tmp_path, None)
    assert far(compiled[0][0], eager[0][0]) < 1e-5
    assert compiled[0][1].keys() == eager[0][1].keys()
    learned = [name for name in compiled[0][1] if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(compiled[0][1][name], compiled[1][1][name]) for name in learned)
