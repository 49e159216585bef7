"""What a person or a file can get wrong, and the one line that each gives."""

import gzip
import hashlib
import json
import os
import pickle
import re
import struct
import zlib
from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from safetensors.torch import save_file
from torch import nn

from distill import checkpoint, report
from distill.cli import run_command
from distill.data import (
    ChestXray,
    Cifar10,
    Coco,
    Corpus,
    Digits,
    HubText,
    ImageFolder,
    Imdb,
    Mix,
    Pets,
    Phantoms,
    Sst2,
    TextTable,
)
from distill.data.chest_files import read_boxes
from distill.data.chest_table import find_table, read_chest_table
from distill.data.cifar_files import read_cifar10
from distill.data.coco import check_files, read_instances
from distill.data.folders import find_folder
from distill.data.images import decode, image_names
from distill.data.pets import read_list
from distill.data.sst2 import read_sst2
from distill.data.text_files import present, read_table
from distill.folder import check_folder
from distill.losses import KD, CrossEntropy
from distill.models.pickled import module_tensors
from distill.models.sources import load_model
from distill.models.weights import fit_tensors, read_config, read_tensors
from distill.plan import Term
from distill.recipe import (
    SGD,
    AdamW,
    Constant,
    Cosine,
    LinearDecay,
    Model,
    Recipe,
    Stage,
    Steps,
    apply_overrides,
    from_json,
    read_recipe,
    to_json,
)
from distill.view import View
from distill.weighting import Fade, Ramp

# A mistake to make in an empty folder, and the line it gives; {at} stands for the folder, and {...} for the words of a
# library, which change with its version.
Case = tuple[str, Callable[[Path], object], str]

RESNET = "distill.models.cifar:resnet8"


def plain(**changes: Any) -> Recipe:
    """The smallest recipe, with changes."""
    settings = {
        "name": "small",
        "data": Digits(),
        "student": Model(RESNET),
        "plan": {"task": Term(CrossEntropy())},
        "optimizer": SGD(lr=0.1),
        "epochs": 2,
    }
    return Recipe(**(settings | changes))


def pair() -> Recipe:
    """A recipe with a teacher."""
    return plain(teacher=Model(RESNET), plan={"task": Term(CrossEntropy()), "kd": Term(KD(temperature=4.0))})


def text(change: Callable[[Any], object]) -> str:
    """The smallest recipe's JSON with a change."""
    tree = json.loads(to_json(plain()))
    change(tree)
    return json.dumps(tree)


def over(*words: str) -> Recipe:
    return apply_overrides(pair(), words)


def put(folder: Path, name: str, content: str | bytes) -> Path:
    """A file in the folder, with the folders that lead to it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    return path


def link(folder: Path, name: str, target: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


class Runs:
    """What a pickle of someone else may hold: a command that runs when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.trace),))


def torch_file(folder: Path, value: object, name: str = "w.pt") -> Path:
    torch.save(value, folder / name)
    return folder / name


def sealed(folder: Path) -> Path:
    """A checkpoint's folder with right checksums, as someone else can write them too."""
    put(folder, "progress.json", "{}")
    sums = {name: hashlib.blake2b((folder / name).read_bytes()).hexdigest() for name in ("state.pt", "progress.json")}
    put(folder, "checksums.json", json.dumps(sums))
    return folder


def png(folder: Path, width: int, height: int) -> Path:
    """A PNG of a few bytes that claims so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    return put(folder, "a.png", data)


def chest(folder: Path, *lines: str, header: str = "Image Index,Finding Labels,Patient ID,Patient Age") -> Any:
    return read_chest_table(put(folder, "t.csv", "\n".join([header, *lines])))


def coco(folder: Path, content: str | bytes | dict[str, Any]) -> Any:
    return read_instances(put(folder, "i.json", json.dumps(content) if isinstance(content, dict) else content))


def cifar(folder: Path, labels: list[int], names: object = ("a", "b")) -> Any:
    names = list(names) if isinstance(names, tuple) else names
    entry = {"data": np.zeros((len(labels), 3072), np.uint8), "labels": labels}
    for number in range(1, 6):
        put(folder, f"data_batch_{number}", pickle.dumps(entry))
    put(folder, "test_batch", pickle.dumps(entry))
    put(folder, "batches.meta", pickle.dumps({"label_names": names}))
    return read_cifar10(folder)


def moments(folder: Path) -> Path:
    """A table with a column of times, of which one lies in the year 31 690 708."""
    column = pyarrow.array([0, 10**15], pyarrow.timestamp("s"))
    parquet.write_table(pyarrow.table({"a": column}), folder / "t.parquet")
    return folder / "t.parquet"


def student(folder: Path, **changes: Any) -> Any:
    """Loads a run's student whose config is changed."""
    config = {
        "source": RESNET,
        "arguments": {},
        "num_classes": 3,
        "in_channels": 1,
        "classes": ["a", "b", "c"],
        "view": None,
    }
    put(folder, "student/config.json", json.dumps(config | changes))
    save_file({"w": torch.zeros(1)}, folder / "student/model.safetensors")
    return load_model(RESNET, num_classes=None, in_channels=1, weights=str(folder))


def command(*words: str) -> Callable[[Path], object]:
    """A command line on the pair's recipe, as JSON in the folder."""

    def act(folder: Path) -> int:
        path = put(folder, "r.json", to_json(pair()))
        return run_command([word.replace("{at}", str(folder)).replace("{file}", str(path)) for word in words])

    return act


BOX = {"categories": [{"id": 1, "name": "cat"}], "images": [{"id": 1, "file_name": "a.jpg"}]}
BOX["annotations"] = [{"image_id": 1, "category_id": 1}]

