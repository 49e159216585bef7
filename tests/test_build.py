"""From a recipe to built objects: arms under one budget, the same start, and errors that name what does not fit."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from distill.arms import arm_recipe, main_arm
from distill.build import freeze, make_accelerator, stage_trainer, training_feed
from distill.data import Examples, Mix, Part
from distill.heads import Conv1x1
from distill.initialize import CopyWeights, SelectWeights
from distill.losses import KD, CrossEntropy, Hint
from distill.models import save_student
from distill.plan import Term
from distill.prepare import load_splits, sample_batch
from distill.recipe import SGD, Cosine, Model, Recipe, Stage
from distill.trainer import Trainer
from distill.view import View
from distill.weighting import GradNorm, Uncertainty
from tests.tiny import CLASSES, STUDENT, TEACHER, Blobs, TinyNet, net, on_cpu, pair_recipe, parts_of, plain_recipe

HINT = Term(Hint(), student="layer1", teacher="layer1", head=Conv1x1())


@pytest.fixture(autouse=True)
def own_precision() -> Iterator[None]:
    """Accelerate keeps a precision for the whole process; each test gets and leaves none."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def equal(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    assert set(first) == set(second)
    return all(torch.equal(first[name], second[name]) for name in first)


# Arms


def staged(*plans: dict[str, Term], **changes: Any) -> Recipe:
    stages = tuple(
        Stage(f"stage{number}", plan, epochs=number + 1, optimizer=SGD(lr=0.1), schedule=Cosine())
        for number, plan in enumerate(plans)
    )
    return pair_recipe(plan={}, optimizer=None, epochs=None, stages=stages, **changes)


def test_the_run_itself_is_one_of_the_arms() -> None:
    assert main_arm(pair_recipe()) == "transferred" and main_arm(plain_recipe()) == "plain"
    recipe = pair_recipe(controls=("plain",), clip=1.0)
    assert arm_recipe(recipe, "transferred") == replace(recipe, controls=())
    assert arm_recipe(plain_recipe(), "plain") == plain_recipe()


def test_the_plain_control_learns_from_the_labels_alone_under_the_same_budget() -> None:
    """By hand: label weights 0.1 and 0.3 make a sum of 0.4, so they become 1/4 and 3/4."""
    plan = {
        "smooth": Term(CrossEntropy(label_smoothing=0.1), weight=0.1),
        "kd": Term(KD(), weight=0.9),
        "hint": HINT,
        "task": Term(CrossEntropy(), weight=0.3),
    }
    recipe = pair_recipe(
        plan=plan, initialize=SelectWeights(), controls=("plain",), clip=1.0, mix=Mix(mixup=0.2), ema=0.9, patience=3
    )
    plain = arm_recipe(recipe, "plain")
    assert plain.teacher is None and plain.initialize is None and plain.controls == ()
    assert {name: term.weight for name, term in plain.plan.items()} == pytest.approx({"smooth": 0.25, "task": 0.75})
    assert plain.plan["smooth"].loss == CrossEntropy(label_smoothing=0.1)
    assert (
        replace(plain, plan=recipe.plan, teacher=recipe.teacher, initialize=recipe.initialize, controls=recipe.controls)
        == recipe
    )


def test_the_initialized_control_starts_from_the_teacher_and_learns_nothing_else_from_it() -> None:
    recipe = pair_recipe(initialize=SelectWeights(), controls=("initialized",), allow_chance_teacher=True)
    control = arm_recipe(recipe, "initialized")
    assert control.teacher == recipe.teacher and control.initialize == SelectWeights()
    assert dict(control.plan) == {"task": Term(CrossEntropy(), weight=1.0)}
    assert not control.allow_chance_teacher and control.controls == ()


def test_what_a_stage_freezes_is_trained_by_a_student_without_the_teachers_weights() -> None:
    stages = (Stage("train", {"task": Term(CrossEntropy()), "kd": Term(KD())}, 1, SGD(lr=0.5), freeze=("layer1.*",)),)
    recipe = pair_recipe(plan={}, optimizer=None, epochs=None, stages=stages, initialize=SelectWeights())
    assert arm_recipe(recipe, "plain").stages[0].freeze == ()
    assert arm_recipe(recipe, "initialized").stages[0].freeze == ("layer1.*",)


