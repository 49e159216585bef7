"""Students taken away: every format of every kind of model answers as the student, and what can't be is said."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from distill.cli import run_command
from distill.data import Arrays, Mix, Splits
from distill.export import BOUNDS
from distill.finished import read_run
from distill.losses import BinaryCrossEntropy, CrossEntropy
from distill.plan import Term
from distill.recipe import SGD, Model, Recipe
from distill.run import Options, train
from distill.serving import serve
from tests.end_to_end.test_text import recipe as text_recipe
from tests.tiny import pair_recipe
from tests.tiny_labels import Marks

pytest.importorskip("onnxruntime")

HOSTILE = "<img src=x onerror=alert(1)> | `rm`"


@dataclass(frozen=True)
class Colours:
    """RGB noise of 32x32, brighter in one channel for each class; one name is hostile."""

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits."""
        labels = torch.arange(60) % 3
        images = torch.randint(0, 160, (60, 3, 32, 32), generator=torch.Generator().manual_seed(0))
        images[torch.arange(60), labels] += 60
        return Arrays(images.to(torch.uint8), labels, ("ant", HOSTILE, "cat")).load(seed, mix)


def dense(num_classes: int, in_channels: int) -> torch.nn.Module:
    """torchvision's DenseNet, small, for grey images."""
    from torchvision.models import DenseNet

    model = DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=num_classes)
    model.features.conv0 = torch.nn.Conv2d(in_channels, 8, 3, padding=1, bias=False)
    return model


PLAIN = {"optimizer": SGD(lr=0.05), "epochs": 1, "batch_size": 20}
RECIPES = {
    "cnn": Recipe(
        name="cnn", data=Colours(), student=Model("distill.models.cifar:resnet8"), plan={"task": Term(CrossEntropy())},
        repeats=2, **PLAIN,
    ),
    "bert": replace(text_recipe(), name="bert"),
    "densenet": Recipe(
        name="densenet", data=Marks(), student=Model("tests.export.test_export:dense"),
        plan={"task": Term(BinaryCrossEntropy())}, **PLAIN,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    for recipe in RECIPES.values():
        train(recipe, Options(place), Console(file=io.StringIO()))
    return place


def exported(root: Path, name: str, *words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run_command(["export", str(root / name), *words, "--allow-import", "tests"])
    return code, *capsys.readouterr()


CASES = [(name, kind) for name in RECIPES for kind in BOUNDS if kind != "transformers" or name == "bert"]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_format_answers_as_the_student(
    name: str, kind: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    code, out, _ = exported(root, name, "--format", kind, "--out", str(folder), capsys=capsys)
    assert code == 0 and out.endswith(f"Exported: {folder}\n")
    record = json.loads((folder / "export.json").read_text())
    assert record["apart"] <= BOUNDS[kind] and record["examples"] >= 12
    told = json.loads((folder / "preprocessing.json").read_text())
    assert ("thresholds" in told) == (name == "densenet") and len(told["classes"]) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing is left beside it
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: ") and "<img" not in card


def test_the_card_tells_the_figures_with_their_spread(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported(root, "cnn", "--out", str(tmp_path / "out"), capsys=capsys)
    card = (tmp_path / "out" / "README.md").read_text()
    values = [100 * value for value in read_run(root / "cnn", ("tests",)).report.values("plain")]
    assert f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" in card
    assert "divided by 255, as (B, 3, 32, 32)" in card and "strict=True" in card


def test_an_onnx_file_is_fed_by_its_own_word(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnxruntime

    exported(root, "cnn", "--format", "onnx", "--out", str(tmp_path / "out"), capsys=capsys)
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    told = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    assert told["classes"][1] == HOSTILE and told["image"] == {"channels": 3, "height": 32, "width": 32, "resize": None}


@pytest.mark.parametrize(
    ("name", "words", "line"),
    [
        (
            "cnn",
            ("--format", "transformers"),
            "--format transformers is for models of transformers, and the student is",
        ),
        ("cnn", ("--arm", "transfered"), "has no arm 'transfered'. Nearest: plain."),
        ("cnn", ("--seed", "7"), "has no seed 7. It has 0, 1."),
        ("none", (), "is not the folder of a run"),
        ("cnn", ("--format", "onnnx"), "invalid choice: 'onnnx'"),
    ],
)
def test_what_can_not_be_exported_is_a_line(
    name: str, words: tuple[str, ...], line: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = exported(root, name, *words, "--out", str(tmp_path / "out"), capsys=capsys)
    assert code == 2 and line in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_form_that_answers_otherwise_is_not_kept(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.export.formats.OnnxModel", lambda path: lambda inputs: torch.zeros(len(inputs), 3))
    code, _, error = exported(root, "cnn", "--format", "onnx", "--out", str(tmp_path / "out"), capsys=capsys)
    assert code == 2 and "it is not kept" in error and not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unasked(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path / "out"))
    exported(root, "cnn", *out, capsys=capsys)
    code, _, error = exported(root, "cnn", *out, capsys=capsys)
    assert code == 2 and "is there already. Remove it with --overwrite" in error
    assert exported(root, "cnn", *out, "--overwrite", capsys=capsys)[0] == 0


def test_overwriting_removes_an_export_and_nothing_else(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (root / "cnn", tmp_path, tmp_path / "file"):
        code, _, error = exported(root, "cnn", "--out", str(place), "--overwrite", capsys=capsys)
        assert code == 2 and f"{place} holds something else than an export, so it is left alone." in error
    assert (root / "cnn" / "recipe.json").is_file() and (tmp_path / "file").read_text() == "mine"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Python with onnxruntime alone."""
    place = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    install = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "onnxruntime"]
    if subprocess.run(install, capture_output=True).returncode:
        pytest.skip("no package registry answers, so onnxruntime can't be installed alone")
    yield place / "bin" / "python"


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_an_onnx_file_runs_with_onnxruntime_alone(
    name: str, root: Path, fresh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported(root, name, "--format", "onnx", "--out", str(tmp_path / "out"), capsys=capsys)
    served = serve(read_run(root / name, ("tests",)))
    inputs, _ = served.examples(5)
    feed = {"images": inputs} if isinstance(inputs, torch.Tensor) else inputs
    np.savez(tmp_path / "feed.npz", **{key: value.numpy() for key, value in feed.items()})
    script = (
        "import sys, numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1])\n"
        "feed = numpy.load(sys.argv[2])\n"
        "names = [one.name for one in session.get_inputs()]\n"
        "numpy.save(sys.argv[3], session.run(['logits'], {name: feed[name] for name in names})[0])\n"
    )
    arguments = [str(tmp_path / "out" / "model.onnx"), str(tmp_path / "feed.npz"), str(tmp_path / "found.npy")]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([str(fresh), "-c", script, *arguments], check=True, cwd=tmp_path, env=clean)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), served.logits(inputs).numpy(), rtol=0, atol=1e-4)


def test_a_teacher_run_exports_its_transferred_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(pair_recipe(controls=("plain",), allow_chance_teacher=True), Options(tmp_path), Console(file=io.StringIO()))
    folder = tmp_path / "pair" / "export" / "torch"
    assert exported(tmp_path, "pair", "--format", "torch", capsys=capsys)[0] == 0
    card = (folder / "README.md").read_text()
    assert "transferred (this one)" in card and "Term kd: KD" in card and "Teacher: tests.tiny:net" in card
