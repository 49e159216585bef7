"""What models cost: published multiply-adds, times that repeat, ways that agree, and what can't be priced."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from distill.cli import run_command
from distill.cost import Given, subjects
from distill.measure import multiply_adds
from distill.run import Options, train
from tests.commands import ROOT
from tests.tiny import pair_recipe

NOTHING = Given(None, None, None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    recipe = pair_recipe(repeats=2, allow_chance_teacher=True)
    train(recipe, Options(root), Console(file=io.StringIO()))
    return root / recipe.name


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("torchvision:resnet50", 4.09e9),  # torchvision's own table of its weights
        ("torchvision:mobilenet_v3_small", 56e6),  # Howard et al., 2019, arXiv:1905.02244, table 3
    ],
)
def test_multiply_adds_of_networks_are_the_published_ones(name: str, published: float) -> None:
    (subject,) = subjects([name], NOTHING)
    found = multiply_adds(subject.model, subject.inputs(1))
    assert found == pytest.approx(published, rel=0.02)


def test_multiply_adds_of_bert_are_those_of_its_matrices() -> None:
    pytest.importorskip("transformers")
    (subject,) = subjects(["transformers:bert"], Given(None, None, 128))
    # Of a layer and token 4 · 768² + 2 · 768 · 3072, and attention's 2 · 128 · 768; then pooler and classifier.
    layers = 12 * 128 * (4 * 768**2 + 2 * 768 * 3072 + 2 * 128 * 768)
    found = multiply_adds(subject.model, subject.inputs(1))
    assert found == layers + 768 * 768 + 2 * 768
    assert found == pytest.approx(11.2e9, rel=0.02)


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run_command(["cost", *words])
    out, error = capsys.readouterr()
    return code, out, error


def test_a_run_is_priced_with_its_quality_in_every_way(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    files = {"--out": tmp_path / "cost.json", "--plot": tmp_path / "cost.png"}
    words = [str(run), "--way", "eager", "onnx", "int8", "--precision", "float32", "bf16", "--batch", "1", "3"]
    given = [word for name, path in files.items() for word in (name, str(path))]
    code, out, error = told([*words, "--rounds", "3", "--threads", "1", *given, "--allow-import", "tests"], capsys)
    assert code == 0 and error == ""
    assert "Batch 1, 1 thread" in out and "Batch 3, 1 thread" in out
    rows = json.loads(files["--out"].read_text())["rows"]
    assert len(rows) == 2 * 2 * 4 and {row["precision"] for row in rows if row["way"] != "eager"} == {"float32"}
    for row in rows:
        bound = {"onnx": 1e-5, "int8": 0.1}.get(row["way"], 0.05 if row["precision"] == "bf16" else 0.0)
        assert row["apart"] <= bound, row["name"]
        assert row["seconds"] > 0 and row["quality"] is not None
        weights = 4 * row["parameters"]
        assert row["way"] != "eager" or row["precision"] == "bf16" or weights <= row["bytes"] < row["memory"]
    assert files["--plot"].read_bytes()[:4] == b"\x89PNG"


def test_what_a_way_can_not_do_is_told_in_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    words = [
        "tests.cost.test_cost:unexportable",
        "--way",
        "eager",
        "onnx",
        "--batch",
        "1",
        "--rounds",
        "2",
        "--size",
        "4",
    ]
    code, out, _ = told(words, capsys)
    assert code == 0 and "onnx: failed: " in " ".join(out.split())


def test_a_command_of_which_nothing_could_be_measured_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    words = ["tests.cost.test_cost:unexportable", "--way", "onnx", "--batch", "1", "--rounds", "2", "--size", "4"]
    code, out, error = told([*words, "--out", str(tmp_path / "cost.json")], capsys)
    assert code == 2 and "Nothing could be measured" in error and "onnx: failed: " in " ".join(out.split())
    text = (tmp_path / "cost.json").read_text()
    assert json.loads(text)["rows"][0]["seconds"] is None and "NaN" not in text


class Stubborn(torch.nn.Module):
    """Asks for a number in the midst of its pass, which no exporter knows."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(48, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.fc(x.flatten(1)) * len(str(float(x.sum())))


def unexportable(num_classes: int) -> Stubborn:
    return Stubborn()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["runs/none"], "runs/none is not the folder of a run: it has no recipe.json."),
        (["torchvision:resnet5"], "torchvision:resnet5 can't be priced: "),
        (["torchvision:resnet18", "--batch", "0"], "takes a whole number above zero, got '0'"),
        (
            ["torchvision:resnet18", "--tokens", "8"],
            "--tokens 8 has no effect on torchvision:resnet18, a model of images.",
        ),
        (["torchvision:resnet18", "torchvision:resnet18"], "torchvision:resnet18 is named twice."),
        (["torchvision:resnet18", "--plot", "x.png"], "--plot draws quality over cost, and no model named here has"),
        (
            ["torchvision:resnet18", "--way", "onnx", "--precision", "bf16"],
            "--way onnx and int8 are measured from float32",
        ),
        (["torchvision:resnet18", "--way", "fast"], "invalid choice: 'fast'"),
        (["torchvision:resnet18", "--rounds", "1"], "--rounds is at least 2, for a spread."),
    ],
)
def test_what_can_not_be_priced_is_a_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = told(words, capsys)
    assert code == 2 and line in error and error.count("\n") == 1


@pytest.mark.slow
def test_the_same_model_under_two_names_takes_the_same_time(tmp_path: Path) -> None:
    """The second name is another import path to the same network; a process of its own has its memory in one piece."""
    names = ["torchvision:resnet18", "torchvision.models:resnet18"]
    out = tmp_path / "cost.json"
    words = [*names, "--batch", "4", "--threads", "1", "--rounds", "61", "--size", "64", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "distill", "cost", *words], check=True, cwd=ROOT, capture_output=True)
    first, second = (row["seconds"] for row in json.loads(out.read_text())["rows"])
    assert second == pytest.approx(first, rel=0.05)