def test_a_control_of_one_term_has_nothing_to_balance() -> None:
    recipe = pair_recipe(balance=GradNorm(), compare_gradients_every=2, initialize=SelectWeights())
    control = arm_recipe(recipe, "plain")
    assert control.balance is None and control.compare_gradients_every is None
    assert arm_recipe(recipe, "transferred").balance == GradNorm()


def test_each_stage_of_a_control_keeps_its_budget_and_has_label_terms() -> None:
    """A stage without labels gets those of the other stages; a label term of weight 0 is none."""
    recipe = staged(
        {"hint": HINT},
        {"task": Term(CrossEntropy(), weight=0.2), "kd": Term(KD(), weight=0.8)},
        {"task": Term(CrossEntropy(label_smoothing=0.1), weight=0.0), "kd": Term(KD())},
    )
    control = arm_recipe(recipe, "plain")
    assert [dict(stage.plan) for stage in control.stages] == [{"task": Term(CrossEntropy(), weight=1.0)}] * 3
    assert [stage.epochs for stage in control.stages] == [1, 2, 3]
    assert [(stage.name, stage.optimizer, stage.schedule) for stage in control.stages] == [
        (stage.name, stage.optimizer, stage.schedule) for stage in recipe.stages
    ]


def test_a_stage_of_a_control_keeps_its_own_label_terms() -> None:
    """By hand: the stage without labels gets 0.1 and 0.3 of the others, scaled to a sum of one."""
    smooth = CrossEntropy(label_smoothing=0.1)
    recipe = staged(
        {"smooth": Term(smooth, weight=0.1), "kd": Term(KD())},
        {"hint": HINT},
        {"task": Term(CrossEntropy(), weight=0.3), "kd": Term(KD())},
    )
    assert [dict(stage.plan) for stage in arm_recipe(recipe, "plain").stages] == [
        {"smooth": Term(smooth, weight=1.0)},
        {"smooth": Term(smooth, weight=0.25), "task": Term(CrossEntropy(), weight=pytest.approx(0.75))},
        {"task": Term(CrossEntropy(), weight=1.0)},
    ]


def test_a_control_of_a_run_without_labels_learns_by_cross_entropy() -> None:
    recipe = pair_recipe(plan={"kd": Term(KD())})
    assert dict(arm_recipe(recipe, "plain").plan) == {"task": Term(CrossEntropy())}
    recipe = staged({"hint": HINT}, {"kd": Term(KD())})
    assert [dict(stage.plan) for stage in arm_recipe(recipe, "plain").stages] == [{"task": Term(CrossEntropy())}] * 2


# The start


def test_the_transferred_student_and_the_plain_one_start_from_the_same_weights() -> None:
    recipe = pair_recipe(seed=5, controls=("plain",))
    transferred, plain = (parts_of(arm_recipe(recipe, arm)) for arm in ("transferred", "plain"))
    assert equal(transferred.student, plain.student)
    assert plain.teacher is None and not plain.comparable and plain.coverage is None
    other = parts_of(arm_recipe(replace(recipe, seed=6), "plain"))
    assert not equal(transferred.student, other.student)


def test_the_student_is_started_from_the_teacher_where_the_recipe_says_so() -> None:
    recipe = pair_recipe(student=TEACHER, initialize=CopyWeights(), controls=("plain", "initialized"))
    for arm in ("transferred", "initialized"):
        parts = parts_of(arm_recipe(recipe, arm))
        assert parts.coverage is not None and parts.coverage.share == 1.0
        assert parts.teacher is not None and equal(parts.student, parts.teacher)
    plain = parts_of(arm_recipe(recipe, "plain"))
    assert plain.coverage is None and not equal(plain.student, parts.student)


def test_the_heads_of_a_seed_are_the_same_in_each_build() -> None:
    first, second, other = (
        stage_trainer(parts_of(pair_recipe()), pair_recipe().all_stages()[0], on_cpu(), seed)[1].heads
        for seed in (3, 3, 4)
    )
    assert equal(first, second) and not equal(first, other)


# Weights of a run


