"""What a run would do, as text: models, arrows with shapes and heads, what is not trained, steps and memory."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from distill.describe import describe
from distill.heads import Contrast, Conv1x1
from distill.initialize import CopyWeights, SelectWeights
from distill.losses import CRD, FSP, KD, CrossEntropy, Hint, RKDDistance
from distill.plan import Term
from distill.recipe import SGD, AdamW, Model, Recipe, Stage
from distill.view import View
from distill.weighting import Ramp, Uncertainty
from tests.tiny import on_cpu, pair_recipe, parts_of, plain_recipe

TASK = {"task": Term(CrossEntropy())}
HINT = Term(Hint(), student="layer1", teacher="layer1", head=Conv1x1())
WIDE = Model("tests.tiny:net", arguments={"width": 64})


def described(recipe: Recipe) -> str:
    """The description with its lines joined, which are broken at some width."""
    return " ".join(describe(parts_of(recipe), on_cpu()).split())


def rows(recipe: Recipe) -> dict[str, list[str]]:
    """{first cell: the other cells} of all tables, with cells that go over several lines put together."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in describe(parts_of(recipe), on_cpu()).splitlines():
        if line.startswith("│"):
            first, *cells = (cell.strip() for cell in line.strip("│").split("│"))
            name = first or name
            above = [""] * len(cells) if first else found[name]
            found[name] = [upper + lower for upper, lower in zip(above, cells, strict=True)]
    return found


def test_both_models_have_their_size_cost_and_view() -> None:
    """By hand, with w the width: 10 w + 2 w, then 18 w w + 2 w + 4 w, then 6 w + 3 parameters. The teacher sees 60x60:
    3600 x 9 w, 29 x 29 x 18 w w and 6 w multiply-adds.
    """
    teacher = replace(WIDE, view=View(size=60, mean=(0.5,), std=(0.5,)))
    found = rows(pair_recipe(teacher=teacher, plan={"kd": Term(KD())}))
    assert found["student"] == ["tests.tiny:net", "none", "387", "0.0 M", "1x6x6"]
    assert found["teacher"] == ["tests.tiny:net", "none", "75,267", "64.1 M", "1x60x60"]


def test_what_moves_or_balances_weights_and_which_heads_go_on_is_told() -> None:
    stages = (
        Stage("first", {"hint": HINT, "kd": Term(KD(), schedule=Ramp(2))}, 2, SGD(lr=0.1)),
        Stage("second", {"hint": HINT, "task": Term(CrossEntropy())}, 1, SGD(lr=0.1)),
    )
    text = described(pair_recipe(plan={}, optimizer=None, epochs=None, stages=stages, balance=Uncertainty()))
    assert "The weight of kd moves: Ramp(epochs=2)" in text
    assert text.count("The terms are weighed against each other by Uncertainty(), on top of their weights.") == 2
    assert text.count("Heads that go on from the stage before: hint") == 1
    assert "weighed against" not in described(pair_recipe())


def test_a_head_that_maps_both_sides_is_described() -> None:
    head = Contrast(examples=36, width=4, negatives=3)
    plan = {"crd": Term(CRD(), student="embedding", teacher="embedding", head=head), **TASK}
    assert rows(pair_recipe(plan=plan))["crd"][-1] == str(8 * 4 + 4 + 16 * 4 + 4)


def test_each_arrow_has_its_shapes_and_its_head() -> None:
    """By hand: the head of the hint is 4 x 8 weights and 8 + 8 of the norm."""
    plan = {
        "task": Term(CrossEntropy(), weight=0.25),
        "kd": Term(KD(temperature=2.0), weight=0.75),
        "hint": HINT,
        "layers": Term(FSP(), student=("layer1", "layer2"), teacher=("layer1", "layer2"), head=Conv1x1(norm=False)),
    }
    found = rows(pair_recipe(plan=plan))
    assert found["task"][0] == "0.25" and found["task"][2:] == ["logits", "3", "labels", "", "", ""]
    assert found["kd"][0] == "0.75" and found["kd"][2:] == ["logits", "3", "logits", "3", "", ""]
    assert found["kd"][1].startswith("KD(temperature=2.0")
    assert found["hint"][2:] == ["layer1", "4x6x6", "layer1", "8x6x6", "Conv1x1(norm=True)", "48"]
    shapes = ["4x6x6+8x2x2", "layer1+layer2", "8x6x6+16x2x2"]
    assert [cell.replace(" ", "") for cell in found["layers"][3:6]] == shapes


