"""Files, names and settings from outside that once ended in a traceback, or that must never do what they say."""

import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from markdown_it import MarkdownIt
from PIL import Image
from pyarrow import parquet
from rich.console import Console
from torch import nn

from distill.data.cifar_files import read_cifar10
from distill.data.folders import find_folder, inside
from distill.data.images import decode, image_names
from distill.data.pets import read_list
from distill.data.text_files import present, read_table
from distill.models.pickled import module_tensors
from distill.models.places import place_of
from distill.models.sources import load_model
from distill.models.weights import CONFIG_FILE, MODEL_FILE, read_tensors, save_student
from distill.picture.figure import legible
from distill.picture.labels import draw_labels
from distill.recipe import from_json, read_recipe
from distill.report import ByLabel, Estimate, LabelQuality, Report, markdown, render
from tests.report.made import HELPED, report
from tests.tiny import plain_recipe

RESNET = "distill.models.cifar:resnet8"
# A label of a CSV, the name of a folder: what it would do in a browser, in a terminal, and to the reading order.
NAMES = (
    "<img src=x onerror=alert(1)>",
    "\x1b]0;owned\x07\x1b[2J\u202egpj.exe",
    "=cmd|' /C calc'!A0",
    "[/] [red]x",
    "a\r\nb",
)


def refusal(act: Callable[[], object]) -> str:
    """The one line that an act is refused with."""
    with pytest.raises(ValueError) as caught:
        act()
    assert str(caught.value).isprintable()
    return str(caught.value)


def labelled() -> Report:
    """A report of labels whose names were chosen by someone else."""
    known = Estimate(0.8, 0.7, 0.9)
    quality = LabelQuality(known, known, 0.8, 0.9, 0.7, 0.05)
    found = ByLabel(
        labels=NAMES,
        known=(10,) * len(NAMES),
        positives=(5, 10, 5, 5, 5),
        patients=10,
        resamples=100,
        specificity=0.9,
        models={model: (quality,) * len(NAMES) for model in ("plain", "transferred")},
        means=dict.fromkeys(("plain", "transferred"), known),
    )
    return report(HELPED, by_label=found, origin=" ".join(NAMES), pictures=((" ".join(NAMES), "labels.png"),))


def test_labels_do_nothing_in_the_report_but_stand_there() -> None:
    text = markdown(labelled())
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inner = [child for token in tokens for child in token.children or ()]
    assert not [token for token in (*tokens, *inner) if token.type.startswith("html")]
    assert [token.attrs["src"] for token in inner if token.type == "image"] == ["labels.png"]
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert not set(text) & {"\x1b", "\x07", "\r", "\u202e"}


@pytest.mark.parametrize("terminal", [False, True])
def test_labels_do_nothing_in_a_terminal(terminal: bool) -> None:
    out = io.StringIO()
    Console(file=out, width=160, highlight=False, force_terminal=terminal, color_system=None).print(render(labelled()))
    assert "<img src=x onerror=alert(1)>" in out.getvalue() and "[/] [red]x" in out.getvalue()
    # rich itself may write colours, "\x1b[1m" and such; a title, a cleared screen or a turned line it never writes.
    assert not any(part in out.getvalue() for part in ("\x1b]", "\x1b[2J", "\x07", "\u202e", "\r"))


def test_labels_do_nothing_in_a_picture(tmp_path: Path) -> None:
    rows = {"transferred": [(0.8, 0.7, 0.9)] * len(NAMES), "plain": [(math.nan, math.nan, math.nan)] * len(NAMES)}
    title = " ".join(NAMES)
    draw_labels(tmp_path / "a.png", NAMES, rows, metric=title, title=title, origin=title)
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
    assert all(legible(name).isprintable() for name in NAMES)


