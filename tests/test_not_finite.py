"""`skip_not_finite`: an update that is not finite never was, on every process, and too many in a row stop the run."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distill.batch import Batch
from distill.heads import Contrast
from distill.losses import CRD, CrossEntropy
from distill.losses.kinds import Task
from distill.plan import Plan, Term, connect
from distill.recipe import SGD, AdamW, Optimizer, Recipe, apply_overrides, from_json, to_json
from distill.trainer import Average, NotFinite, Trainer, shared_layer
from distill.trainer import trainer as trainer_module
from distill.weighting import Balance, GradNorm, Uncertainty
from tests.processes import run_processes
from tests.test_fit import run, same, steps_of, stop
from tests.tiny import plain_recipe

BROKEN = 100


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.hidden, self.norm, self.fc = nn.Linear(6, width), nn.BatchNorm1d(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.hidden(x)).tanh())


@dataclass(frozen=True)
class Breaks(Task):
    """NaN for examples with numbers from `BROKEN` on, or for all of them."""

    everywhere: bool = False

    def __call__(self, student: Tensor, teacher: Tensor | None, batch: Batch) -> Tensor:
        broken = (batch.index >= BROKEN) | (self.everywhere & student.requires_grad & (len(batch) > 4))
        return student.square().sum(1) * torch.where(broken, math.nan, 1.0)


@dataclass(frozen=True)
class Steep:
    """Zero, with an infinite slope: the loss is finite and the gradient is not."""

    def __call__(self, student: Tensor, teacher: Tensor | None, batch: Batch) -> Tensor:
        flat = (batch.index < BROKEN).float()
        return ((student - student.detach()).square().sum(1) + flat).sqrt() - flat


CONTRAST = Term(CRD(), student="hidden", teacher="hidden", head=Contrast(examples=200, width=4, negatives=3))
PLAN: Plan = {"task": Term(CrossEntropy()), "breaks": Term(Breaks(), weight=0.5), "crd": CONTRAST}


def batch_of(number: int, how: str = "fine", count: int = 8) -> Batch:
    """The batch of a number; "loss" and "input" break it in its last example."""
    generator = torch.Generator().manual_seed(number)
    inputs, labels = torch.randn(count, 6, generator=generator), torch.randint(0, 3, (count,), generator=generator)
    index = torch.arange(count)
    if how == "loss":
        index[-1] = BROKEN
    if how == "input":
        inputs[-1, 0] = math.nan
    return Batch(inputs, labels, index)


def trainer(
    *,
    plan: Plan = PLAN,
    skip: int | None = 3,
    optimizer: Optimizer = SGD(lr=0.1),  # noqa: B008 - frozen
    balance: Balance | None = None,
    accelerator: Accelerator | None = None,
) -> Trainer:
    accelerator = accelerator or Accelerator(cpu=True)
    torch.manual_seed(0)
    module = None if balance is None else balance.build(tuple(plan))
    guide, learner = connect(Net(8), Net(4), plan, batch_of(0, count=4), balance=module)
    shared = shared_layer(guide, learner, plan, batch_of(0)) if isinstance(balance, GradNorm) else None
    prepared, prepared_optimizer = accelerator.prepare(learner, optimizer.build(learner.parameters()))
    average = Average(learner, 0.9)
    return Trainer(
        accelerator, guide, prepared, plan, prepared_optimizer, average=average, shared=shared, skip_not_finite=skip
    )


def state_of(one: Trainer) -> dict[str, Any]:
    """All that an update changes."""
    assert one.average is not None
    learner = one.accelerator.unwrap_model(one.learner)
    kept = {"learner": learner.state_dict(), "optimizer": one.optimizer.state_dict(), "average": one.average.shadow}
    return copy.deepcopy({**kept, "updates": one.average.updates})


def after(windows: Sequence[Sequence[Batch]], **settings: Any) -> dict[str, Any]:
    one = trainer(**settings)
    for window in windows:
        one.step(window)
    return state_of(one)


def fitted(one: Trainer, hows: Sequence[str], log_every: int = 50) -> list[dict[str, Any]]:
    """The lines of the log of an epoch with these steps."""
    lines: list[Any] = []
    one.fit(
        lambda epoch, start: ((0.0, [batch_of(step, how)]) for step, how in enumerate(hows)),
        epochs=range(1),
        after_epoch=lambda epoch: False,
        log=lines.append,
        log_every=log_every,
    )
    return lines


def halves(batch: Batch) -> list[Batch]:
    return [batch.rows(slice(0, 5)), batch.rows(slice(5, 8))]


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1), AdamW(lr=0.01)], ids=["SGD", "AdamW"])
@pytest.mark.parametrize("how", ["loss", "input"])
@pytest.mark.parametrize("cut", [lambda batch: [batch], halves], ids=["whole", "cut"])
def test_a_step_that_breaks_is_one_that_never_was(optimizer: Optimizer, how: str, cut: Any) -> None:
    """First, in between and twice in a row: weights, momentum, counts, averages, statistics and memory to the bit."""
    hows = [how, "fine", how, how, "fine", "fine", how]
    windows = [cut(batch_of(step, how)) for step, how in enumerate(hows)]
    fine = [window for window, how in zip(windows, hows, strict=True) if how == "fine"]
    left = after(windows, optimizer=optimizer)
    assert left["updates"] == 3
    assert same(left, after(fine, optimizer=optimizer))


@pytest.mark.parametrize("balance", [Uncertainty(), GradNorm()], ids=["Uncertainty", "GradNorm"])
def test_what_weighs_the_terms_stays_too(balance: Balance) -> None:
    windows = [[batch_of(step, how)] for step, how in enumerate(["fine", "loss", "fine"])]
    assert same(after(windows, balance=balance), after([windows[0], windows[2]], balance=balance))


def test_where_all_is_finite_the_setting_changes_nothing() -> None:
    windows = [[batch_of(step)] for step in range(4)]
    assert same(after(windows, skip=3), after(windows, skip=None))


def test_without_the_setting_nothing_is_kept_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(learner: nn.Module) -> None:
        raise AssertionError

    monkeypatch.setattr(trainer_module, "kept_buffers", refuse)
    after([[batch_of(0)]], skip=None)
    with pytest.raises(AssertionError):
        after([[batch_of(0)]], skip=1)


def test_the_log_counts_what_was_left_out_and_means_the_rest() -> None:
    one = trainer()
    with pytest.warns(UserWarning, match=r"'breaks' is nan at step 2\. Left out: 1 of the last 3 updates\.") as told:
        first, second = fitted(one, ["fine", "loss", "fine", "fine"], log_every=3)
    assert len(told) == 1
    alone = fitted(trainer(), ["fine"])[0]
    assert first["skipped"] == 1 and "skipped" not in second
    assert first["raw"]["task"] != alone["raw"]["task"] and math.isfinite(first["gradient_norm"])
    single = trainer()
    means = [float(single.step([batch_of(step)])["task"]) for step in (0, 2)]
    assert first["raw"]["task"] == pytest.approx(sum(means) / 2)


def test_a_line_of_which_nothing_counted_has_no_losses() -> None:
    with pytest.warns(UserWarning, match=r"Left out: 2 of the last 2 updates"):
        (line,) = fitted(trainer(), ["loss", "loss"])
    assert line["skipped"] == 2 and line["step"] == 2
    assert not {"loss", "raw", "weighted", "gradient_norm"} & line.keys()


def test_one_more_in_a_row_stops_with_term_step_and_count() -> None:
    wanted = r"^The loss of term 'breaks' is nan at step 5, behind 2 left out in a row \(skip_not_finite=2\)\.$"
    with pytest.raises(NotFinite, match=wanted):
        fitted(trainer(skip=2), ["loss", "fine", "loss", "loss", "loss"])


def test_a_gradient_that_breaks_alone_is_left_out_and_named() -> None:
    plan: Plan = {"task": Term(CrossEntropy()), "steep": Term(Steep())}
    windows = [[batch_of(step, how)] for step, how in enumerate(["fine", "loss", "fine"])]
    assert same(after(windows, plan=plan), after([windows[0], windows[2]], plan=plan))
    with pytest.raises(NotFinite, match="gradient norm is nan at step 3, behind 1 left out in a row"):
        fitted(trainer(plan=plan, skip=1), ["fine", "loss", "loss"])


# Loss scaling


def scaled(scale: float, optimizer: Optimizer = SGD(lr=0.1)) -> Trainer:  # noqa: B008 - frozen
    """As under fp16, on a CPU: Accelerate itself scales on GPUs only."""
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    accelerator.unscale_gradients = lambda optimizer: accelerator.scaler.unscale_(optimizer.optimizer)
    return trainer(accelerator=accelerator, skip=1, optimizer=optimizer)


UPDATED = ("student.model.fc.weight", "heads.crd.memory.bank_student", "heads.crd.memory.updates")


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1), AdamW(lr=0.1)], ids=["SGD", "AdamW"])
def test_what_loss_scaling_leaves_out_is_its_own_and_lowers_the_scale(optimizer: Optimizer) -> None:
    one = scaled(1e38, optimizer)
    before = {name: state_of(one)["learner"][name].clone() for name in UPDATED}
    for step in range(2):
        one.step([batch_of(step)])
    assert one.accelerator.scaler is not None and one.accelerator.scaler.get_scale() == pytest.approx(1e38 / 4)
    assert all(torch.equal(tensor, state_of(one)["learner"][name]) for name, tensor in before.items())
    assert one.average is not None and one.average.updates == 0


def test_a_loss_that_breaks_leaves_the_scale_as_it_is() -> None:
    windows = [[batch_of(step, how)] for step, how in enumerate(["fine", "loss", "fine"])]
    left, fine = scaled(1024.0), scaled(1024.0)
    for window in windows:
        left.step(window)
    for window in (windows[0], windows[2]):
        fine.step(window)
    assert left.accelerator.scaler is not None and fine.accelerator.scaler is not None
    assert same(left.accelerator.scaler.state_dict(), fine.accelerator.scaler.state_dict())
    assert same(state_of(left), state_of(fine))


# Several processes


def in_process(hows: tuple[tuple[str, str], ...]) -> tuple[dict[str, Any], dict[str, Any], str]:
    """What a process has after steps that break in one of the two, and without those; and how both stop."""
    rank = Accelerator(cpu=True).process_index
    windows = [[batch_of(10 * step + rank, of_ranks[rank])] for step, of_ranks in enumerate(hows)]
    fine = [window for window, of_ranks in zip(windows, hows, strict=True) if of_ranks == ("fine", "fine")]
    stopping = trainer(skip=2)
    with pytest.raises(NotFinite) as error:
        for _ in range(4):
            stopping.step([batch_of(rank, "loss" if rank == 1 else "fine")])
    return after(windows, skip=2), after(fine, skip=2), str(error.value)


@pytest.mark.slow
def test_two_processes_leave_out_what_breaks_in_one_and_stay_equal(tmp_path: Path) -> None:
    hows = (("fine", "fine"), ("fine", "loss"), ("input", "fine"), ("fine", "fine"))
    (first, of_first, stopped), (second, of_second, too) = run_processes(in_process, 2, tmp_path, hows)
    assert stopped == too and "at step 3, behind 2 left out in a row" in stopped
    for name, tensor in first["learner"].items():  # each process has statistics of its own
        assert "running" in name or torch.equal(tensor, second["learner"][name])
    assert same(first["optimizer"], second["optimizer"]) and same(first["average"], second["average"])
    assert same(first, of_first) and same(second, of_second)


# Whole runs


def recipe_of(everywhere: bool, **changes: Any) -> Recipe:
    plan = {"task": Term(CrossEntropy()), "breaks": Term(Breaks(everywhere=everywhere), weight=0.1)}
    return plain_recipe(plan=plan, checkpoint_every=1, **changes)


@pytest.mark.filterwarnings("ignore:The loss of term")
def test_a_resumed_run_knows_how_many_were_left_out(tmp_path: Path) -> None:
    recipe = recipe_of(True, skip_not_finite=2)
    stop(recipe, tmp_path, 2)
    assert steps_of(tmp_path) == [1]
    wanted = r"'breaks' is nan at step 3, behind 2 left out in a row .* Last good checkpoint: .*-00000002\. Lower"
    with pytest.raises(NotFinite, match=wanted):
        run(recipe, tmp_path, resume=True)


@pytest.mark.filterwarnings("ignore:The loss of term")
def test_a_run_with_steps_left_out_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_not_finite.BROKEN", 34)
    recipe = recipe_of(False, skip_not_finite=3)
    straight = run(recipe, tmp_path / "straight")
    assert sum(line.get("skipped", 0) for line in straight.lines) >= 3
    assert all(tensor.isfinite().all() for tensor in straight.weights.values())
    stop(recipe, tmp_path / "stopped", 5)
    resumed = run(recipe, tmp_path / "stopped", resume=True)
    assert resumed.lines == straight.lines and same(resumed.weights, straight.weights)


def test_the_setting_is_a_number_of_at_least_one() -> None:
    with pytest.raises(ValueError, match="skip_not_finite must be at least 1, got 0"):
        plain_recipe(skip_not_finite=0)
    recipe = apply_overrides(plain_recipe(), ["--skip-not-finite", "3"])
    assert recipe.skip_not_finite == 3 and from_json(to_json(recipe), ("tests.tiny",)) == recipe