SETTINGS: list[Case] = [
    ("lr is NaN", lambda _: SGD(lr=nan), "lr: expected a number, got nan."),
    ("lr is infinite", lambda _: AdamW(lr=inf), "lr: expected a number, got inf."),
    (
        "lr is negative",
        lambda _: SGD(lr=-0.1),
        "lr must be above zero, got -0.1. To train nothing, freeze the parameters.",
    ),
    ("lr is text", lambda _: SGD(lr="0.1"), "lr: expected a number, got '0.1'."),
    ("lr is a list", lambda _: SGD(lr=[0.1]), "lr: expected a number, got [0.1]. Write a tuple: (0.1,)."),
    ("lr is a truth", lambda _: SGD(lr=True), "lr: expected a number, got True."),
    ("lr is huge", lambda _: SGD(lr=10**400), "lr: expected a number, got 100000000000000000...0000000000000000000."),
    ("momentum of one", lambda _: SGD(lr=0.1, momentum=1.0), "momentum lies in [0, 1), got 1.0."),
    (
        "nesterov without momentum",
        lambda _: SGD(lr=0.1, momentum=0.0, nesterov=True),
        "nesterov looks ahead along the momentum, and momentum is 0. Give a momentum, or leave nesterov out.",
    ),
    (
        "three betas",
        lambda _: AdamW(lr=0.1, betas=(0.9, 0.99, 0.999)),
        "betas: expected a tuple (a number, a number), got (0.9, 0.99, 0.999).",
    ),
    ("eps of zero", lambda _: AdamW(lr=0.1, eps=0.0), "eps must be above zero, got 0.0."),
    (
        "final above one",
        lambda _: Cosine(final=2.0),
        "final is the share of the learning rate at the end, in [0, 1), got 2.0.",
    ),
    ("warm-up is NaN", lambda _: LinearDecay(warmup_epochs=nan), "warmup_epochs: expected a number, got nan."),
    ("warm-up is negative", lambda _: Constant(warmup_epochs=-1), "warmup_epochs must not be negative, got -1."),
    (
        "no milestones",
        lambda _: Steps(milestones=()),
        "Steps needs at least one milestone. For a rate without steps write Constant().",
    ),
    ("milestones fall", lambda _: Steps(milestones=(5, 3)), "milestones must be above zero and increase, got (5, 3)."),
    (
        "warm-up without end",
        lambda _: plain(schedule=Cosine(warmup_epochs=2)),
        "schedule: a warm-up of 2 epochs does not end within 2 epochs. Shorten it, or train longer.",
    ),
    ("ramp of NaN", lambda _: Ramp(epochs=nan), "Ramp.epochs must be above zero, got nan."),
    (
        "fade of an unknown shape",
        lambda _: Fade(stop=3, shape="cubic"),
        "Fade.shape must be 'linear' or 'cosine', got 'cubic'.",
    ),
    (
        "temperature of zero",
        lambda _: KD(temperature=0.0),
        "KD.temperature must be a finite number above zero, got 0.0.",
    ),
    (
        "smoothing of two",
        lambda _: CrossEntropy(label_smoothing=2.0),
        "CrossEntropy.label_smoothing must be in [0, 1), got 2.0.",
    ),
    (
        "weight is NaN",
        lambda _: plain(plan={"task": Term(CrossEntropy(), weight=nan)}),
        "plan.task.weight: expected a number, got nan.",
    ),
    (
        "weight is negative",
        lambda _: plain(plan={"task": Term(CrossEntropy(), weight=-1.0)}),
        "plan.task.weight must be zero or more, got -1.0.",
    ),
    (
        "term named like PyTorch",
        lambda _: plain(plan={"keys": Term(CrossEntropy())}),
        "A term can't be named 'keys', which means something to PyTorch. Choose another name.",
    ),
    (
        "term with an escape",
        lambda _: plain(plan={"a\x1b[31m": Term(CrossEntropy())}),
        "A term is named like a variable, in letters, digits and underscores, got 'a\\x1b[31m'.",
    ),
    (
        "term without a teacher",
        lambda _: plain(plan={"kd": Term(KD(temperature=4.0))}),
        "plan.kd compares with a teacher and there is none. Give teacher=Model(...), or drop it.",
    ),
    (
        "loss as a class",
        lambda _: plain(plan={"task": Term(CrossEntropy)}),
        "plan.task.loss: expected a Loss, got the class CrossEntropy. Write CrossEntropy().",
    ),
    (
        "no plan",
        lambda _: plain(plan={}),
        "A recipe needs a plan, such as plan={'task': Term(CrossEntropy())}, or stages.",
    ),
    (
        "stage leads out",
        lambda _: Stage("../x", {"task": Term(CrossEntropy())}, 1, SGD(lr=0.1)),
        "A stage is named in letters, digits, '-' and '_', beginning with a letter, got '../x'.",
    ),
    (
        "name leads out",
        lambda _: plain(name="../up"),
        "name is the run's folder, a plain name without '/' and leading '.' or '-', got '../up'.",
    ),
    (
        "name is absolute",
        lambda _: plain(name="/etc/cron.d"),
        "name is the run's folder, a plain name without '/' and leading '.' or '-', got '/etc/cron.d'.",
    ),
    (
        "name with a line end",
        lambda _: plain(name="a\nb"),
        "name is the run's folder, a plain name without '/' and leading '.' or '-', got 'a\\nb'.",
    ),
    (
        "name looks like an option",
        lambda _: plain(name="-rf"),
        "name is the run's folder, a plain name without '/' and leading '.' or '-', got '-rf'.",
    ),
    ("seed is negative", lambda _: plain(seed=-1), "seed lies in [0, 2**32), got -1."),
    ("seed is huge", lambda _: plain(seed=10**30), "seed lies in [0, 2**32), got 1000000000000000000000000000000."),
    ("batch of nothing", lambda _: plain(batch_size=0), "batch_size must be at least 1, got 0."),
    ("epochs are a share", lambda _: plain(epochs=1.5), "epochs: expected a whole number or none, got 1.5."),
    ("ema of one", lambda _: plain(ema=1.0), "ema lies in (0, 1), got 1.0. For no average leave it out."),
    ("clip is infinite", lambda _: plain(clip=inf), "clip: expected a number or none, got inf."),
    (
        "precision is unknown",
        lambda _: plain(precision="int8"),
        "precision: expected 'float32' or 'bf16' or 'fp16' or none, got 'int8'.",
    ),
    (
        "teacher is idle",
        lambda _: plain(teacher=Model(RESNET)),
        "teacher is used by nothing. Add a term such as Term(KD()) or initialize=..., or leave it out.",
    ),
    (
        "source of no kind",
        lambda _: Model("resnet18"),
        "source 'resnet18' names no model. Write 'package.module:factory', 'torchvision:NAME', "
        "'timm:NAME', 'transformers:NAME', 'xrv:NAME', 'onnx:FILE' or 'hub:OWNER/REPO:ENTRY'.",
    ),
    (
        "trust for nothing",
        lambda _: Model(RESNET, trust=True),
        "trust has no effect on source 'distill.models.cifar:resnet8', only on 'hub:...'. Leave it out.",
    ),
    (
        "argument is no name",
        lambda _: Model(RESNET, arguments={"__import__('os')": 1}),
        "arguments are named as in Python, got \"__import__('os')\".",
    ),
    (
        "argument is an object",
        lambda _: Model(RESNET, arguments={"f": print}),
        "arguments.f: a recipe holds numbers, text, tuples, mappings and frozen dataclasses, got <built-in "
        "function print>.",
    ),
    (
        "mixup is NaN",
        lambda _: Mix(mixup=nan),
        "Mix.mixup and Mix.cutmix are at least 0, got mixup=nan and cutmix=0.0.",
    ),
    (
        "deviation of zero",
        lambda _: View(mean=(0.5,), std=(0.0,)),
        "View.std must be above zero in every channel, got (0.0,).",
    ),
]

