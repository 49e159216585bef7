"""Every recipe of the repository loads, comes back from JSON, and its taps meet in models of the right size."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from distill.batch import Batch
from distill.data import Cifar10, Cifar100, Data, Digits, Pets
from distill.models import load_model
from distill.pair import Teacher
from distill.plan import connect
from distill.recipe import Model, Recipe, apply_overrides, from_json, read_recipe, to_json
from distill.view import View
from tests.commands import ROOT

FILES = sorted((ROOT / "recipes").rglob("*.py"))
IMAGENET_CLASSES = 1000


@pytest.fixture(autouse=True)
def import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a recipe puts its folder on the import path; it is taken off again."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(params=FILES, ids=lambda file: str(file.relative_to(ROOT / "recipes")))
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return read_recipe(request.param)


def crop(data: Data) -> tuple[int, int, int]:
    """Channels, height and width of what the data give, which need not be there."""
    match data:
        case Digits():
            return (1, 8, 8)
        case Cifar10() | Cifar100():
            return (3, 32, 32)
        case Pets():
            return (3, data.size, data.size)
    raise AssertionError(f"Say here what {type(data).__name__} gives.")


def num_classes(data: Data) -> int:
    match data:
        case Digits() | Cifar10():
            return 10
        case Cifar100():
            return 100
        case Pets():
            return {"breed": 37, "species": 2}[data.by]
    raise AssertionError(f"Say here how many classes {type(data).__name__} has.")


def fresh(model: Model, classes: int, channels: int) -> nn.Module:
    """The model without its weights, which would have to be trained or downloaded."""
    return load_model(
        model.source, num_classes=classes, in_channels=channels, arguments=model.arguments, trust=model.trust
    ).model


def test_the_recipes_are_found() -> None:
    assert len(FILES) >= 7
    assert {"digits_teacher.py", "digits.py", "cifar10_teacher.py", "cifar10.py", "cifar100.py", "pets.py"} <= {
        file.name for file in FILES
    }


def test_every_recipe_has_a_name_of_its_own() -> None:
    names = [read_recipe(file).name for file in FILES]
    assert len(set(names)) == len(names)


def test_a_recipe_comes_back_equal_from_json(recipe: Recipe) -> None:
    assert from_json(to_json(recipe)) == recipe


def test_a_recipe_can_be_changed_on_the_command_line(recipe: Recipe) -> None:
    first = f"stages.{recipe.stages[0].name}." if recipe.stages else ""
    changed = apply_overrides(recipe, ["--seed", "5", f"--{first}optimizer.lr", "0.5"])
    assert changed.seed == 5
    assert to_json(changed) == to_json(recipe).replace('"seed": 0', '"seed": 5').replace(
        f'"lr": {recipe.all_stages()[0].optimizer.lr}', '"lr": 0.5', 1
    )


def test_weights_of_a_run_are_those_of_a_recipe(recipe: Recipe) -> None:
    """`runs/NAME` is trained by the recipe of that name, with the same model and the same data."""
    if recipe.teacher is None or not (recipe.teacher.weights or "").startswith("runs/"):
        pytest.skip("takes no weights from a run")
    assert recipe.teacher.weights is not None
    others = {other.name: other for other in map(read_recipe, FILES)}
    maker = others[recipe.teacher.weights.removeprefix("runs/")]
    assert (maker.student.source, maker.student.arguments) == (recipe.teacher.source, recipe.teacher.arguments)
    assert maker.data == recipe.data


def test_the_taps_of_a_recipe_meet(recipe: Recipe) -> None:
    channels, height, width = crop(recipe.data)
    classes = num_classes(recipe.data)
    generator = torch.Generator().manual_seed(0)
    sample = Batch(
        torch.randint(0, 256, (3, channels, height, width), generator=generator, dtype=torch.uint8),
        torch.arange(3) % classes,
        torch.arange(3),
    )
    view = View(mean=(0.5,) * channels, std=(0.25,) * channels).module()
    student = fresh(recipe.student, classes, channels)
    teacher = None
    if recipe.teacher is not None:
        outside = recipe.teacher.weights is not None and not recipe.teacher.weights.startswith("runs/")
        teacher = fresh(recipe.teacher, IMAGENET_CLASSES if outside else classes, channels)
        logits = Teacher(teacher, ["logits"], view=view)(sample.inputs)["logits"]
        assert logits.shape == (3, IMAGENET_CLASSES if outside else classes)
        if recipe.initialize is not None:
            coverage = recipe.initialize(teacher, student)
            assert coverage.share > 0.5
    for stage in recipe.all_stages():
        reads = any(term.needs_teacher for term in stage.plan.values())
        guide, learner = connect(
            teacher if reads else None, student, stage.plan, sample, teacher_view=view, student_view=view
        )
        assert (guide is not None) == reads
        outputs = learner(sample.inputs)
        assert set(outputs) == set(stage.plan)
        learner.student.close()
        for parameter in student.parameters():
            parameter.requires_grad_(True)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_recipe_can_be_launched_as_a_script(file: Path) -> None:
    assert file.read_text().endswith('if __name__ == "__main__":\n    main(recipe)\n')
