"""How a run starts its student from weights and keeps to them: examples, statistics, rates by depth, pulls, stages."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.arms import arm_recipe
from distill.build import stage_trainer
from distill.data import Splits
from distill.describe import describe
from distill.initialize import CopyWeights, SelectWeights, SkipLayers
from distill.losses import KD, CrossEntropy
from distill.models import Loaded, save_student
from distill.models.loaded import renew_classifier
from distill.plan import Term
from distill.prepare import Parts, load_splits, spread_batches
from distill.recipe import SGD, AdamW, Model, Recipe, Stage, apply_overrides, from_json, to_json
from distill.result import student_config
from distill.start import from_weights
from tests.processes import run_processes
from tests.test_fit import HINT, assert_same, lines_of, run, same, stop
from tests.tiny import STUDENT, on_cpu, pair_recipe, parts_of, plain_recipe

TASK = {"task": Term(CrossEntropy())}
DEEP = Model("tests.test_starts:deep")


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.norm(self.conv(x))).relu()


class DeepNet(nn.Module):
    def __init__(self, num_classes: int, in_channels: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 4, 3)
        self.blocks = nn.Sequential(*(Block(4) for _ in range(blocks)))
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


def deep(num_classes: int = 3, in_channels: int = 1, blocks: int = 2) -> DeepNet:
    return DeepNet(num_classes, in_channels, blocks)


def deep_recipe(**changes: Any) -> Recipe:
    base = pair_recipe(
        teacher=replace(DEEP, arguments={"blocks": 4}),
        student=DEEP,
        initialize=SkipLayers(),
        plan={**TASK, "kd": Term(KD())},
        optimizer=SGD(lr=0.08, weight_decay=0.01),
    )
    return replace(base, **changes)


def described(recipe: Recipe, root: Path = Path("runs")) -> str:
    return " ".join(describe(parts_of(recipe, root), on_cpu()).split())


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.named_buffers() if "running" in name}


# Examples


def test_batches_of_a_start_are_distinct_examples_from_all_over_the_split() -> None:
    splits = load_splits(pair_recipe(), 0, Path("runs"))
    assert isinstance(splits, Splits)
    batches = list(spread_batches(splits, 3, 4))
    numbers = torch.cat([batch.index for batch in batches]).tolist()
    assert len(set(numbers)) == 12
    for batch in batches:
        assert int(batch.index.min()) < 12 and int(batch.index.max()) > 24
    again = list(spread_batches(splits, 3, 4))
    assert all(torch.equal(one.inputs, other.inputs) for one, other in zip(batches, again, strict=True))


def in_process() -> dict[str, Tensor]:
    on_cpu()
    recipe = pair_recipe(initialize=SelectWeights(choose="activation"), reestimate_batchnorm=3)
    return dict(parts_of(recipe).student.state_dict())


@pytest.mark.slow
def test_every_process_has_the_same_start(tmp_path: Path) -> None:
    first, second = run_processes(in_process, 2, tmp_path)
    assert same(first, second) and same(first, in_process())


def test_a_run_gives_its_examples_to_a_choice_by_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the teacher's 8 channels of layer1 four are closed by their bias; the student gets the others."""
    closed = [0, 2, 3, 7]
    original = parts_of(pair_recipe()).teacher
    assert original is not None
    with torch.no_grad():
        original.layer1[1].bias[closed] = -99.0
    monkeypatch.setattr("tests.tiny.net", lambda num_classes, in_channels, width=4: made(original, width))
    parts = parts_of(pair_recipe(initialize=SelectWeights(choose="activation")))
    open_ones = [channel for channel in range(8) if channel not in closed]
    assert torch.equal(parts.student.layer1[0].weight, original.layer1[0].weight[open_ones])
    assert parts.coverage is not None and parts.coverage.share == 1.0


def made(original: nn.Module, width: int) -> nn.Module:
    from tests.tiny import TinyNet

    return copy.deepcopy(original) if width == 8 else TinyNet(3, 1, width, 0.0)


# Statistics


