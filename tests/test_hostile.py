"""Files, names and settings from outside that once ended in a traceback, or that must never do what they say."""

import ast
import copy
import io
import json
import math
import os
import socket
import struct
import sys
import zipfile
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

from distill import checkpoint
from distill.data.cifar_files import read_cifar10
from distill.data.folders import find_folder, inside
from distill.data.images import decode, image_names
from distill.data.pets import read_list
from distill.data.text_files import present, read_table
from distill.models.pickled import module_tensors
from distill.models.places import place_of
from distill.models.sources import load_model
from distill.models.weights import CONFIG_FILE, MODEL_FILE, fit_tensors, read_tensors, save_student
from distill.picture.figure import legible
from distill.picture.labels import draw_labels
from distill.recipe import from_json, read_recipe
from distill.report import ByLabel, Estimate, LabelQuality, Report, markdown, render
from distill.run import Options, train
from tests.commands import ROOT
from tests.report.made import HELPED, report
from tests.tiny import on_cpu, plain_recipe

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


# Files that claim more than they hold


def grown(act: Callable[[], object]) -> int:
    """Bytes by which the most that this process held in memory during an act was above what it held before."""

    def told(name: str) -> int:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(name)))

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = told("VmRSS")
    act()
    return told("VmHWM") - before


def held_in(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, name: str) -> None:
    """Write the archive anew, packed, with a gigabyte of zeros in one place."""
    held = held_in(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for entry, data in held.items():
            with archive.open(entry, "w") as file:
                for part in [bytes(2**20)] * 1024 if entry.endswith(f"/{name}") else [data]:
                    file.write(part)


def overlap(path: Path) -> None:
    """Write an archive of 40 storages of 32 MiB that all lie in one place of it."""
    torch.save({f"w{number}": torch.zeros(1) for number in range(40)}, path)
    held = held_in(path)
    pickled = next(entry for entry in held if entry.endswith("/data.pkl"))
    # A storage's numbers are counted behind its device: one is `K\x01`, eight Mi are `J` and four bytes.
    held[pickled] = held[pickled].replace(b"K\x01tq", b"J" + struct.pack("<i", 2**23) + b"tq")
    root = pickled.removesuffix("data.pkl")
    storages = [f"{root}data/{number}" for number in range(40)]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in held.items():
            if name not in storages[1:]:
                archive.writestr(name, bytes(2**25) if name == storages[0] else data)
        first = archive.getinfo(storages[0])
        for name in storages[1:]:
            archive.filelist.append(copy.copy(first))
            archive.filelist[-1].filename = name


def legacy(path: Path) -> None:
    """Write a file of PyTorch's older format whose one storage is told to be of 100 GB."""
    torch.save({"w": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert data.count(b"cpuq\x06K\x04") == 1
    path.write_bytes(data.replace(b"cpuq\x06K\x04", b"cpuq\x06\x8a\x06" + (25 * 2**30).to_bytes(6, "little")))


CLAIMS: dict[str, Callable[[Path], None]] = {
    "packed tensor": lambda path: pack(path, "data/0"),
    "packed pickle": lambda path: pack(path, "data.pkl"),
    "packed version": lambda path: pack(path, "version"),
    "overlapping tensors": overlap,
    "claimed storage": legacy,
}
MOST = 100 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is told by /proc")
@pytest.mark.parametrize("name", CLAIMS)
def test_weights_and_checkpoints_that_claim_more_than_they_hold_fill_no_memory(name: str, tmp_path: Path) -> None:
    """Nor where whoever made the checkpoint wrote checksums to it."""
    path = checkpoint.save(tmp_path, 1, {"w": torch.zeros(4)}, {}, on_cpu())
    state = path / "state.pt"
    CLAIMS[name](state)
    sums = {each: checkpoint._checksum(path / each) for each in ("state.pt", "progress.json")}
    (path / "checksums.json").write_text(json.dumps(sums))
    checkpoint.verify(path)
    said: list[str] = []
    assert grown(lambda: said.append(refusal(lambda: checkpoint.load_state(path)))) < MOST
    assert "step-00000001 can't be read: its state.pt is damaged" in said[0]
    assert grown(lambda: said.append(refusal(lambda: read_tensors(state)))) < MOST
    assert str(state) in said[1]


def test_a_tensor_of_many_numbers_in_place_of_few_is_refused_by_its_shape(tmp_path: Path) -> None:
    """A view of one number, 100 Gi times, is a few bytes of a file, and stays so until somebody copies it."""
    torch.save({"weight": torch.zeros(1).expand(100 * 2**30, 1)}, tmp_path / "w.pt")
    tensors = read_tensors(tmp_path / "w.pt")
    said = refusal(lambda: fit_tensors(nn.Linear(1, 1, bias=False), tensors, source="a", weights="w.pt"))
    assert "weight ((107374182400, 1) in the file, (1, 1) in the model)" in said


def header(shape: list[int], end: int) -> bytes:
    return json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is told by /proc")
@pytest.mark.parametrize(
    ("length", "text"),
    [
        (2**60, b"{}"),
        (90_000_000, b"{}"),
        (None, header([25 * 2**30], 100 * 2**30)),
        (None, header([2**40], 4)),
        (None, header([2**62, 4], 0)),
        (None, b"[" * 100_000),
    ],
    ids=["header", "shorter header", "tensor", "shape", "shape past all numbers", "depth"],
)
def test_safetensors_that_claim_more_than_they_hold_fill_no_memory(
    length: int | None, text: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(4))
    assert grown(lambda: refusal(lambda: read_tensors(path))) < MOST


# What a run sends and fetches: nothing. Weights that a recipe names are fetched by the libraries that know where.

NETWORK = {
    "socket", "socketserver", "ssl", "http", "urllib", "xmlrpc", "ftplib", "smtplib", "asyncio", "webbrowser",
    "requests", "urllib3", "httpx", "aiohttp", "websockets", "flask", "fastapi", "uvicorn", "wandb", "mlflow",
}  # fmt: skip
FETCHES = {"load_state_dict_from_url", "download_url_to_file", "hf_hub_download", "snapshot_download", "urlopen"}


def test_no_file_of_ours_opens_a_connection_or_fetches() -> None:
    files = sorted((ROOT / "distill").rglob("*.py"))
    assert len(files) > 100
    found = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
            if isinstance(node, ast.Attribute):
                names.append(node.attr)
            found += [(path.name, name) for name in names if name.split(".")[0] in NETWORK or name in FETCHES]
    assert found == []


def test_a_run_opens_no_connection_and_its_report_fetches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a connection: {arguments[1:]}")

    for name in ("bind", "listen", "connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse, raising=False)
    train(plain_recipe(epochs=1), Options(tmp_path), Console(file=io.StringIO()))
    written = [path for path in (tmp_path / "plain").iterdir() if path.suffix in (".md", ".json", ".txt", ".jsonl")]
    assert {"report.md", "report.json", "plan.txt", "recipe.json", "metrics.jsonl"} <= {path.name for path in written}
    assert not [path.name for path in written if "://" in path.read_text()]
    for text in ((tmp_path / "plain" / "report.md").read_text(), markdown(labelled())):
        tokens = MarkdownIt("commonmark").enable("table").parse(text)
        inner = [child for token in tokens for child in token.children or ()]
        places = [str(token.attrs[name]) for token in inner for name in ("src", "href") if name in token.attrs]
        assert not [place for place in places if "//" in place or ":" in place]