RECIPES: list[Case] = [
    ("no JSON", lambda _: from_json("{"), "Not JSON: {...}."),
    ("a list", lambda _: from_json("[1, 2]"), 'JSON of a recipe begins with {"type": "Recipe", ...}, got \'[1, 2]\'.'),
    (
        "deep nesting",
        lambda _: from_json('{"type": "Recipe", "data": ' + "[" * 100_000),
        "The JSON is nested too deeply for a recipe.",
    ),
    (
        "a name twice",
        lambda _: from_json('{"type": "Recipe", "name": "a", "name": "b"}'),
        "Not JSON of a recipe: 'name' stands twice in one object.",
    ),
    (
        "a number out of range",
        lambda _: from_json('{"type": "Recipe", "clip": 1e400}'),
        "A recipe holds finite numbers, got 1e400.",
    ),
    ("no number", lambda _: from_json('{"type": "Recipe", "clip": NaN}'), "A recipe holds finite numbers, got NaN."),
    (
        "a number of 5000 digits",
        lambda _: from_json('{"type": "Recipe", "seed": ' + "9" * 5000 + "}"),
        "Numbers of a recipe have a limit of 1,000 digits, got one of 5,000.",
    ),
    (
        "a command for a type",
        lambda _: from_json(text(lambda tree: tree["data"].update(type="os:system"))),
        "data: os:system is not part of distill. To run its code, add --allow-import os.",
    ),
    (
        "a path for a type",
        lambda _: from_json(text(lambda tree: tree["data"].update(type="../evil:Data"))),
        "data: ../evil:Data is not part of distill. To run its code, add --allow-import ../evil.",
    ),
    (
        "an unknown type",
        lambda _: from_json(text(lambda tree: tree["data"].update(type="Digit"))),
        "data: distill has no type 'Digit' here. Nearest: Digits.",
    ),
    (
        "a type of another kind",
        lambda _: from_json(text(lambda tree: tree.update(data={"type": "SGD", "lr": 0.1}))),
        "data: expected a Data, got SGD(lr=0.1, m...esterov=False).",
    ),
    (
        "an unknown setting",
        lambda _: from_json(text(lambda tree: tree.update(epoch=3))),
        "Recipe has no setting 'epoch'. Nearest: epochs, teacher.",
    ),
    (
        "a dunder for a setting",
        lambda _: from_json(text(lambda tree: tree.update(__class__="x"))),
        "Recipe has no setting '__class__'. Nearest: name, data, student.",
    ),
    (
        "a list for an object",
        lambda _: from_json(text(lambda tree: tree.update(student=["a:b"]))),
        "student: expected a Model, got ('a:b',).",
    ),
    (
        "a NUL in a name",
        lambda _: from_json(text(lambda tree: tree.update(name="a\0b"))),
        "name is the run's folder, a plain name without '/' and leading '.' or '-', got 'a\\x00b'.",
    ),
    (
        "half a character in a name",
        lambda _: from_json(text(lambda tree: tree.update(name="\ud800"))),
        "name is the run's folder, a plain name without '/' and leading '.' or '-', got '\\ud800'.",
    ),
    (
        "no UTF-8",
        lambda at: read_recipe(put(at, "r.json", b"\xff\xfe")),
        "{at}/r.json: 'utf-8' codec can't decode byte 0xff {...}",
    ),
    (
        "no file",
        lambda at: read_recipe(at / "r.json"),
        "{at}/r.json: no such file. Give a recipe, such as recipes/image/digits.py.",
    ),
    (
        "a name too long for a file",
        lambda at: read_recipe(at / ("r" * 300 + ".json")),
        "'{at}/r{...}' can't be read: File name too long. Give the file of a recipe.",
    ),
    ("a folder", lambda at: read_recipe(at), "{at} is a folder. Give the recipe's file, such as {at}/recipe.json."),
    (
        "another kind of file",
        lambda at: read_recipe(put(at, "r.yaml", "")),
        "{at}/r.yaml is neither a .py nor a .json file. Give one that holds a recipe.",
    ),
    (
        "Python with a fault",
        lambda at: read_recipe(put(at, "hostile_fault.py", "x = 1\n1 / 0\n")),
        "{at}/hostile_fault.py, line 2: ZeroDivisionError: division by zero",
    ),
    (
        "Python without a recipe",
        lambda at: read_recipe(put(at, "hostile_none.py", "x = 1\n")),
        "{at}/hostile_none.py has no 'recipe'. Write recipe = Recipe(...) at its top level.",
    ),
    (
        "a run's recipe, nested",
        lambda at: (put(at, "recipe.json", "[" * 100_000), check_folder(at, plain(), resume=True, overwrite=False)),
        "{at}/recipe.json is damaged ({...}). Change --name, or start anew with --overwrite.",
    ),
    (
        "a run's recipe, no UTF-8",
        lambda at: (put(at, "recipe.json", b"\xff"), check_folder(at, plain(), resume=True, overwrite=False)),
        "{at}/recipe.json is damaged ({...}). Change --name, or start anew with --overwrite.",
    ),
]