def save_run(folder: Path, *, width: int = 8, classes: tuple[str, ...] = CLASSES, view: View | None = None) -> TinyNet:
    torch.manual_seed(11)
    model = net(num_classes=len(classes), width=width)
    config = {
        "source": "tests.tiny:net",
        "arguments": {"width": width},
        "num_classes": len(classes),
        "in_channels": 1,
        "classes": list(classes),
        "view": None if view is None else {"size": view.size, "mean": view.mean, "std": view.std},
    }
    save_student(folder / "student", model, config)
    return model


def with_teacher_of(weights: str, **changes: Any) -> Recipe:
    return pair_recipe(teacher=replace(TEACHER, weights=weights), **changes)


def test_weights_of_a_run_are_looked_up_below_the_root(tmp_path: Path) -> None:
    saved = save_run(tmp_path / "elsewhere" / "good", view=View(mean=(0.25,), std=(0.5,)))
    recipe = with_teacher_of("runs/good")
    parts = parts_of(recipe, tmp_path / "elsewhere")
    assert parts.teacher is not None and equal(parts.teacher, saved)
    assert parts.teacher_view == View(mean=(0.25,), std=(0.5,)) and parts.comparable
    assert parts.student_view == recipe.data.load(0, None).view
    with pytest.raises(ValueError, match=r"There is no run folder .*other/good\. Train it first"):
        parts_of(recipe, tmp_path / "other")


def test_weights_elsewhere_are_taken_as_they_are_named(tmp_path: Path) -> None:
    saved = save_run(tmp_path / "good")
    parts = parts_of(with_teacher_of(str(tmp_path / "good")), tmp_path / "elsewhere")
    assert parts.teacher is not None and equal(parts.teacher, saved)


def test_a_view_of_the_recipe_goes_before_that_of_the_weights(tmp_path: Path) -> None:
    save_run(tmp_path / "good", view=View(mean=(0.25,), std=(0.5,)))
    view = View(size=16, mean=(0.5,), std=(1.0,))
    recipe = pair_recipe(teacher=replace(TEACHER, weights="runs/good", view=view))
    assert parts_of(recipe, tmp_path).teacher_view == view


# Classes


def test_a_student_with_another_number_of_outputs_is_refused() -> None:
    student = Model("tests.tiny:net", arguments={"num_classes": 5})
    with pytest.raises(ValueError, match=r"Student tests\.tiny:net gives 5 logits and the data has 3 classes"):
        parts_of(plain_recipe(student=student))


@pytest.mark.parametrize("initialize", [None, SelectWeights()])
def test_a_teacher_of_other_classes_is_refused_where_its_logits_are_read(initialize: Any, tmp_path: Path) -> None:
    save_run(tmp_path / "wide", classes=("a", "b", "c", "d"))
    with pytest.raises(ValueError, match=r"Teacher tests\.tiny:net answers 4 classes and the data has 3"):
        parts_of(with_teacher_of("runs/wide", initialize=initialize), tmp_path)


def test_a_teacher_of_other_classes_may_give_its_features(tmp_path: Path) -> None:
    save_run(tmp_path / "wide", classes=("a", "b", "c", "d"))
    plan = {"task": Term(CrossEntropy()), "hint": HINT}
    parts = parts_of(with_teacher_of("runs/wide", plan=plan), tmp_path)
    assert parts.teacher is not None and parts.teacher.fc.out_features == 4
    assert not parts.comparable
    trainer, _ = stage_trainer(parts, parts.recipe.all_stages()[0], on_cpu(), 0)
    assert torch.isfinite(trainer.step([sample_batch(parts.splits)])["hint"])


@pytest.mark.parametrize(
    ("classes", "named"),
    [
        (("ant", "cat", "bee"), "class 1 differently: 'cat' and 'bee'"),
        (("ant", "bee", "dog"), "class 2 differently: 'dog' and 'cat'"),
    ],
)
def test_classes_of_other_names_or_order_are_refused_by_name(
    classes: tuple[str, ...], named: str, tmp_path: Path
) -> None:
    save_run(tmp_path / "swapped", classes=classes)
    with pytest.raises(ValueError, match=named):
        parts_of(with_teacher_of("runs/swapped"), tmp_path)
    features = parts_of(with_teacher_of("runs/swapped", plan={"task": Term(CrossEntropy()), "hint": HINT}), tmp_path)
    assert not features.comparable