def test_a_plain_run_has_no_teacher() -> None:
    assert set(rows(plain_recipe())) == {"student", "task"}
    assert ", 0.0 MiB teacher)" in described(plain_recipe())


def test_each_stage_has_its_arrows_and_its_length() -> None:
    stages = (
        Stage("transfer", {"hint": HINT}, epochs=4, optimizer=AdamW(lr=0.5)),
        Stage("fine-tune", TASK, epochs=7, optimizer=SGD(lr=0.25)),
    )
    text = described(pair_recipe(plan={}, optimizer=None, epochs=None, stages=stages))
    first, second = text.index("Stage transfer"), text.index("Stage fine-tune")
    assert first < text.index("4 epochs of 3 steps") < text.index("AdamW(lr=0.5") < second
    assert second < text.index("7 epochs of 3 steps") < text.index("SGD(lr=0.25")


# What is not trained


def test_frozen_parameters_are_named() -> None:
    stage = Stage("train", TASK, epochs=1, optimizer=SGD(lr=0.1), freeze=("layer1.0.*", "fc.bias"))
    text = described(plain_recipe(plan={}, optimizer=None, epochs=None, stages=(stage,)))
    assert "Frozen by the recipe: layer1.0.weight, layer1.0.bias, fc.bias " in text
    assert "no loss reaches" not in text


def test_many_names_are_counted() -> None:
    """Four layers with a weight and a bias each are eight names; one more is not shown."""
    stage = Stage("train", TASK, epochs=1, optimizer=SGD(lr=0.1), freeze=("layer*", "fc.bias"))
    text = described(plain_recipe(plan={}, optimizer=None, epochs=None, stages=(stage,)))
    assert "layer2.1.weight, layer2.1.bias and 1 more" in text


def test_parameters_that_no_loss_reaches_are_named() -> None:
    text = described(pair_recipe(plan={"hint": Term(Hint(), student="layer2", teacher="layer2", head=Conv1x1())}))
    assert "no loss reaches fc.weight, fc.bias" in text
    assert "Frozen" not in text
    assert "no loss reaches" not in described(pair_recipe())


def test_a_pattern_that_fits_nothing_is_refused_before_anything_is_trained() -> None:
    stage = Stage("train", TASK, epochs=1, optimizer=SGD(lr=0.1), freeze=("layer3.*",))
    with pytest.raises(ValueError, match=r"freeze='layer3\.\*' fits no parameter"):
        described(plain_recipe(plan={}, optimizer=None, epochs=None, stages=(stage,)))


# The start


def test_the_share_of_the_teacher_s_weights_is_told_with_what_is_left() -> None:
    """By hand: of 387 parameters the classifier's 27 are left, so 360 / 387 = 93.0% are the teacher's."""
    teacher = Model("tests.tiny:net", arguments={"num_classes": 4})
    recipe = pair_recipe(teacher=teacher, plan={**TASK, "hint": replace(HINT, head=None)}, initialize=CopyWeights())
    text = described(recipe)
    assert "93.0% of the student's 387 parameters from the teacher" in text
    left = text[text.index("Left at their own initialisation") :]
    assert "fc.weight" in left and "fc.bias" in left and "layer" not in left[: left.index("Stage")]
    whole = described(pair_recipe(initialize=SelectWeights()))
    assert "100.0% of the student's 387 parameters" in whole and "Left" not in whole
    assert "parameters from the teacher" not in described(pair_recipe())


# Steps and passes