@pytest.mark.parametrize("look_up", [inside, lambda root, path: present(root, path.name)])
def test_a_name_that_no_file_can_have_is_one_line(look_up: Callable[[Path, Path], object], tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("a" * 300, "a\0b", "loop"):
        assert "can't be read: " in refusal(lambda name=name: look_up(tmp_path, tmp_path / name))  # type: ignore[misc]
        assert "can't be read: " in refusal(lambda name=name: place_of(f"{tmp_path}/{name}"))  # type: ignore[misc]


def test_a_home_that_is_not_known_is_one_line() -> None:
    assert "home that is not known" in refusal(lambda: find_folder("~nobody-of-this-name/x"))
    for source in ("onnx:~nobody-of-this-name/a.onnx", "hub:~nobody-of-this-name/x:net"):
        assert "'~nobody-of-this-name/" in refusal(lambda source=source: load_model(source, num_classes=2))  # type: ignore[misc]


def test_folders_in_folders_without_end_are_one_line(tmp_path: Path) -> None:
    tmp_path.joinpath(*["a"] * 120).mkdir(parents=True)
    assert "more than 100 folders deep" in refusal(lambda: list(image_names(tmp_path, tmp_path)))


def test_the_hundredth_folder_is_still_read(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a"] * 100)
    deep.mkdir(parents=True)
    Image.new("L", (2, 2)).save(deep / "x.png")
    assert len(list(image_names(tmp_path, tmp_path))) == 1


def test_class_names_nested_in_parquet_are_one_line(tmp_path: Path) -> None:
    image = pyarrow.array([{"bytes": b"x", "path": None}])
    table = pyarrow.table({"image": image, "label": [0]})
    nested = table.replace_schema_metadata({b"huggingface": b"[" * 100_000})
    parquet.write_table(nested, tmp_path / "train.parquet")
    assert "is not parquet with images" in refusal(lambda: read_cifar10(tmp_path))


@pytest.mark.parametrize("kind", ["timestamp", "date32", "duration"])
def test_moments_that_python_cannot_tell_are_one_line(kind: str, tmp_path: Path) -> None:
    types = {"timestamp": pyarrow.timestamp("us"), "date32": pyarrow.date32(), "duration": pyarrow.duration("s")}
    values = pyarrow.array([2**31 - 1 if kind == "date32" else 2**62], types[kind])
    parquet.write_table(pyarrow.table({"a": values}), tmp_path / "t.parquet")
    assert "column 'a' of type" in refusal(lambda: read_table(tmp_path / "t.parquet", ("a",)))


@pytest.mark.parametrize("breed", ["9" * 5000, "999999999999", "0", "1.5", "-1", "٣"])
def test_a_breed_that_cannot_be_is_one_line(breed: str, tmp_path: Path) -> None:
    """A list of all numbers up to a trillion would fill the memory."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "test.txt").write_text(f"a_1 {breed} 1 1\n", encoding="utf-8")
    assert "line 1: expected 'NAME_1 breed species number'" in refusal(lambda: read_list(tmp_path, "test"))


@pytest.mark.parametrize("name", ["\ud800", "a\u202egnp.exe", "a\x7f", "a\x9b2J"])
def test_a_run_is_not_named_in_characters_that_are_not_seen(name: str) -> None:
    assert "plain name" in refusal(lambda: replace(plain_recipe(), name=name))


def test_a_number_of_a_thousand_digits_is_read_and_one_more_is_refused() -> None:
    assert "needs " in refusal(lambda: from_json('{"type": "Recipe", "seed": ' + "9" * 1000 + "}"))
    assert "limit of 1,000 digits" in refusal(lambda: from_json('{"type": "Recipe", "seed": ' + "9" * 1001 + "}"))


def test_a_recipe_that_may_not_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    path.write_text("{}")

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    assert "Permission denied" in refusal(lambda: read_recipe(path))


def quantised() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.zeros(1, 2), 1.0, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, of quantised and of sparse tensors
@pytest.mark.parametrize(
    "make",
    [
        lambda: {1: torch.zeros(1)},
        lambda: {"w": torch.zeros(1, 2).to_sparse()},
        lambda: {"w": torch.zeros(1, 2, device="meta")},
        lambda: {"w": quantised()},
        lambda: {"w": [torch.zeros(1)]},
    ],
)
def test_weights_that_cannot_be_copied_are_one_line(make: Callable[[], Any], tmp_path: Path) -> None:
    torch.save(make(), tmp_path / "w.pt")
    assert "does not hold tensors by name" in refusal(lambda: read_tensors(tmp_path / "w.pt"))


CONFIG = {
    "source": RESNET,
    "arguments": {},
    "num_classes": 3,
    "in_channels": 1,
    "classes": ["a", "b", "c"],
    "view": None,
}


@pytest.mark.parametrize(
    "change",
    [
        {"source": 3},
        {"arguments": []},
        {"num_classes": "3"},
        {"in_channels": [1]},
        {"classes": 3},
        {"view": "x"},
        {"view": {"size": "a", "mean": [], "std": []}},
        {"view": {"size": None, "mean": ["a"], "std": [1]}},
        {"view": {"size": None, "mean": 3, "std": 3}},
        {"view": {}},
    ],
)
def test_a_students_config_of_another_form_is_one_line(change: dict[str, Any], tmp_path: Path) -> None:
    save_student(tmp_path / "student", nn.Linear(1, 1), CONFIG)
    assert (tmp_path / "student" / MODEL_FILE).is_file()
    (tmp_path / "student" / CONFIG_FILE).write_text(json.dumps(CONFIG | change))
    said = refusal(lambda: load_model(RESNET, num_classes=None, in_channels=1, weights=str(tmp_path)))
    assert "is damaged" in said and "Train the run again" in said


def test_no_name_of_a_pickled_module_is_looked_up(tmp_path: Path) -> None:
    class Leaves:
        def __reduce__(self) -> Any:
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    torch.save(Leaves(), tmp_path / "w.pt")
    assert "could run code" in refusal(lambda: module_tensors(tmp_path / "w.pt", kind="a.B"))
    assert not (tmp_path / "ran").exists()


def test_an_image_whose_name_would_clear_the_screen_is_named_harmlessly(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J\nb.png"
    path.write_bytes(b"no image")
    assert r"a\x1b[2J\nb.png" in refusal(lambda: decode(path))