OVERRIDES: list[Case] = [
    ("an unknown setting", lambda _: over("--epoch", "3"), "Recipe has no setting 'epoch'. Nearest: epochs, teacher."),
    (
        "an unknown one inside",
        lambda _: over("--plan.kd.loss.temprature", "3"),
        "KD has no setting 'temprature'. Nearest: temperature.",
    ),
    ("an unknown term", lambda _: over("--plan.hint.weight", "3"), "plan has no term 'hint'. Terms: task, kd."),
    ("no name", lambda _: over("--", "3"), "Recipe has no setting ''. Nearest: name, data, student."),
    ("a word alone", lambda _: over("3"), "Unexpected word '3'. Settings are written --name value."),
    ("no value", lambda _: over("--epochs"), "epochs needs a value: a whole number or none. Write --epochs VALUE."),
    ("twice", lambda _: over("--epochs", "3", "--epochs=4"), "--epochs is given twice. Give it once."),
    ("NaN", lambda _: over("--plan.kd.weight", "nan"), "plan.kd.weight: expected a number, got 'nan'."),
    ("infinity", lambda _: over("--optimizer.lr", "1e400"), "optimizer.lr: expected a number, got '1e400'."),
    (
        "a whole number as words",
        lambda _: over("--epochs", "three"),
        "epochs: expected a whole number or none, got 'three'.",
    ),
    (
        "code for a value",
        lambda _: over("--optimizer", "SGD(lr=__import__('os').getpid())"),
        "optimizer.lr: __import__('os'):getpid is not part of distill. To run its code, add --allow-import "
        "__import__('os').",
    ),
    (
        "code for a type",
        lambda _: over("--data", "os.system('true')"),
        "data: os:system is not part of distill. To run its code, add --allow-import os.",
    ),
    (
        "open brackets",
        lambda _: over("--optimizer", "SGD(lr=0.1))"),
        "optimizer: cannot read 'SGD(lr=0.1))', check its brackets and quotes.",
    ),
    (
        "deep brackets",
        lambda _: over("--stages", "(" * 5000 + ")" * 5000),
        "stages: cannot read '((((((((((((...)))))))))))))', check its brackets and quotes.",
    ),
    (
        "a setting of a number",
        lambda _: over("--epochs.more", "3"),
        "epochs is a whole number, it has no setting 'more'.",
    ),
    (
        "a setting of none",
        lambda _: over("--initialize.more", "3"),
        "initialize is none, so it has no settings. Give the whole: --initialize 'Name(setting=value)'.",
    ),
    (
        "settings that do not go together",
        lambda _: over("--micro-batch-size", "65"),
        "micro_batch_size 65 is above batch_size 64. Lower it, or drop it.",
    ),
    ("a stage that is not there", lambda _: over("--stages.0.epochs", "3"), "stages has no stage '0'. Stages: none."),
]

DATA: list[Case] = [
    (
        "a share of two",
        lambda _: Digits(validation=2.0),
        "Digits.validation is a share of the examples between 0 and 1, got 2.0.",
    ),
    (
        "a share of NaN",
        lambda _: ImageFolder(folder="x", validation=nan),
        "ImageFolder.validation is a share of the examples between 0 and 1, got nan.",
    ),
    (
        "a share for the whole",
        lambda _: Sst2(validation=1.0),
        "Sst2.validation is a share of the examples between 0 and 1, got 1.0.",
    ),
    (
        "one column for two",
        lambda _: TextTable(folder="x", train="a.csv", text="a", label="a"),
        "TextTable.text and label both name the column 'a'. Each has its own.",
    ),
    (
        "an encoding of bytes",
        lambda _: TextTable(folder="x", train="a.csv", encoding="zip"),
        "TextTable.encoding='zip' is no encoding of text. Write 'utf-8-sig', 'gb18030' or another name of Python's.",
    ),
    (
        "an encoding with a NUL",
        lambda _: TextTable(folder="x", train="a.csv", encoding="\0"),
        "TextTable.encoding='\\x00' is no encoding of text. Write 'utf-8-sig', 'gb18030' or another name of Python's.",
    ),
    (
        "one class",
        lambda _: TextTable(folder="x", train="a.csv", classes=("a", "a")),
        "TextTable.classes are two or more different names, got a, a.",
    ),
    (
        "a pattern that leads out",
        lambda _: Corpus(folder="x", train="../*.txt"),
        "Corpus.train is a file or a pattern in its folder, got '../*.txt'.",
    ),
    (
        "a set of the hub that leads out",
        lambda _: HubText(name="../../etc"),
        "HubText.name is 'set' or 'owner/set', got '../../etc'. Files are for TextTable.",
    ),
    (
        "ages upside down",
        lambda _: ChestXray(ages=(50, 20)),
        "ChestXray.ages are the youngest and the oldest in years, got (50, 20).",
    ),
    (
        "a label twice",
        lambda _: ChestXray(labels=("Mass", "mass")),
        "ChestXray.labels are one or more different names, got Mass, mass.",
    ),
    (
        "a picture of a billion pixels",
        lambda _: Phantoms(size=32_768),
        "Phantoms.size is a side from 32 to 512 pixels, got 32768.",
    ),
    ("a kind that is none", lambda _: Pets(by="colour"), "Pets.by is 'breed' or 'species', got 'colour'."),
    ("a subset of nothing", lambda _: Cifar10(subset=0), "Cifar10.subset is a number of images of at least 1, got 0."),
    ("crops below a pixel", lambda _: Coco(size=0), "Coco.size is a length in pixels of at least 1, got 0."),
    (
        "texts without tokens",
        lambda _: Imdb(max_length=0),
        "Imdb.max_length is a number of tokens of at least 3, since two mark the ends of a text, got 0.",
    ),
    (
        "a folder that leads out",
        lambda _: find_folder("../../etc"),
        "Data folder '../../etc' leads out of the data's place by '..'. Give an absolute folder instead.",
    ),
    (
        "a folder that is not there",
        lambda at: find_folder(f"{at}/none"),
        "There is no data folder {at}/none. Check data.folder.",
    ),
    (
        "a folder of nobody",
        lambda _: find_folder("~nobody-of-this-name/data"),
        "Data folder '~nobody-of-this-name/data' begins with a home that is not known. Give an absolute folder.",
    ),
    (
        "a folder's name too long",
        lambda _: find_folder("/" + "a" * 300),
        "There is no data folder "
        "'/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'. Check "
        "data.folder.",
    ),
    (
        "a folder's name with a NUL",
        lambda _: find_folder("/a\0b"),
        "There is no data folder '/a\\x00b'. Check data.folder.",
    ),
    (
        "a file that leads out",
        lambda at: present(at, "../secret.csv"),
        "{at}/../secret.csv leads out of its data folder {at}. Put the file itself there instead of a link to it.",
    ),
    (
        "a file of an absolute name",
        lambda at: present(at, "/etc/passwd"),
        "/etc/passwd leads out of its data folder {at}. Put the file itself there instead of a link to it.",
    ),
    (
        "a link that leads out",
        lambda at: present(at, link(at, "t.csv", "/etc/passwd").name),
        "{at}/t.csv leads out of its data folder {at}. Put the file itself there instead of a link to it.",
    ),
    (
        "a link to itself",
        lambda at: present(at, link(at, "t.csv", "t.csv").name),
        "{at}/t.csv can't be read: Too many levels of symbolic links. Put the file itself there.",
    ),
    (
        "a file's name with a NUL",
        lambda at: present(at, "a\0b"),
        "'{at}/a\\x00b' can't be read: {...}. Put the file itself there.",
    ),
    (
        "a file's name too long",
        lambda at: present(at, "a" * 300),
        "'{at}/a{...}...' can't be read: File name too long. Put the file itself there.",
    ),
    (
        "a folder of links to itself",
        lambda at: list(image_names(at, link(at, "in/a", "a").parent)),
        "{at}/in/a can't be read: Too many levels of symbolic links. Put the file itself there.",
    ),
]

