"""DeepSpeed's engine makes the trainer's own update; what it keeps in shares is whole in a checkpoint, and goes on."""

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill import SelectWeights, checkpoint
from distill.build import make_accelerator, stage_trainer, training_feed
from distill.prepare import load_splits, prepare
from distill.recipe import SGD, AdamW, Recipe
from distill.trainer import NotFinite
from distill.weighting import GradNorm
from distill.zero import Zero
from tests.processes import run_processes
from tests.test_fit import Stopped, same
from tests.test_sharding import TRIED, ZERO, in_process, stopped_in_process, trained
from tests.tiny import pair_recipe, plain_recipe

needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs DeepSpeed, which is there on Linux")

NEAR = {"rtol": 1e-5, "atol": 1e-5}
WITHOUT = dict.fromkeys(ZERO, "false")
# A bias before a norm has a gradient of rounding alone, which Adam divides by its own size: an eps keeps it small.
ADAMW = AdamW(lr=0.01, eps=1e-3)


def three_ways(folder: Path) -> tuple[dict[str, dict[str, Tensor]], ...]:
    """The students that DDP trains, those that the engine does, and those of runs that it was stopped in."""
    plain = in_process(folder / "plain", WITHOUT)
    return plain, in_process(folder / "shared", ZERO), stopped_in_process(folder / "stopped", ZERO)


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.timeout(600)
def test_the_engines_update_is_the_trainers_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    (plain, shared, stopped), others = run_processes(three_ways, 2, tmp_path, tmp_path)
    for name in TRIED:
        torch.testing.assert_close(shared[name], plain[name], **NEAR, msg=lambda text, name=name: f"{name}: {text}")
        for other in (stopped[name], *(found[name] for found in others[1:])):
            assert same(other, shared[name]), name


def kept(recipe: Recipe, folder: Path, variables: dict[str, str]) -> tuple[dict[str, Tensor], dict[str, Any], int, int]:
    """The student, a checkpoint, the values that the optimizer holds here, and those of the trained parameters."""
    os.environ.update(variables)
    student = trained(recipe, folder)
    state = checkpoint.load_state(checkpoint.checkpoints(folder / "checkpoints")[-1])
    accelerator = make_accelerator(recipe)
    parts = prepare(recipe, load_splits(recipe, 0, Path("runs")), 0, Path("runs"))
    trainer, learner = stage_trainer(parts, recipe.all_stages()[0], accelerator, 0)
    held = sum(p.numel() for group in trainer.optimizer.param_groups for p in group["params"])
    return student, state, held, sum(p.numel() for p in learner.parameters())


def kept_by_both(recipe: Recipe, folder: Path) -> tuple[Any, ...]:
    return kept(recipe, folder / "shared", ZERO), kept(recipe, folder / "plain", WITHOUT)


@pytest.mark.slow
@needs_deepspeed
def test_three_processes_keep_a_third_each_and_a_checkpoint_is_as_without(tmp_path: Path) -> None:
    """Three divides no group of parameters, so the last share has entries that stand for nothing."""
    recipe = pair_recipe(epochs=2, optimizer=ADAMW, clip=0.1)
    found = run_processes(kept_by_both, 3, tmp_path, recipe, tmp_path)
    (student, state, _, values), (plain, without, _, _) = found[0]
    torch.testing.assert_close(student, plain, **NEAR)
    shares = [held for (_, _, held, _), _ in found]
    assert values <= sum(shares) <= values + 100 and max(shares) < 0.4 * values
    ours, theirs = state["optimizer"], without["optimizer"]
    assert [group["params"] for group in ours["param_groups"]] == [group["params"] for group in theirs["param_groups"]]
    torch.testing.assert_close(ours["state"], theirs["state"], **NEAR)


def gone_on_the_other_way(recipe: Recipe, folder: Path) -> list[dict[str, Tensor]]:
    """A run without a stop, and runs that are stopped under one way and go on under the other."""
    os.environ.update(WITHOUT)
    found = [trained(recipe, folder / "straight")]
    for name, first, then in (("from shares", ZERO, WITHOUT), ("to shares", WITHOUT, ZERO)):
        os.environ.update(first)
        with pytest.raises(Stopped):
            trained(recipe, folder / name, stop=5)
        os.environ.update(then)
        found.append(trained(recipe, folder / name, resume=True))
    return found


@pytest.mark.slow
@needs_deepspeed
def test_a_run_goes_on_under_the_other_way(tmp_path: Path) -> None:
    recipe = pair_recipe(epochs=3, optimizer=ADAMW, checkpoint_every=1, ema=0.9)
    straight, from_shares, to_shares = run_processes(gone_on_the_other_way, 2, tmp_path, recipe, tmp_path)[0]
    torch.testing.assert_close(from_shares, straight, **NEAR)
    torch.testing.assert_close(to_shares, straight, **NEAR)


def diverging(folder: Path) -> tuple[str, bool]:
    """What is said, and whether the weights that are left are finite."""
    os.environ.update(ZERO)
    recipe = plain_recipe(optimizer=SGD(lr=1e30), log_every=1)
    accelerator = make_accelerator(recipe)
    parts = prepare(recipe, load_splits(recipe, 0, Path("runs")), 0, Path("runs"))
    trainer, learner = stage_trainer(parts, recipe.all_stages()[0], accelerator, 0)
    feed = training_feed(parts, accelerator, 0)
    with pytest.raises(NotFinite) as raised:
        trainer.fit(feed, epochs=range(9), after_epoch=lambda epoch: False, log=lambda line: None, log_every=1)
    return str(raised.value), all(bool(p.isfinite().all()) for p in learner.parameters())


@pytest.mark.slow
@needs_deepspeed
def test_a_gradient_that_is_not_finite_stops_the_run_and_changes_nothing(tmp_path: Path) -> None:
    for said, finite in run_processes(diverging, 2, tmp_path, tmp_path):
        assert "step" in said and finite


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compare_gradients_every": 2}, "compare_gradients_every=2 compares gradients at one layer"),
        ({"balance": GradNorm()}, r"balance=GradNorm\(.*\) compares gradients at one layer"),
        ({"decay_to_start": 0.1}, "decay_to_start=0.1 adds to the gradient"),
        ({"skip_not_finite": 2}, "skip_not_finite=2 looks at the gradient"),
        ({"precision": "fp16"}, "precision='fp16' scales the gradient"),
    ],
)
def test_what_needs_the_whole_gradient_is_refused(
    changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ZERO.items():
        monkeypatch.setenv(name, value)
    recipe = pair_recipe(initialize=SelectWeights())
    with pytest.raises(ValueError, match=said + ", which no process has whole under DeepSpeed"):
        make_accelerator(replace(recipe, **changes))


def test_one_process_has_nothing_to_share() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="DeepSpeed has nothing to share in one process"):
        Zero(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.device("cpu"), None)