@pytest.mark.parametrize(
    ("batch_size", "processes", "steps"),
    [(12, 1, 3), (16, 1, 3), (36, 1, 1), (64, 1, 1), (12, 2, 3), (35, 1, 2), (35, 2, 1)],
    ids=[
        "even",
        "ragged",
        "one",
        "more than there are",
        "shared",
        "a last one of one example",
        "which two cannot share",
    ],
)
def test_the_steps_of_an_epoch_are_counted(
    batch_size: int, processes: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", property(lambda self: processes))
    text = described(plain_recipe(batch_size=batch_size))
    assert f"3 epochs of {steps} step" in text
    assert f"batch of {batch_size} over {processes} process" in text
    assert ("left out" in text) == ((batch_size, processes) == (35, 2))


PASSES = "forward twice a step"
COUPLED = {**TASK, "samples": Term(RKDDistance(), student="embedding", teacher="embedding")}


@pytest.mark.parametrize(
    ("plan", "micro_batch_size", "processes", "twice"),
    [
        (COUPLED, 5, 1, True),
        (COUPLED, 5, 2, True),
        (COUPLED, 6, 2, False),
        (COUPLED, 12, 1, False),
        (COUPLED, None, 1, False),
        (COUPLED, None, 2, False),
        ({"samples": replace(COUPLED["samples"], loss=RKDDistance(scope="local"))}, 5, 1, False),
        ({**TASK, "hint": HINT}, 5, 1, False),
    ],
)
def test_two_passes_are_told_where_a_loss_relates_more_than_a_micro_batch(
    plan: Any, micro_batch_size: int | None, processes: int, twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", property(lambda self: processes))
    text = described(pair_recipe(plan=plan, micro_batch_size=micro_batch_size))
    assert (PASSES in text) == twice
    if twice:
        assert "samples" in text[text.rindex("Note:") : text.index(PASSES)]


def test_the_precision_is_told() -> None:
    AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(cpu=True, mixed_precision="bf16")
        assert "precision bf16" in " ".join(describe(parts_of(plain_recipe()), accelerator).split())
    finally:
        AcceleratorState._reset_state()
    assert "precision float32" in described(plain_recipe())


@pytest.mark.parametrize(("repeats", "seeds"), [(1, "one seed"), (3, "3 seeds beside plain and initialized")])
def test_seeds_and_controls_are_told(repeats: int, seeds: str) -> None:
    controls = ("plain", "initialized") if repeats > 1 else ()
    assert f"Over {seeds};" in described(pair_recipe(initialize=SelectWeights(), repeats=repeats, controls=controls))


# Memory


@pytest.mark.parametrize(
    ("optimizer", "held"),
    [(SGD(lr=0.1, momentum=0.0), "0.6"), (SGD(lr=0.1), "0.9"), (AdamW(lr=0.1), "1.1")],
)
def test_memory_counts_weights_gradients_and_what_the_optimizer_keeps(optimizer: Any, held: str) -> None:
    """By hand: 75,267 parameters of 4 bytes are 0.287 MiB; two, three and four times that."""
    text = described(plain_recipe(student=WIDE, optimizer=optimizer))
    assert f"{held} MiB weights, gradients and optimizer, 0.0 MiB teacher" in text


def test_memory_counts_the_teacher_and_grows_with_the_micro_batch() -> None:
    """By hand: 75,267 parameters, 384 statistics and two counts of the teacher are 0.289 MiB."""
    plan = {"kd": Term(KD())}

    def activations(text: str) -> float:
        return float(text[: text.index(" MiB activations")].rpartition("(")[2])

    small = described(pair_recipe(teacher=WIDE, student=WIDE, plan=plan, batch_size=400, micro_batch_size=100))
    large = described(pair_recipe(teacher=WIDE, student=WIDE, plan=plan, batch_size=400))
    assert "0.3 MiB teacher" in small
    assert activations(small) > 1
    assert activations(large) == pytest.approx(4 * activations(small), rel=0.05)
    total = float(large[: large.index(f" MiB ({activations(large):,.1f}")].rpartition(" ")[2])
    assert total == pytest.approx(activations(large) + 0.861 + 0.289, abs=0.2)


# And nothing else


def test_describing_changes_nothing() -> None:
    parts = parts_of(pair_recipe())
    before = [copy.deepcopy(model.state_dict()) for model in (parts.student, parts.teacher) if model is not None]
    training = [module.training for module in parts.student.modules()]
    text = describe(parts, on_cpu())
    assert parts.teacher is not None
    for model, state in zip((parts.student, parts.teacher), before, strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
        assert not any(module._forward_hooks for module in model.modules())
    assert [module.training for module in parts.student.modules()] == training
    assert describe(parts, on_cpu()) == text


def test_brackets_in_names_are_text() -> None:
    text = described(plain_recipe(name="a[red]b"))
    assert "Run a[red]b: Blobs, 3 classes, 36 training, 12 validation and 12 test examples" in text
