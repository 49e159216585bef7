"""Every recipe of the repository loads, comes back from JSON, and its taps meet in models of the right size."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from distill.batch import Batch
from distill.data import (
    ChestXray,
    Cifar10,
    Cifar100,
    Coco,
    Corpus,
    Data,
    Digits,
    Imdb,
    Pets,
    Phantoms,
    Reviews,
    Sst2,
    TextSettings,
    TextTable,
)
from distill.data.phantoms import PHANTOM_LABELS
from distill.models import Loaded, load_model
from distill.models.cifar import resnet8x4
from distill.pair import Teacher, answers_of
from distill.plan import connect
from distill.recipe import Model, Recipe, apply_overrides, from_json, read_recipe, to_json
from distill.view import TokensView, View
from tests.commands import ROOT
from tests.models.onnx_files import export

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
        case Pets() | Coco():
            return (3, data.size, data.size)
        case ChestXray() | Phantoms():
            return (1, data.size, data.size)
    raise AssertionError(f"Say here what {type(data).__name__} gives.")


def num_classes(data: Data) -> int:
    match data:
        case Corpus():
            return 0
        case Sst2() | Imdb() | TextTable() | Reviews():
            return 2
        case Digits() | Cifar10():
            return 10
        case Cifar100():
            return 100
        case Pets():
            return {"breed": 37, "species": 2}[data.by]
        case ChestXray():
            return len(data.labels)
        case Phantoms():
            return len(PHANTOM_LABELS)
        case Coco():
            return 80
    raise AssertionError(f"Say here how many classes {type(data).__name__} has.")


# What the hub's models are, which can't be asked for here.
BASE = {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
MINILM = {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
HUB = {
    "transformers:bert-base-uncased": BASE,
    "transformers:bert-base-chinese": BASE,
    "transformers:sentence-transformers/all-MiniLM-L6-v2": MINILM,
}
WORDS = 50


def fresh_of_texts(model: Model, classes: int) -> nn.Module:
    """The model without its weights, and with few words."""
    arguments = {**HUB.get(model.source, {}), **model.arguments}
    source = "transformers:bert" if model.source in HUB else model.source
    answers = "classes" if classes else "tokens"
    made = load_model(
        source, num_classes=classes or None, in_channels=None, vocab_size=WORDS, arguments=arguments, answers=answers
    )
    return made.model


def several(data: Data) -> bool:
    """Whether an example has several labels."""
    return isinstance(data, ChestXray | Coco | Phantoms)


def fresh(model: Model, classes: int, channels: int) -> Loaded:
    """The model without its weights, which would have to be trained or downloaded."""
    if model.is_onnx:
        pytest.importorskip("onnxruntime")
        return load_model(model.source, num_classes=classes)
    return load_model(
        model.source, num_classes=classes, in_channels=channels, arguments=model.arguments, trust=model.trust
    )


@pytest.fixture
def onnx_file(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a recipe with an ONNX teacher asks the user for, in a working folder of its own."""
    if isinstance(recipe.data, TextSettings) or recipe.teacher is None or not recipe.teacher.is_onnx:
        return
    monkeypatch.chdir(tmp_path)
    network = resnet8x4(num_classes=num_classes(recipe.data), in_channels=crop(recipe.data)[0])
    export(tmp_path / recipe.teacher.source.partition(":")[2], network, torch.zeros(2, *crop(recipe.data)))


def test_the_recipes_are_found() -> None:
    assert len(FILES) >= 7
    assert {
        "digits_teacher.py",
        "digits.py",
        "cifar10_teacher.py",
        "cifar10.py",
        "cifar100.py",
        "pets.py",
        "cnn_to_vit.py",
        "vit_to_cnn.py",
        "other_resolution.py",
        "onnx_teacher.py",
        "reviews_teacher.py",
        "reviews.py",
        "sst2.py",
        "sst2_minilm.py",
        "imdb.py",
        "weibo.py",
        "sst2_bilstm.py",
        "wikipedia_general.py",
        "phantoms_teacher.py",
        "phantoms.py",
        "chestxray14_teacher.py",
        "chestxray14.py",
        "chestxray14_xrv.py",
        "coco.py",
    } <= {file.name for file in FILES}


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