def test_a_teacher_without_names_is_compared_by_the_number_of_classes(tmp_path: Path) -> None:
    torch.save(net(num_classes=3, width=8).state_dict(), tmp_path / "weights.pt")
    assert parts_of(with_teacher_of(str(tmp_path / "weights.pt"))).comparable


def test_checking_the_student_leaves_it_as_it_starts() -> None:
    student = parts_of(plain_recipe()).student
    assert all(module.training for module in student.modules())
    assert not any(int(count) for name, count in student.named_buffers() if name.endswith("num_batches_tracked"))


# Freezing


def test_patterns_freeze_what_they_name_and_the_next_stage_starts_over() -> None:
    student = net()
    freeze(student, ("layer1.*", "*.bias"))
    names = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert names == {"layer2.0.weight", "layer2.1.weight", "fc.weight"}
    freeze(student, ("fc.weight",))
    assert {name for name, parameter in student.named_parameters() if not parameter.requires_grad} == {"fc.weight"}
    freeze(student, ())
    assert all(parameter.requires_grad for parameter in student.parameters())


@pytest.mark.parametrize(
    ("pattern", "named"), [("layer1.0.wieght", "layer1.0.weight"), ("fc", "fc.*"), ("layer", "layer1.*")]
)
def test_a_pattern_that_fits_nothing_names_the_nearest_parameter(pattern: str, named: str) -> None:
    with pytest.raises(ValueError) as refused:
        freeze(net(), ("layer2.*", pattern))
    assert f"freeze='{pattern}' fits no parameter" in str(refused.value) and named in str(refused.value)


def test_frozen_parameters_stay_as_they_are_in_training() -> None:
    stage = Stage("train", {"task": Term(CrossEntropy())}, 1, SGD(lr=0.5), freeze=("layer*",))
    parts, accelerator = parts_of(plain_recipe()), on_cpu()
    before = {name: parameter.detach().clone() for name, parameter in parts.student.named_parameters()}
    trainer, _ = stage_trainer(parts, stage, accelerator, 0)
    trainer.step([sample_batch(parts.splits)])
    changed = {name for name, parameter in parts.student.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"fc.weight", "fc.bias"}


# The accelerator


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu()
    assert make_accelerator(plain_recipe()).num_processes == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"started 2 processes, but each sees 1\..*--multi_gpu"):
        make_accelerator(plain_recipe())


