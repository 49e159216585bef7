"""Whole runs on examples of several labels: what the report says, that it comes back, and what is refused."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from distill.build import make_accelerator, stage_trainer, training_feed
from distill.losses import BinaryCrossEntropy, MultiLabelKD
from distill.models import load_model
from distill.plan import Term
from distill.prepare import load_splits, prepare
from distill.recipe import SGD, Model, Recipe
from distill.report import Report, from_json, markdown, to_json
from distill.run import Options, train
from distill.trainer import NotFinite
from tests.processes import run_processes
from tests.tiny_labels import LABELS, Marks, labels_recipe


def trained(recipe: Recipe, accelerator: Accelerator) -> Tensor:
    """The student's parameters after training, without evaluation."""
    parts = prepare(recipe, load_splits(recipe, 0, Path("runs")), 0, Path("runs"))
    trainer, _ = stage_trainer(parts, recipe.all_stages()[0], accelerator, 0)
    feed = training_feed(parts, accelerator, 0)
    trainer.fit(feed, epochs=range(2), after_epoch=lambda epoch: False, log=lambda line: None, log_every=100)
    return torch.cat([parameter.detach().flatten() for parameter in parts.student.parameters()])


def uneven(micro_batch_size: int | None) -> Recipe:
    """60 examples in batches of 11, the last of 5: shares of 6 and 5, and of 3 and 2, over two processes."""
    kinds = [Model("tests.every_loss:convolutions", arguments={"width": width}) for width in (8, 4)]
    plan = {"task": Term(BinaryCrossEntropy(), 0.5), "kd": Term(MultiLabelKD(temperature=2.0), 2.0)}
    data = Marks(unknown=0.4)
    base = labels_recipe(teacher=kinds[0], student=kinds[1], plan=plan, data=data, batch_size=11)
    return replace(base, micro_batch_size=micro_batch_size)


def in_process() -> Tensor:
    recipe = uneven(micro_batch_size=4)
    return trained(recipe, make_accelerator(recipe))


@pytest.mark.slow
def test_two_processes_with_unknown_labels_and_uneven_cuts_make_the_student_of_one(tmp_path: Path) -> None:
    first, second = run_processes(in_process, 2, tmp_path)
    AcceleratorState._reset_state()
    recipe = uneven(micro_batch_size=None)
    alone = trained(recipe, make_accelerator(recipe))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, alone, rtol=1e-5, atol=1e-5)


def run(recipe: Recipe, root: Path, **options: Any) -> tuple[Report, str]:
    out = io.StringIO()
    report = train(recipe, Options(root=root, **options), Console(file=out, width=100))
    return report, out.getvalue()


def teacher_recipe() -> Recipe:
    return labels_recipe(
        name="teacher",
        teacher=None,
        student=replace(labels_recipe().student, arguments={"width": 8}),
        plan={"task": Term(BinaryCrossEntropy())},
        epochs=8,
    )


def pair_recipe(**changes: Any) -> Recipe:
    teacher = replace(labels_recipe().student, arguments={"width": 8}, weights="runs/teacher")
    changed: Recipe = replace(labels_recipe(), teacher=teacher, controls=("plain",), **changes)
    return changed


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a trained teacher."""
    place = tmp_path_factory.mktemp("runs")
    run(teacher_recipe(), place)
    return place


def test_a_run_over_seeds_is_judged_by_auroc_and_label_by_label(root: Path) -> None:
    report, said = run(pair_recipe(name="seeds", repeats=2), root)
    assert report.headline == "auroc" and report.by_label is not None
    assert report.by_label.labels == LABELS and set(report.by_label.models) == {"teacher", "plain", "transferred"}
    assert "over 2 seeds" in said and "Test AUROC % by label" in said
    for arm in ("plain", "transferred"):
        mean = sum(report.values(arm)) / 2
        assert report.by_label.means[arm].value == pytest.approx(mean)
    text = (root / "seeds" / "report.md").read_text()
    for title in (
        "AUROC by label",
        "Gain of the transfer by label",
        "Decisions by label",
        "Calibration by label",
        "Groups",
    ):
        assert f"## {title}" in text


def test_the_report_comes_back_with_all_that_is_said_by_label(root: Path) -> None:
    report, _ = run(pair_recipe(name="back"), root)
    read = from_json((root / "back" / "report.json").read_text())
    assert read.by_label is not None and report.by_label is not None
    assert json.loads(to_json(read))["by_label"] == json.loads(to_json(report))["by_label"]
    assert markdown(read) == markdown(report)


def test_one_seed_is_judged_over_its_patients(root: Path) -> None:
    report, said = run(pair_recipe(name="one"), root)
    assert report.by_label is not None and report.by_label.patients == 20
    assert "over the 20 test patients of one seed" in said.replace("\n", " ")


def test_a_run_that_was_stopped_between_arms_gives_the_same_report(root: Path) -> None:
    straight, _ = run(pair_recipe(name="straight", repeats=2), root)
    run(pair_recipe(name="stopped", repeats=2), root)
    folder = root / "stopped"
    (folder / "report.json").unlink()
    (folder / "arms" / "plain-1" / "result.json").unlink()
    resumed, _ = run(pair_recipe(name="stopped", repeats=2), root, resume=True)
    assert repr(resumed.by_label) == repr(straight.by_label)


def test_a_teacher_that_guesses_is_refused(root: Path, tmp_path: Path) -> None:
    weights = root / "teacher" / "student" / "model.safetensors"
    tensors = {name: tensor.zero_() if name.startswith("fc") else tensor for name, tensor in load_file(weights).items()}
    save_file(tensors, tmp_path / "blind.safetensors")
    teacher = replace(pair_recipe().teacher, weights=str(tmp_path / "blind.safetensors"))  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"has a mean AUROC of 0\.500 on the validation examples, which is chance"):
        run(replace(pair_recipe(name="blind"), teacher=teacher), root)


def test_a_student_is_taken_away_with_its_labels(root: Path) -> None:
    loaded = load_model(
        "tests.tiny:net", num_classes=3, in_channels=1, arguments={"width": 8}, weights=str(root / "teacher")
    )
    assert loaded.classes == LABELS
    config = json.loads((root / "teacher" / "student" / "config.json").read_text())
    assert config["several"] is True


def test_every_rendering_says_where_the_examples_come_from(root: Path) -> None:
    origin = "Synthetic marks drawn by a program."
    report, said = run(pair_recipe(name="origin", data=Marks(origin=origin)), root)
    assert report.origin == origin and origin in said
    assert f"**{origin}**" in (root / "origin" / "report.md").read_text()
    assert origin in (root / "origin" / "plan.txt").read_text()


def test_a_student_that_breaks_stops_by_name(root: Path) -> None:
    plan = {"task": Term(BinaryCrossEntropy())}
    recipe = labels_recipe(name="broken", teacher=None, plan=plan, optimizer=SGD(lr=1e30), epochs=1, batch_size=60)
    with pytest.raises(NotFinite, match="loss on the validation examples is nan at step 1"):
        run(recipe, root)