def test_statistics_are_measured_anew_behind_the_start_and_it_is_told() -> None:
    plain, measured = (parts_of(deep_recipe(reestimate_batchnorm=batches)) for batches in (None, 3))
    assert same(dict(plain.student.named_parameters()), dict(measured.student.named_parameters()))
    assert not same(statistics(plain.student), statistics(measured.student))
    assert all(norm.momentum == 0.1 for norm in measured.student.modules() if isinstance(norm, nn.BatchNorm2d))
    text = described(deep_recipe(reestimate_batchnorm=3))
    assert "The statistics of 2 BatchNorm layers were measured anew on 3 batches of 12 examples." in text
    assert measured.student.training


def test_more_batches_than_there_are_examples_are_refused() -> None:
    parts_of(deep_recipe(reestimate_batchnorm=3))
    with pytest.raises(ValueError, match=r"reestimate_batchnorm=4 batches of 12 are more than the 36 .* at most 3\."):
        parts_of(deep_recipe(reestimate_batchnorm=4))


def test_a_student_without_batchnorm_is_refused() -> None:
    words = Model("tests.tiny:TiedNet")
    recipe = pair_recipe(teacher=words, student=words, plan=TASK, initialize=CopyWeights(), reestimate_batchnorm=1)
    with pytest.raises(ValueError, match="reestimate_batchnorm has no effect: TiedNet has no BatchNorm"):
        parts_of(recipe)


# Rates by depth