def test_the_taps_of_a_recipe_meet_on_texts(recipe: Recipe) -> None:
    if not isinstance(recipe.data, TextSettings):
        pytest.skip("is of images")
    pytest.importorskip("transformers")
    classes, generator = num_classes(recipe.data), torch.Generator().manual_seed(0)
    ids = torch.randint(5, WORDS, (3, 8), generator=generator)
    mask = torch.arange(8) < torch.tensor([[8], [5], [3]])
    sides = ("",) if recipe.student.tokenizer is None or recipe.teacher is None else ("student.", "teacher.")
    inputs = {f"{side}input_ids": ids for side in sides} | {f"{side}attention_mask": mask.long() for side in sides}
    labels = torch.arange(3) % classes if classes else torch.where(ids % 3 == 0, ids, -100)
    sample = Batch(inputs, labels, torch.arange(3), mask if sides == ("",) else None)
    views = {role: TokensView("" if sides == ("",) else role, 8).module() for role in ("student", "teacher")}
    student = fresh_of_texts(recipe.student, classes)
    teacher = None if recipe.teacher is None else fresh_of_texts(recipe.teacher, classes)
    if recipe.initialize is not None:
        assert teacher is not None and recipe.initialize(teacher, student).share > 0.9
    for stage in recipe.all_stages():
        guide, learner = connect(
            teacher if any(term.needs_teacher for term in stage.plan.values()) else None,
            student,
            stage.plan,
            sample,
            teacher_view=views["teacher"],
            student_view=views["student"],
            aligned=sides == ("",),
        )
        assert set(learner(inputs, answers_of(guide, inputs), sample)) == set(stage.plan)
        reached = [name for name in learner.unreached if "layer" in name and "pooler" not in name]
        assert not reached or stage.name == "hints"
        learner.student.close()
        for parameter in student.parameters():
            parameter.requires_grad_(True)


def test_the_taps_of_a_recipe_meet(recipe: Recipe, onnx_file: None) -> None:
    if isinstance(recipe.data, TextSettings):
        pytest.skip("is of texts")
    channels, height, width = crop(recipe.data)
    classes = num_classes(recipe.data)
    generator = torch.Generator().manual_seed(0)
    sample = Batch(
        torch.randint(0, 256, (3, channels, height, width), generator=generator, dtype=torch.uint8),
        torch.eye(classes)[:3] if several(recipe.data) else torch.arange(3) % classes,
        torch.arange(3),
    )
    of_data = View(mean=(0.5,) * channels, std=(0.25,) * channels)
    loaded = fresh(recipe.student, classes, channels)
    student, student_view = loaded.model, (recipe.student.view or loaded.view or of_data).module()
    teacher, teacher_view = None, of_data.module()
    if recipe.teacher is not None:
        weights, radiographs = recipe.teacher.weights, recipe.teacher.source.startswith("xrv:")
        outside = weights is not None and not weights.startswith("runs/") and not radiographs
        loaded = fresh(recipe.teacher, IMAGENET_CLASSES if outside else classes, channels)
        teacher, teacher_view = loaded.model, (recipe.teacher.view or loaded.view or of_data).module()
        logits = Teacher(teacher, ["logits"], view=teacher_view)(sample.inputs)["logits"]
        assert logits.shape == (3, IMAGENET_CLASSES if outside else classes)
        if recipe.initialize is not None:
            coverage = recipe.initialize(teacher, student)
            assert coverage.share > 0.5
    for stage in recipe.all_stages():
        reads = any(term.needs_teacher for term in stage.plan.values())
        guide, learner = connect(
            teacher if reads else None,
            student,
            stage.plan,
            sample,
            teacher_view=teacher_view,
            student_view=student_view,
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
