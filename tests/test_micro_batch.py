"""`micro_batch_size="auto"`: the largest that fits, the same on every process, without a trace, and kept on resume."""

import copy
import gc
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from distill.bar import Bar
from distill.heads import Contrast
from distill.losses import CRD, CrossEntropy
from distill.micro_batch import RECORD, choose_micro_batch, costliest, halvings
from distill.plan import Term
from distill.prepare import load_splits, prepare
from distill.recipe import SGD, AdamW, Model, Recipe, Stage, apply_overrides, from_json, to_json
from distill.run import Options, train
from distill.run import plan as plan_command
from distill.stopping import Stopped
from distill.trainer.lines import SHARES
from distill.weighting import GradNorm
from tests.end_to_end.test_text import recipe as text_recipe
from tests.processes import run_processes
from tests.tiny import TinyNet, on_cpu, pair_recipe, parts_of, plain_recipe

TASK = {"task": Term(CrossEntropy())}
# What training survives; tests set them.
LIMITS = {"rows": 1000, "steps": 1000}


class Hungry(TinyNet):
    """Runs out of memory in a forward pass that trains, above some rows, or behind some steps."""

    trained = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            self.trained += 1
            if len(x) > LIMITS["rows"] and self.trained > LIMITS["steps"]:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(x)


def hungry(num_classes: int = 10, in_channels: int = 1, width: int = 4, dropout: float = 0.0) -> Hungry:
    return Hungry(num_classes, in_channels, width, dropout)


HUNGRY = Model("tests.test_micro_batch:hungry", arguments={"dropout": 0.3})