FILES: list[Case] = [
    ("an empty table", lambda at: read_chest_table(put(at, "t.csv", "")), "{at}/t.csv is empty."),
    ("a header alone", lambda at: chest(at), "{at}/t.csv has no rows below its header."),
    (
        "a row too short",
        lambda at: chest(at, "a.png,Mass"),
        "{at}/t.csv, line 2: 2 fields, but the header has 4. Put a field that holds a comma into quotation marks.",
    ),
    (
        "an image that leads out",
        lambda at: chest(at, "../../etc/passwd,Mass,1,50"),
        "{at}/t.csv, line 2: image name '../../etc/passwd' leads out of its folder. Give a plain file name.",
    ),
    (
        "an image that leads out on Windows",
        lambda at: chest(at, "..\\a.png,Mass,1,50"),
        "{at}/t.csv, line 2: image name '..\\\\a.png' leads out of its folder. Give a plain file name.",
    ),
    (
        "an absolute image",
        lambda at: chest(at, "/etc/passwd,Mass,1,50"),
        "{at}/t.csv, line 2: image name '/etc/passwd' leads out of its folder. Give a plain file name.",
    ),
    (
        "an image twice",
        lambda at: chest(at, "a.png,Mass,1,50", "a.png,Mass,1,50"),
        "{at}/t.csv, line 3: image 'a.png' stands there twice. Keep one of its lines.",
    ),
    (
        "a formula for a label",
        lambda at: chest(at, "a.png,=HYPERLINK(),1,50"),
        "{at}/t.csv, line 2, image 'a.png': label '=HYPERLINK()' is not known. Nearest: Atelectasis, "
        "Cardiomegaly, Effusion. Where it is meant, add it to data.labels.",
    ),
    (
        "markup for a label",
        lambda at: chest(at, "a.png,<img src=x onerror=alert(1)>,1,50"),
        "{at}/t.csv, line 2, image 'a.png': label '<img src=x onerror=alert(1)>' is not known. Nearest: "
        "Atelectasis, Cardiomegaly, Effusion. Where it is meant, add it to data.labels.",
    ),
    (
        "an escape for a label",
        lambda at: chest(at, "a.png,\x1b[31mMass\u202e,1,50"),
        "{at}/t.csv, line 2, image 'a.png': label '\\x1b[31mMass\\u202e' is not known. Nearest: Mass. Where "
        "it is meant, add it to data.labels.",
    ),
    (
        "an age of letters",
        lambda at: chest(at, "a.png,Mass,1,1e9"),
        "{at}/t.csv, line 2: '1e9' is no age. Write it as 58, 058Y, 013M or 005D, or leave it empty.",
    ),
    (
        "no patient",
        lambda at: chest(at, "a.png,Mass,,50"),
        "{at}/t.csv, line 2: no Patient ID, but the sets are cut by patient. Fill it in.",
    ),
    ("an open quotation mark", lambda at: chest(at, 'a.png,"Mass,1,50'), "{at}/t.csv, line 2: {...}."),
    (
        "a field without end",
        lambda at: chest(at, f"a.png,{'x' * 200_000},1,50"),
        "{at}/t.csv, line 2: {...} field limit (131072).",
    ),
    (
        "bytes for a table",
        lambda at: read_chest_table(put(at, "t.csv", b"\xff\xfe\x00")),
        "Cannot read {at}/t.csv: {...}.",
    ),
    ("no gzip", lambda at: read_chest_table(put(at, "t.csv.gz", b"no gzip")), "Cannot read {at}/t.csv.gz: {...}."),
    (
        "a bomb of gzip",
        lambda at: read_chest_table(put(at, "t.csv.gz", gzip.compress(bytes(2**28 + 1), 1))),
        "Cannot read {at}/t.csv.gz: more than 268,435,456 bytes.",
    ),
    (
        "a table that leads out",
        lambda at: find_table(at, "../t.csv"),
        "{at}/../t.csv leads out of its data folder {at}. Put the file itself there instead of a link to it.",
    ),
    (
        "a box of NaN",
        lambda at: (
            put(at, "BBox_List_2017.csv", "a,b,c,d,e,f\na.png,Mass,nan,1,2,3"),
            read_boxes(at, chest(at, "a.png,Mass,1,50"), ("Mass",)),
        ),
        "{at}/BBox_List_2017.csv, line 2: x, y, width, height = nan, 1.0, 2.0, 3.0 is no box.",
    ),
    (
        "a sentence without a label",
        lambda at: read_sst2(put(at, "t.tsv", "sentence\tlabel\nfine")),
        "{at}/t.tsv, line 2: expected 'sentence<TAB>label', got 'fine'.",
    ),
    (
        "a label that is none",
        lambda at: read_sst2(put(at, "t.tsv", "fine\t2")),
        "{at}/t.tsv, line 1: the label '2' was never declared. Labels are 0, 1.",
    ),
    (
        "a sentence without end",
        lambda at: read_sst2(put(at, "t.tsv", "x" * 1_000_001 + "\t1")),
        "{at}/t.tsv, line 1: 1,000,003 characters are more than the 1,000,000 that a text may have.",
    ),
    (
        "a sentence with a NUL",
        lambda at: read_sst2(put(at, "t.tsv", "fi\0ne\t1")),
        "{at}/t.tsv, line 1: a NUL, so it is no text file.",
    ),
    (
        "a table of another kind",
        lambda at: read_table(put(at, "t.xlsx", ""), ("a",)),
        "{at}/t.xlsx ends in '.xlsx'. Tables of texts end in .csv, .tsv, .parquet.",
    ),
    (
        "a column that is not there",
        lambda at: read_table(put(at, "t.csv", "text,label\na,1"), ("texts",)),
        "{at}/t.csv has no column 'texts'. Nearest: text.",
    ),
    (
        "a column twice",
        lambda at: read_table(put(at, "t.csv", "a,a\n1,2"), ("a",)),
        "{at}/t.csv has 2 columns 'a'. Give each a name of its own.",
    ),
    (
        "text in another encoding",
        lambda at: read_table(put(at, "t.csv", "a\n好".encode("gb18030")), ("a",)),
        "{at}/t.csv, line 2, byte 1: 0xba is not utf-8-sig. Save it as utf-8-sig, or set "
        "encoding='gb18030' where it is that.",
    ),
    (
        "a moment out of range",
        lambda at: read_table(moments(at), ("a",)),
        "{at}/t.parquet: column 'a' of type timestamp[{...}] can't be read: {...}.",
    ),
    (
        "no parquet",
        lambda at: read_table(put(at, "t.parquet", b"PAR1"), ("a",)),
        "{at}/t.parquet cannot be read as parquet: {...}.",
    ),
    (
        "a pickle that runs a command",
        lambda at: cifar(at, [0], Runs(at / "ran")),
        "{at}/batches.meta cannot be read as a CIFAR file: it asks for {...}.mkdir, which may run code.",
    ),
    (
        "a pickle cut off",
        lambda at: (cifar(at, [0]), put(at, "test_batch", b"\x80\x04\x95"), read_cifar10(at)),
        "{at}/test_batch cannot be read as a CIFAR file: {...}.",
    ),
    (
        "a class number out of range",
        lambda at: cifar(at, [0, 2]),
        "{at}/data_batch_1 has labels from 0 to 2, but classes are numbered 0 to 1.",
    ),
    (
        "a huge class number",
        lambda at: cifar(at, [10**30]),
        "{at}/data_batch_1 has no list of class numbers under 'labels'.",
    ),
    (
        "objects of no image",
        lambda at: coco(at, BOX | {"annotations": [{"image_id": 2, "category_id": 1}]}),
        "{at}/i.json has an object with image_id 2, which it does not list. Is it complete?",
    ),
    (
        "an image of no name",
        lambda at: coco(at, BOX | {"images": [{"id": 1, "file_name": 3}]}),
        "{at}/i.json, images[0] needs file_name of type str, got {'id': 1, 'file_name': 3}.",
    ),
    (
        "a category twice",
        lambda at: coco(at, BOX | {"categories": [{"id": 1, "name": "a"}] * 2}),
        "{at}/i.json lists category 1 twice. Is it of one release?",
    ),
    ("nested annotations", lambda at: coco(at, "[" * 100_000), "{at}/i.json is no JSON ({...}). Copy it again."),
    (
        "a nested entry",
        lambda at: coco(at, '{"categories": [' + "[" * 900 + "]" * 900 + "]}"),
        "{at}/i.json, categories[0] needs id of type int, got "
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[.",
    ),
    (
        "an image out of its folder",
        lambda at: (put(at, "val/a.jpg", ""), check_files(at, "val", ("../a.jpg",))),
        "Image '../a.jpg' of annotations/instances_val.json leads out of {at}/val.",
    ),
    (
        "a breed of a billion",
        lambda at: (put(at, "annotations/trainval.txt", f"a_1 {'9' * 5000} 1 1"), read_list(at, "trainval")),
        "{at}/annotations/trainval.txt, line 1: expected 'NAME_1 breed species number', got 'a_1 "
        "9999999999999999999999999999999999999999999999999999999999999999999999999999'.",
    ),
    (
        "a pet that leads out",
        lambda at: (put(at, "annotations/trainval.txt", "../../x 1 1 1"), read_list(at, "trainval")),
        "{at}/images/../../x.jpg leads out of its data folder {at}. Put the file itself there instead of a link to it.",
    ),
    (
        "a list of pets, no UTF-8",
        lambda at: (put(at, "annotations/trainval.txt", b"\xff"), read_list(at, "trainval")),
        "{at}/annotations/trainval.txt, line 1, byte 1: 0xff is not utf-8-sig. Save it as UTF-8.",
    ),
]

IMAGES: list[Case] = [
    (
        "a bomb of pixels",
        lambda at: decode(png(at, 20_000, 20_000)),
        "Cannot read image {at}/a.png: Image size (400000000 pixels) exceeds limit of {...}.",
    ),
    (
        "a hundred million pixels",
        lambda at: decode(png(at, 10_000, 10_000)),
        "Cannot read image {at}/a.png: Image size (100000000 pixels) exceeds limit of {...}.",
    ),
    ("no pixels", lambda at: decode(png(at, 0, 10)), "Cannot read image {at}/a.png: {...}."),
    ("fewer pixels than claimed", lambda at: decode(png(at, 100, 100)), "Cannot read image {at}/a.png: {...}."),
    ("text", lambda at: decode(put(at, "a.png", "<svg onload=alert(1)>")), "Cannot read image {at}/a.png: {...}."),
    ("nothing", lambda at: decode(put(at, "a.jpg", "")), "Cannot read image {at}/a.jpg: {...}."),
    ("a folder", lambda at: decode(at), "Cannot read image {at}: [Errno 21] Is a directory: '{at}'."),
    (
        "sixteen bits",
        lambda at: (Image.fromarray(np.zeros((2, 2), np.uint16)).save(at / "a.png"), decode(at / "a.png")),
        "Cannot read image {at}/a.png: more than 8 bits a channel (mode I{...}), convert it to 8 bits.",
    ),
    (
        "a name of two lines",
        lambda at: decode(at / "a\n\x1b[31mb.png"),
        "Cannot read image '{at}/a\\n\\x1b[31mb.png': [Errno 2] No such file or directory: '{at}/a\\n\\x1b[31mb.png'.",
    ),
]

WEIGHTS: list[Case] = [
    (
        "no file",
        lambda at: read_tensors(at / "w.pt"),
        "There is no weight file {at}/w.pt. Give the path of a .safetensors, .pt or .pth file.",
    ),
    (
        "a pickle that runs a command",
        lambda at: read_tensors(torch_file(at, {"w": Runs(at / "ran")})),
        "{at}/w.pt can't be read as weights alone: it is damaged, or holds pickled Python objects, which "
        "could run code. Save only the tensors: torch.save(model.state_dict(), ...).",
    ),
    (
        "a module that runs a command",
        lambda at: module_tensors(torch_file(at, Runs(at / "ran")), kind="a.B"),
        "{at}/w.pt can't be read as a pickled a.B or as weights alone (it names {...}.mkdir): it is "
        "damaged, or holds other Python objects, which could run code. Save only the tensors: "
        "torch.save(model.state_dict(), ...).",
    ),
    (
        "a number",
        lambda at: read_tensors(torch_file(at, 3)),
        "{at}/w.pt does not hold tensors by name (it holds int). Save them as torch.save(model.state_dict(), ...).",
    ),
    (
        "values that are no tensors",
        lambda at: read_tensors(torch_file(at, {"w": 3})),
        "{at}/w.pt does not hold tensors by name (it holds w). Save them as torch.save(model.state_dict(), ...).",
    ),
    (
        "names that are numbers",
        lambda at: read_tensors(torch_file(at, {1: torch.zeros(1)})),
        "{at}/w.pt does not hold tensors by name (it holds 1). Save them as torch.save(model.state_dict(), ...).",
    ),
    (
        "a sparse tensor",
        lambda at: read_tensors(torch_file(at, {"w": torch.zeros(2, 2).to_sparse()})),
        "{at}/w.pt can't be read as weights alone: it is damaged, or holds pickled Python objects, which "
        "could run code. Save only the tensors: torch.save(model.state_dict(), ...).",
    ),
    (
        "a tensor without numbers",
        lambda at: read_tensors(torch_file(at, {"w": torch.zeros(1, device="meta")})),
        "{at}/w.pt does not hold tensors by name (it holds w). Save them as torch.save(model.state_dict(), ...).",
    ),
    (
        "no safetensors",
        lambda at: read_tensors(put(at, "w.safetensors", b"\xff" * 8)),
        "{at}/w.safetensors is damaged, or no safetensors file ({...}). Copy or train it again.",
    ),
    (
        "another shape",
        lambda _: fit_tensors(
            nn.Linear(2, 1), {"weight": torch.zeros(3), "bias": torch.zeros(1)}, source="net", weights="w.pt"
        ),
        "w.pt does not fit net: of another shape weight ((3,) in the file, (1, 2) in the model). Build the "
        "model that the weights were made for.",
    ),
    (
        "a tensor too few",
        lambda _: fit_tensors(nn.Linear(2, 1), {"weight": torch.zeros(1, 2)}, source="net", weights="w.pt"),
        "w.pt does not fit net: missing bias. Build the model that the weights were made for.",
    ),
    (
        "no config",
        lambda at: read_config(at),
        "{at}/config.json can't be read ([Errno 2] No such file or directory: '{at}/config.json'). Give "
        "the weight file itself, or train the run again.",
    ),
    (
        "a nested config",
        lambda at: (put(at, "config.json", "[" * 100_000), read_config(at)),
        "{at}/config.json can't be read ({...}). Give the weight file itself, or train the run again.",
    ),
    (
        "a config of something else",
        lambda at: (put(at, "config.json", "{}"), read_config(at)),
        "{at}/config.json is not the config of a run's student: it lacks source, arguments, num_classes, "
        "in_channels, classes, view. Give the weight file itself; a folder of transformers is named in the "
        "source, as in 'transformers:FOLDER' with weights='pretrained'.",
    ),
    (
        "classes that are a number",
        lambda at: student(at, classes=3),
        "{at}/student/config.json is damaged: classes is 3. Train the run again.",
    ),
    (
        "channels that are text",
        lambda at: student(at, in_channels="one"),
        "{at}/student/config.json is damaged: in_channels is 'one'. Train the run again.",
    ),
    (
        "a view that is text",
        lambda at: student(at, view="square"),
        "{at}/student/config.json is damaged: view is 'square'. Train the run again.",
    ),
    (
        "a number of classes that is text",
        lambda at: student(at, num_classes="three"),
        "{at}/student/config.json is damaged: num_classes is 'three'. Train the run again.",
    ),
    (
        "a run that is not there",
        lambda _: load_model(RESNET, num_classes=3, weights="runs/none"),
        "There is no run folder runs/none. Train it first: distill train FILE, with the recipe named 'none'.",
    ),
    (
        "a run's name too long",
        lambda _: load_model(RESNET, num_classes=3, weights="a" * 300),
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' can't be read: "
        "File name too long. Check the path.",
    ),
    (
        "weights of nobody",
        lambda _: load_model(RESNET, num_classes=3, weights="~nobody-of-this-name/w.pt"),
        "'~nobody-of-this-name/w.pt' can't be read: {...}. Check the path.",
    ),
    (
        "a source that is no module",
        lambda _: load_model("no.such.module:net", num_classes=3),
        "Module no.such.module of the model no.such.module:net can't be imported ({...}). Check its "
        "spelling, and that it is installed or on PYTHONPATH.",
    ),
    (
        "a source that is no name",
        lambda _: load_model("../evil:net", num_classes=3),
        "Module ../evil of the model ../evil:net can't be imported ({...}). Check its spelling, and that "
        "it is installed or on PYTHONPATH.",
    ),
    (
        "code of a hub that is not trusted",
        lambda at: load_model(f"hub:{at}:net", num_classes=3),
        "hub:{at}:net runs code from {at}. Set trust=True on this model if you trust it.",
    ),
    (
        "an ONNX file that is none",
        lambda at: load_model(f"onnx:{put(at, 'a.onnx', 'text')}", num_classes=3),
        "{at}/a.onnx is damaged, or no ONNX file ({...}). Export it again.",
    ),
    (
        "a checkpoint without state",
        lambda at: checkpoint.load_state(at),
        "Checkpoint {at} can't be read: {...}",
    ),
    (
        "a checkpoint that runs a command",
        lambda at: checkpoint.load_state(sealed(torch_file(at, {"w": Runs(at / "ran")}, "state.pt").parent)),
        "Checkpoint {at} can't be read: its state.pt is damaged, or holds more than tensors and plain values. "
        "Remove it to go on from the one before it.",
    ),
    (
        "a checkpoint without progress",
        lambda at: checkpoint.load_progress(at),
        "Checkpoint {at} can't be read: [Errno 2] No such file or directory: '{at}/progress.json'. Remove "
        "it to go on from the one before it.",
    ),
    (
        "a report that is none",
        lambda _: report.from_json("[]"),
        "Not JSON of a report: the whole: {...}. Take the report.json of a run.",
    ),
    (
        "a nested report",
        lambda _: report.from_json("[" * 100_000),
        "Not JSON of a report: it is nested too deeply. Take the report.json of a run.",
    ),
]

COMMANDS: list[Case] = [
    ("an unknown command", command("trian"), "distill: distill has no command 'trian'. Nearest: train, rank."),
    (
        "no file",
        command("train"),
        "distill: distill train needs the file of a recipe: distill train recipes/image/digits.py",
    ),
    (
        "a file that is not there",
        command("plan", "{at}/none.json"),
        "distill: {at}/none.json: no such file. Give a recipe, such as recipes/image/digits.py.",
    ),
    (
        "an unknown setting",
        command("plan", "{file}", "--epoch", "3"),
        "distill: Recipe has no setting 'epoch'. Nearest: epochs, teacher.",
    ),
    (
        "NaN",
        command("train", "{file}", "--optimizer.lr", "nan"),
        "distill: optimizer.lr: expected a number, got 'nan'.",
    ),
    (
        "a name that leads out",
        command("train", "{file}", "--name", "../../up"),
        "distill: name is the run's folder, a plain name without '/' and leading '.' or '-', got '../../up'.",
    ),
    (
        "an escape in a name",
        command("train", "{file}", "--name", "a\x1b[2Jb"),
        "distill: name is the run's folder, a plain name without '/' and leading '.' or '-', got 'a\\x1b[2Jb'.",
    ),
    (
        "an unknown way to go on",
        command("train", "{file}", "--resume", "always"),
        "distill: argument --resume: invalid choice: 'always' {...}. See distill train --help.",
    ),
    (
        "two ways to go on",
        command("train", "{file}", "--resume", "auto", "--overwrite"),
        "distill: --resume auto goes on with a run and --overwrite removes it. Give one of them.",
    ),
    ("an unknown loss", command("losses", "KDD"), "distill: distill has no loss 'KDD'. Nearest: KD, NKD, DKD."),
    (
        "arrows without a match",
        command("plan", "{file}", "--arrows", "3"),
        "distill: --arrows has no effect without --match. Add it, or leave this out.",
    ),
    (
        "arrows that are no number",
        command("plan", "{file}", "--match", "--arrows", "x"),
        "distill: argument --arrows: {...}. See distill plan --help.",
    ),
    (
        "weights that are not there",
        command("plan", "{file}", "--teacher.weights", "{at}/none.pt"),
        "distill: There is no weight file {at}/none.pt. Check the path.",
    ),
]

TABLES = {
    "settings": SETTINGS,
    "recipes": RECIPES,
    "overrides": OVERRIDES,
    "data": DATA,
    "files": FILES,
    "images": IMAGES,
    "weights": WEIGHTS,
    "commands": COMMANDS,
}
ROWS = [pytest.param(act, line, id=f"{table}: {name}") for table, rows in TABLES.items() for name, act, line in rows]


def said(act: Callable[[Path], object], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that a mistake gives, from the function that refuses it or from the command."""
    try:
        code = act(folder)
    except ValueError as error:
        return str(error).replace(str(folder), "{at}")
    assert code == 2, "nothing was refused"
    written = capsys.readouterr().err
    assert written.endswith("\n")
    return written[:-1].replace(str(folder), "{at}")


@pytest.mark.parametrize(("act", "line"), ROWS)
def test_a_mistake_gives_one_line_that_names_it(
    act: Callable[[Path], object], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = said(act, tmp_path, capsys)
    assert re.fullmatch(".+".join(map(re.escape, line.split("{...}"))), found), found
    assert "\n" not in found and found.isprintable()
    assert not (tmp_path / "ran").exists()


def test_the_table_is_long_enough_and_says_each_thing_once() -> None:
    assert len(ROWS) >= 80
    names = [row.id for row in ROWS]
    assert len(set(names)) == len(names)