@pytest.mark.parametrize("optimizer", [SGD(lr=0.08), AdamW(lr=0.08)])
def test_a_stage_trains_each_depth_at_its_own_rate(optimizer: Any) -> None:
    """By hand: the stem has depth 0 of 3, the blocks 1 and 2: 0.08 times 1/8, 1/4, 1/2; the classifier and all 0.08."""
    recipe = deep_recipe(optimizer=optimizer, layer_decay=0.5)
    parts = parts_of(recipe)
    trainer, _ = stage_trainer(parts, recipe.all_stages()[0], on_cpu(), 0)
    names = {id(parameter): name for name, parameter in parts.student.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert rates["fc.weight"] == 0.08 and rates["blocks.1.conv.weight"] == pytest.approx(0.04)
    assert rates["blocks.0.norm.bias"] == pytest.approx(0.02) and rates["stem.weight"] == pytest.approx(0.01)
    assert "Learning rates by depth: 0.01 to 0.08, 0.5 a block." in described(recipe)


def test_the_log_has_the_rate_of_the_classifier(tmp_path: Path) -> None:
    run(deep_recipe(layer_decay=0.5, epochs=1), tmp_path)
    assert {line["learning_rate"] for line in lines_of(tmp_path) if "loss" in line} == {0.08}


def test_rates_by_depth_need_blocks(tmp_path: Path) -> None:
    recipe = pair_recipe(layer_decay=0.5)
    for use in (lambda: describe(parts_of(recipe), on_cpu()), lambda: run(recipe, tmp_path)):
        with pytest.raises(ValueError, match=r"layer_decay counts repeated blocks .* and TinyNet has none"):
            use()


# The pull to the start


def weights_of_run(parts: Parts, root: Path) -> str:
    save_student(root / "trained" / "student", parts.student, student_config(parts))
    return "runs/trained"


def test_what_came_from_the_teacher_is_drawn_to_it_and_the_rest_to_zero() -> None:
    recipe = deep_recipe(initialize=SkipLayers(keep_classifier=False), decay_to_start=0.5)
    parts = parts_of(recipe)
    trainer, _ = stage_trainer(parts, recipe.all_stages()[0], on_cpu(), 0)
    names = {id(parameter): name for name, parameter in parts.student.named_parameters()}
    decays = {names[id(p)]: group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    fresh = {"fc.weight", "fc.bias"}
    assert {name for name, decay in decays.items() if decay == 0.01} == fresh
    assert trainer.start is not None and set(trainer.start.values) == set(decays) - fresh == parts.started
    assert same(trainer.start.values, {name: parts.student.get_parameter(name).detach() for name in parts.started})
    held = sum(parts.student.get_parameter(name).numel() for name in parts.started)
    told = f"Drawn to the stage's start with weight 0.5: {len(parts.started)} tensors of {held:,} parameters"
    assert told in described(recipe)


def test_a_student_with_weights_of_its_own_is_drawn_to_them(tmp_path: Path) -> None:
    weights = weights_of_run(parts_of(plain_recipe(student=STUDENT)), tmp_path)
    recipe = plain_recipe(student=replace(STUDENT, weights=weights), decay_to_start=0.1)
    parts = parts_of(recipe, tmp_path)
    assert parts.started == {name for name, _ in parts.student.named_parameters()}
    assert parts_of(plain_recipe()).started == frozenset()


def test_a_classifier_that_was_made_anew_beside_weights_has_no_start() -> None:
    model = deep(5)
    assert renew_classifier(model, 5, 3, source="deep") == "fc"
    names = {name for name, _ in model.named_parameters()}
    assert from_weights(Loaded(model, None, None, "", "fc")) == names - {"fc.weight", "fc.bias"}
    assert from_weights(Loaded(model, None, None, "")) == names


def test_a_strong_pull_keeps_the_student_at_its_start(tmp_path: Path) -> None:
    """The step is a factor of 1 - 0.08 * 10 on the way from the start, so what is drawn stays nearer than without."""
    start = dict(parts_of(deep_recipe()).student.named_parameters())
    moved = {}
    for pull in (None, 10.0):
        ended = run(deep_recipe(decay_to_start=pull), tmp_path / str(pull))
        moved[pull] = sum(float((ended.weights[name] - value.detach()).norm() ** 2) for name, value in start.items())
    assert 0 < moved[10.0] < moved[None] / 3


@pytest.mark.parametrize("steps", [(4,), (8,), (10,)])
def test_a_resumed_run_is_drawn_to_the_straight_one_s_start(steps: tuple[int, ...], tmp_path: Path) -> None:
    """Two stages of two epochs of three steps: the second is drawn to what the first left; step 9 is saved."""
    stages = tuple(
        Stage(name, {**TASK, "kd": Term(KD())}, 2, SGD(lr=0.08), layer_decay=0.5, decay_to_start=2.0)
        for name in ("first", "second")
    )
    recipe = deep_recipe(plan={}, optimizer=None, epochs=None, stages=stages, reestimate_batchnorm=2)
    straight = run(recipe, tmp_path / "straight")
    for step in steps:
        stop(recipe, tmp_path / "stopped", step)
    assert_same(run(recipe, tmp_path / "stopped", resume=True), straight)
    kept = [state["start"]["stem.weight"] for state in straight.checkpoints.values()]
    start = parts_of(recipe).student.get_parameter("stem.weight")
    assert kept and not torch.equal(kept[-1], start), "the last stage starts with what the first one learned"


def test_a_pull_on_frozen_parameters_alone_is_refused() -> None:
    stage = Stage("only", TASK, 1, SGD(lr=0.1), freeze=("stem.*", "blocks.*", "fc.*"), decay_to_start=0.1)
    head = replace(stage, freeze=("stem.*", "blocks.*"))
    recipe = deep_recipe(
        plan={}, optimizer=None, epochs=None, stages=(head,), initialize=SkipLayers(keep_classifier=False)
    )
    with pytest.raises(ValueError, match="Stage 'only': decay_to_start has no effect, since nothing that came from"):
        describe(parts_of(recipe), on_cpu())


# Arms and text


def test_a_control_without_the_teacher_s_weights_has_nothing_to_keep_to() -> None:
    recipe = deep_recipe(layer_decay=0.5, decay_to_start=0.1, reestimate_batchnorm=2)
    plain, initialized = arm_recipe(recipe, "plain"), arm_recipe(recipe, "initialized")
    assert (plain.layer_decay, plain.decay_to_start, plain.reestimate_batchnorm) == (None, None, None)
    assert (initialized.layer_decay, initialized.decay_to_start, initialized.reestimate_batchnorm) == (0.5, 0.1, 2)
    own = replace(recipe, student=replace(DEEP, weights="runs/x"))
    assert (arm_recipe(own, "plain").layer_decay, arm_recipe(own, "plain").decay_to_start) == (0.5, 0.1)
    untransferred = replace(recipe, initialize=None, decay_to_start=None, reestimate_batchnorm=None)
    assert arm_recipe(untransferred, "plain").layer_decay == 0.5
    stage = Stage("one", {**TASK, "kd": Term(KD())}, 1, SGD(lr=0.1), layer_decay=0.5, decay_to_start=0.1)
    staged = deep_recipe(plan={}, optimizer=None, epochs=None, stages=(stage,))
    assert arm_recipe(staged, "plain").stages[0].layer_decay is None
    assert arm_recipe(staged, "initialized").stages[0].decay_to_start == 0.1


def test_the_settings_come_back_from_json_and_from_a_command_line() -> None:
    recipe = deep_recipe(
        layer_decay=0.5, decay_to_start=0.1, reestimate_batchnorm=2, initialize=SelectWeights(choose="activation")
    )
    assert from_json(to_json(recipe), ("tests",)) == recipe
    words = ["--layer_decay", "0.5", "--decay-to-start", "0.1", "--reestimate_batchnorm=2", "--initialize"]
    base = deep_recipe(initialize=SelectWeights())
    assert apply_overrides(base, [*words, "SelectWeights(choose='activation')"]) == recipe
    assert json.loads(to_json(recipe))["layer_decay"] == 0.5


# Stages


def fitnets() -> Recipe:
    """FitNets (Romero et al., 2015): the hint first, up to the guided layer; then the whole."""
    stages = (
        Stage("hint", {"hint": HINT}, 2, SGD(lr=0.1)),
        Stage("kd", {"task": Term(CrossEntropy(), weight=0.5), "kd": Term(KD(), weight=0.5)}, 2, SGD(lr=0.1)),
    )
    return pair_recipe(plan={}, optimizer=None, epochs=None, stages=stages)


def test_fitnets_trains_up_to_the_hint_first_and_then_the_whole_from_there(tmp_path: Path) -> None:
    recipe = fitnets()
    start = {name: tensor.clone() for name, tensor in parts_of(recipe).student.named_parameters()}
    ended = run(recipe, tmp_path)
    states = [state["learner"] for _, state in sorted(ended.checkpoints.items())]
    hint_only = run(replace(recipe, stages=recipe.stages[:1]), tmp_path / "hint")
    for name, before in start.items():
        if name in ("layer1.0.bias", "layer2.0.bias"):
            continue  # BatchNorm takes a bias before it away, so its gradient is zero
        guided = name.startswith("layer1")
        assert torch.equal(hint_only.weights[name], before) != guided, name
        assert not torch.equal(ended.weights[name], before), f"{name} is trained in the second stage"
    losses = [line["raw"]["hint"] for line in lines_of(tmp_path / "hint") if "loss" in line]
    assert losses[-1] < losses[0]
    assert not any(name.startswith("heads") for name in states[-1]), "the regressor is left behind with its stage"
    text = described(recipe)
    assert text.index("Stage hint") < text.index("Warning: no loss reaches") < text.index("Stage kd")


def test_the_second_stage_begins_where_the_hint_ended(tmp_path: Path) -> None:
    """With a second stage that hardly moves, the guided layer ends where the hint alone leaves it."""
    recipe = fitnets()
    still = replace(recipe, stages=(recipe.stages[0], replace(recipe.stages[1], optimizer=SGD(lr=1e-12))))
    ended, alone = run(still, tmp_path / "both"), run(replace(recipe, stages=recipe.stages[:1]), tmp_path / "hint")
    for name in ("layer1.0.weight", "layer1.0.bias", "layer1.1.weight"):
        torch.testing.assert_close(ended.weights[name], alone.weights[name], rtol=0, atol=1e-7)


def test_transfer_then_fine_tune_freezes_what_was_transferred_and_lets_it_go(tmp_path: Path) -> None:
    stages = (
        Stage("classifier", TASK, 1, SGD(lr=0.1), freeze=("stem.*", "blocks.*")),
        Stage("all", TASK, 1, SGD(lr=0.05), layer_decay=0.5, decay_to_start=0.01),
    )
    recipe = deep_recipe(
        plan={}, optimizer=None, epochs=None, stages=stages, initialize=SkipLayers(keep_classifier=False)
    )
    start = {name: tensor.clone() for name, tensor in parts_of(recipe).student.named_parameters()}
    first = run(replace(recipe, stages=stages[:1]), tmp_path / "first")
    assert {name for name, before in start.items() if not torch.equal(first.weights[name], before)} == {
        "fc.weight",
        "fc.bias",
    }
    ended = run(recipe, tmp_path / "both")
    assert all(
        not torch.equal(ended.weights[name], before) for name, before in start.items() if name.endswith("weight")
    )