@pytest.fixture(scope="module", autouse=True)
def quick_garbage() -> Iterator[None]:
    """Each trial ends with a collection of garbage, which need not look through all that was imported before."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_limits(rows: int, steps: int = 0) -> None:
        monkeypatch.setitem(LIMITS, "rows", rows)
        monkeypatch.setitem(LIMITS, "steps", steps)

    return set_limits


def auto(**changes: Any) -> Recipe:
    return pair_recipe(**{"student": HUNGRY, "micro_batch_size": "auto", "allow_chance_teacher": True, **changes})


def found(recipe: Recipe) -> int | str | None:
    return choose_micro_batch(parts_of(recipe), on_cpu()).recipe.micro_batch_size


def run(recipe: Recipe, root: Path, *, resume: bool = False) -> str:
    """What the run printed."""
    out = Console(file=io.StringIO(), width=200)
    train(recipe, Options(root=root, resume=resume), out)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def lines_of(folder: Path) -> list[dict[str, Any]]:
    timed = ("examples_per_second", *SHARES)
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def test_halvings_by_hand() -> None:
    assert [list(halvings(share)) for share in (12, 9, 1)] == [[12, 6, 3, 2, 1], [9, 5, 3, 2, 1], [1]]


@pytest.mark.parametrize(("rows", "size"), [(12, 12), (11, 6), (6, 6), (5, 3), (2, 2), (1, 1)])
def test_the_largest_that_fits_is_taken(rows: int, size: int, limit: Callable[..., None]) -> None:
    limit(rows)
    assert found(auto()) == size
    limit(rows)
    assert found(plain_recipe(student=HUNGRY, micro_batch_size="auto", optimizer=AdamW(lr=0.1))) == size


def test_memory_that_runs_out_in_the_second_step_counts(limit: Callable[..., None]) -> None:
    """By hand: with 12 rows a step is one pass, and the second one fails; the third of 6 rows is never asked for."""
    limit(6, steps=1)
    assert found(plain_recipe(student=HUNGRY, micro_batch_size="auto")) == 6


def test_the_stage_that_takes_most_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Hungry, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled() and not self.layer1[0].weight.requires_grad and len(x) > 3:
            raise torch.OutOfMemoryError
        return TinyNet.forward(self, x)

    monkeypatch.setattr(Hungry, "forward", fails)
    stages = (Stage("first", TASK, 1, SGD(lr=0.1)), Stage("second", TASK, 1, AdamW(lr=0.1), freeze=("layer1.*",)))
    alone = {"teacher": None, "allow_chance_teacher": False, "plan": {}, "optimizer": None, "epochs": None}
    assert found(auto(**alone, stages=stages[:1])) == 12
    assert found(auto(**alone, stages=stages)) == 3


def test_an_example_more_than_fits_is_one_readable_line(limit: Callable[..., None]) -> None:
    limit(0)
    wanted = (
        r"^Out of memory with micro-batches of one example: batch of 12 over 1 process, terms task\. Lower batch_size"
    )
    with pytest.raises(ValueError, match=wanted):
        found(auto(plan=TASK, teacher=None, allow_chance_teacher=False))


def test_other_errors_are_no_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Hungry, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return TinyNet.forward(self, x)

    monkeypatch.setattr(Hungry, "forward", fails)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        found(auto())


def test_the_cpu_s_allocator_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Hungry, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled() and len(x) > 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory")
        return TinyNet.forward(self, x)

    monkeypatch.setattr(Hungry, "forward", fails)
    assert found(auto()) == 3


EVERYTHING = {
    "plan": {
        **TASK,
        **{name: term for name, term in pair_recipe().plan.items() if name != "task"},
        "crd": Term(CRD(), student="embedding", teacher="embedding", head=Contrast(examples=36, width=4, negatives=3)),
    },
    "balance": GradNorm(),
    "ema": 0.9,
    "clip": 1.0,
    "optimizer": AdamW(lr=0.01),
}


def test_nothing_is_changed(limit: Callable[..., None]) -> None:
    limit(5)
    parts, accelerator = parts_of(auto(**EVERYTHING)), on_cpu()
    assert parts.teacher is not None
    models = parts.student, parts.teacher
    before, random = copy.deepcopy([model.state_dict() for model in models]), torch.get_rng_state()
    assert choose_micro_batch(parts, accelerator).recipe.micro_batch_size == 3
    assert torch.equal(random, torch.get_rng_state())
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert parts.student.training and all(p.requires_grad and p.grad is None for p in parts.student.parameters())
    assert accelerator._models == []


def test_a_recipe_that_names_its_micro_batch_is_left_alone() -> None:
    parts = parts_of(pair_recipe(micro_batch_size=5))
    assert choose_micro_batch(parts, on_cpu()) is parts


def test_a_run_is_that_of_a_recipe_which_names_the_number(tmp_path: Path, limit: Callable[..., None]) -> None:
    limit(5)
    recipe = auto(**EVERYTHING, controls=("plain",))
    said = run(recipe, tmp_path / "auto")
    run(auto(**{**EVERYTHING, "micro_batch_size": 3}, controls=("plain",)), tmp_path / "named")
    ours, theirs = tmp_path / "auto" / "pair", tmp_path / "named" / "pair"
    note = "micro_batch_size is 3, the largest of 12, 6, 3, 2, 1 that fits the memory."
    assert note in said and note in (ours / "plan.txt").read_text() and note in (ours / "report.md").read_text()
    for arm in (".", "arms/plain-0"):
        files = [(folder / arm / "student" / "model.safetensors").read_bytes() for folder in (ours, theirs)]
        assert files[0] == files[1]
        assert lines_of(ours / arm) == lines_of(theirs / arm)
    reports = [json.loads((folder / "report.json").read_text()) for folder in (ours, theirs)]
    assert reports[0]["recipe"]["micro_batch_size"] == "auto"
    assert [one["test"] for one in reports[0]["outcomes"]] == [one["test"] for one in reports[1]["outcomes"]]


def test_a_resumed_run_keeps_what_was_found(
    tmp_path: Path, limit: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops amid an epoch, and when it goes on there is room for more."""
    limit(5)
    recipe, place = auto(checkpoint_every=1), Path("pair")
    run(recipe, tmp_path / "straight")
    ticks: list[int] = []

    def stop(self: Bar, examples: int) -> None:
        ticks.append(examples)
        if len(ticks) == 6:
            raise Stopped("enough")

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Bar, "tick", stop)
        run(recipe, tmp_path / "runs")
    assert json.loads((tmp_path / "runs" / place / RECORD).read_text()) == {"micro_batch_size": 3}
    limit(12)
    assert "micro_batch_size is 3, the largest of" in run(recipe, tmp_path / "runs", resume=True)
    ours, theirs = tmp_path / "runs" / place, tmp_path / "straight" / place
    assert lines_of(ours) == lines_of(theirs)
    assert (ours / "plan.txt").read_text() == (theirs / "plan.txt").read_text()
    files = [(folder / "student" / "model.safetensors").read_bytes() for folder in (ours, theirs)]
    assert files[0] == files[1]