@pytest.mark.parametrize(
    ("precision", "launcher", "chosen"),
    [
        (None, None, "no"),
        (None, "bf16", "bf16"),
        ("bf16", None, "bf16"),
        ("float32", "bf16", "no"),
    ],
)
def test_the_precision_is_the_recipe_s_or_else_the_launcher_s(
    precision: Any, launcher: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu()
    if launcher is not None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    make_accelerator(plain_recipe(precision="bf16"))
    assert make_accelerator(plain_recipe(precision=precision)).mixed_precision == chosen


def test_a_precision_that_the_machine_has_not_is_refused() -> None:
    on_cpu()
    with pytest.raises(ValueError, match="precision='fp16'"):
        make_accelerator(plain_recipe(precision="fp16"))


# What the models see


def seen_by(model: nn.Module) -> list[Tensor]:
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    return seen


@pytest.mark.parametrize("mix", [None, Mix(mixup=1.0)])
def test_teacher_and_student_see_two_views_of_one_crop(mix: Mix | None) -> None:
    teacher_view = View(size=12, mean=(0.5,), std=(0.25,))
    recipe = pair_recipe(
        teacher=replace(TEACHER, view=teacher_view),
        student=replace(STUDENT, view=View(mean=(0.25,), std=(0.5,))),
        plan={"kd": Term(KD())},
        mix=mix,
    )
    parts, accelerator = parts_of(recipe), on_cpu()
    assert parts.teacher is not None
    trainer, _ = stage_trainer(parts, recipe.all_stages()[0], accelerator, 0)
    by_teacher, by_student = seen_by(parts.teacher), seen_by(parts.student)
    steps = list(training_feed(parts, accelerator, 0)(1))
    for epoch, window in steps:
        trainer.step(window, epoch)
    assert len(by_teacher) == len(by_student) == len(steps) == 3
    for teachers, students in zip(by_teacher, by_student, strict=True):
        assert teachers.shape == (12, 1, 12, 12) and students.shape == (12, 1, 6, 6)
        crop = students * 0.5 + 0.25
        assert float(crop.min()) >= 0 and float(crop.max()) <= 1 and float(crop.std()) > 0.1
        torch.testing.assert_close(teachers, teacher_view.module()(crop))


def test_the_feed_gives_each_training_example_once_an_epoch() -> None:
    recipe = plain_recipe(batch_size=16, micro_batch_size=5)
    parts = parts_of(recipe)
    feed = training_feed(parts, on_cpu(), seed=0)
    steps = list(feed(4))
    assert [progress for progress, _ in steps] == pytest.approx([4, 4 + 1 / 3, 4 + 2 / 3])
    assert [[len(batch) for batch in window] for _, window in steps] == [[4, 4, 4, 4], [4, 4, 4, 4], [4]]
    index = torch.cat([batch.index for _, window in steps for batch in window])
    assert torch.equal(index.sort().values, torch.arange(36))
    rest = list(feed(4, 2))
    assert [progress for progress, _ in rest] == pytest.approx([4 + 2 / 3])
    assert torch.equal(rest[0][1][0].inputs, steps[2][1][0].inputs)
    other = torch.cat([batch.index for _, window in feed(5) for batch in window])
    assert not torch.equal(index, other)


def test_a_stage_of_label_terms_does_not_ask_the_teacher() -> None:
    parts = parts_of(pair_recipe())
    stage = Stage("fine-tune", {"task": Term(CrossEntropy())}, 1, SGD(lr=0.1))
    trainer, learner = stage_trainer(parts, stage, on_cpu(), 0)
    assert isinstance(trainer, Trainer) and trainer.teacher is None and not learner.heads


def test_an_empty_split_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Part(torch.empty(0, 1, 6, 6, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    splits = replace(Blobs().load(0, None), validation=Examples(nothing, num_classes=3))
    monkeypatch.setattr(Blobs, "load", lambda self, seed, mix: splits)
    with pytest.raises(ValueError, match=r"The validation split of Blobs is empty\. Give it examples"):
        load_splits(plain_recipe(), 0, Path("runs"))


# Heads and balance


def test_a_balance_is_trained_without_weight_decay_and_kept_with_the_learner() -> None:
    recipe = pair_recipe(balance=Uncertainty(), optimizer=SGD(lr=0.1, weight_decay=0.5))
    trainer, learner = stage_trainer(parts_of(recipe), recipe.all_stages()[0], on_cpu(), 0)
    decays = [group["weight_decay"] for group in trainer.optimizer.param_groups]
    assert decays == [0.5, 0.0]
    assert trainer.optimizer.param_groups[1]["params"][0].shape == (4,)
    assert "balance.log_variance" in learner.state_dict()


def test_heads_go_on_under_the_same_name_and_start_anew_where_the_layer_differs() -> None:
    recipe = pair_recipe(plan={"hint": HINT, "kd": Term(KD())})
    _, first = stage_trainer(parts_of(recipe), recipe.all_stages()[0], on_cpu(), 0)
    other = pair_recipe(plan={"hint": replace(HINT, student="layer2", teacher="layer2"), "kd": Term(KD())})
    heads = {name: head.state_dict() for name, head in first.heads.items()}
    with torch.no_grad():
        for parameter in first.heads["hint"].parameters():
            parameter.fill_(0.5)
    _, again = stage_trainer(parts_of(recipe), recipe.all_stages()[0], on_cpu(), 1, heads)
    assert equal(again.heads["hint"], first.heads["hint"])
    _, elsewhere = stage_trainer(parts_of(other), other.all_stages()[0], on_cpu(), 1, heads)
    assert not any(bool((parameter == 0.5).all()) for parameter in elsewhere.heads["hint"].parameters())


def test_the_layer_of_a_comparison_is_found_where_it_is_asked_for() -> None:
    for changes, found in (({}, False), ({"compare_gradients_every": 3}, True), ({"balance": GradNorm()}, True)):
        recipe = pair_recipe(**changes)
        trainer, _ = stage_trainer(parts_of(recipe), recipe.all_stages()[0], on_cpu(), 0)
        assert (trainer.shared is not None) == found