@pytest.mark.parametrize("content", ["", "{}", "[3]", '{"micro_batch_size": 0}', '{"micro_batch_size": "3"}'])
def test_a_damaged_record_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(content)
    with pytest.raises(ValueError, match=rf"{RECORD} is damaged\. Change --name"):
        choose_micro_batch(parts_of(auto()), on_cpu(), tmp_path / RECORD)


def test_plan_says_that_it_will_be_found(tmp_path: Path, limit: Callable[..., None]) -> None:
    limit(5)
    out = Console(file=io.StringIO(), width=200)
    plan_command(auto(), Options(root=tmp_path), out)
    assert isinstance(out.file, io.StringIO)
    assert "in micro-batches of at most 12, as many as fit the memory;" in " ".join(out.file.getvalue().split())


def test_the_setting_goes_through_json_and_the_command_line() -> None:
    recipe = apply_overrides(plain_recipe(), ["--micro_batch_size", "auto"])
    assert recipe.micro_batch_size == "auto" and recipe.micro_batch_bound is None
    assert from_json(to_json(recipe), ("tests.tiny",)) == recipe
    assert apply_overrides(recipe, ["--micro-batch-size=4"]).micro_batch_size == 4
    with pytest.raises(ValueError, match="micro_batch_size: expected a whole number or 'auto' or none, got 'all'"):
        apply_overrides(recipe, ["--micro_batch_size", "all"])


def test_under_fsdp_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(ValueError, match="tries the whole student in one process, and under FSDP none trains it alone"):
        found(auto())


def in_process(rows: tuple[int, int]) -> tuple[int | str | None, list[int]]:
    """What is found where each process has a limit of its own, and the sizes that it tried."""
    accelerator, tried = on_cpu(), []
    LIMITS.update(rows=rows[accelerator.process_index], steps=0)
    parts = parts_of(auto(**EVERYTHING))
    original = Hungry.forward

    def noting(self: Hungry, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            tried.append(len(x))
        return original(self, x)

    Hungry.forward = noting  # type: ignore[method-assign]
    return choose_micro_batch(parts, accelerator).recipe.micro_batch_size, tried


@pytest.mark.slow
def test_two_processes_agree_where_one_has_less_room(tmp_path: Path) -> None:
    """Shares of 6: both try 6, then 3, then 2, which the second survives."""
    first, second = run_processes(in_process, 2, tmp_path, (1000, 2))
    assert first[0] == second[0] == 2
    assert set(first[1]) == {6, 3, 2} == set(second[1])
    assert len(first[1]) > len(second[1])


def test_texts_are_tried_at_their_longest(tmp_path: Path) -> None:
    recipe = text_recipe()
    parts = prepare(recipe, load_splits(recipe, 0, tmp_path), 0, tmp_path)
    lengths = parts.splits.train.lengths
    assert lengths is not None and lengths[:4].sum() < lengths.topk(4).values.sum()
    batch = costliest(parts, 4)
    assert batch.mask is not None and batch.mask.sum(1).tolist() == lengths.topk(4).values.tolist()
