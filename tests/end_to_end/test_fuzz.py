"""Whatever a file or a command line holds, a reader takes it or refuses it with a ValueError, and nothing else."""

import copy
import gzip
import hashlib
import io
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet
from safetensors.torch import save
from torch import nn

from distill import checkpoint, report
from distill.data import Digits, Mix
from distill.data.chest_files import official_rows, read_boxes
from distill.data.chest_table import read_chest_table
from distill.data.cifar_files import read_cifar10, read_cifar100
from distill.data.coco import read_instances
from distill.data.images import decode, decode_grey, image_size
from distill.data.sst2 import read_sst2
from distill.data.text_files import read_table
from distill.heads import Conv1x1
from distill.initialize import SelectWeights
from distill.losses import KD, CrossEntropy, Hint
from distill.models.pickled import module_tensors
from distill.models.weights import fit_tensors, read_config, read_tensors
from distill.plan import Term
from distill.recipe import SGD, AdamW, Cosine, Model, Recipe, Stage, Steps, apply_overrides, from_json, to_json
from distill.recipe.settings import override_names
from distill.weighting import Ramp
from tests.report.made import HELPED, one_seed
from tests.report.made import report as made_report

RESNET = "distill.models.cifar:resnet8"
PLAN = {
    "task": Term(CrossEntropy(label_smoothing=0.1), weight=0.1),
    "kd": Term(KD(temperature=4.0), weight=0.9, schedule=Ramp(epochs=2)),
    "hint": Term(Hint(), student="layer2", teacher="layer2", head=Conv1x1()),
}
TEACHER = Model(RESNET, weights="runs/teacher", arguments={"width": 16, "inner": {"deep": (0.5, None)}})
PAIR = Recipe(
    "pair", Digits(), Model(RESNET), TEACHER, SelectWeights(), plan=PLAN, optimizer=SGD(lr=0.05), epochs=30,
    schedule=Cosine(warmup_epochs=1), clip=1.0, mix=Mix(mixup=0.2), controls=("plain", "initialized"),
)  # fmt: skip
STAGED = Recipe(
    "staged", Digits(), Model(RESNET), TEACHER, SelectWeights(),
    stages=(Stage("transfer", PLAN, 4, AdamW(lr=1e-3), freeze=("fc.*",)),
            Stage("tune", {"task": Term(CrossEntropy())}, 6, SGD(lr=0.01), Steps(milestones=(3, 5)))),
)  # fmt: skip

TYPES = (
    "Recipe",
    "Term",
    "KD",
    "SGD",
    "Steps",
    "Digits",
    "ChestXray",
    "View",
    "Arrays",
    "mapping",
    "os:system",
    ":",
    "",
)
HOSTILE_TEXT = (
    "", "..", "../../etc/passwd", "/etc/passwd", "a\0b", "\ud800", "\u202etxt", "\x1b[2J", "=1+1", "<b onload=x>",
    "nan", "-inf", "1e400", "9" * 5000, "none", "[" * 5000, "(" * 300, "{}", "SGD(lr=", "os:system('x')", "a" * 5000,
    "__class__", "٣", "%s{0}", "\r\n", "-1", "0", "1_0", "'", '"', ",", "=",
)  # fmt: skip
HOSTILE_BYTES = (
    *(text.encode("utf-8", "surrogatepass") for text in HOSTILE_TEXT if text),
    b"\xff\xfe", b"\xef\xbb\xbf", b"\x80", b"\r", b"\n", b"\t", b"|", b";", b"]", b"}", b":", b"null", b"1e999", b"-0",
    b"\x7f\xff\xff\xff", b"\xff" * 8, bytes(8),
)  # fmt: skip


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.dictionaries(st.sampled_from(("type", "items", "lr", "id", "name", "x")), inner, max_size=3)
    return st.lists(inner, max_size=3) | objects


NUMBERS = st.sampled_from(
    (0, -1, 1, 3, 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"))
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.sampled_from((*HOSTILE_TEXT, *TYPES)) | st.text(max_size=6),
    nested,
    max_leaves=5,
)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(("insert", "replace", "cut", "repeat", "flip", "end")),
        st.floats(0, 1),
        st.sampled_from(HOSTILE_BYTES) | st.binary(min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=5,
)
CHANGES = st.lists(
    st.tuples(st.sampled_from(("set", "set", "remove", "rename", "add", "wrap")), st.floats(0, 1), VALUES),
    min_size=1,
    max_size=3,
)


def edited(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    """The bytes with pieces put in, replaced, cut out or repeated, with a bit turned, or ending early."""
    for kind, share, piece in edits:
        at = int(share * len(data))
        match kind:
            case "insert":
                data = data[:at] + piece + data[at:]
            case "replace":
                data = data[:at] + piece + data[at + len(piece) :]
            case "cut":
                data = data[:at] + data[at + len(piece) :]
            case "repeat":
                data = data[:at] + data[max(0, at - 40) : at] * 2 + data[at:]
            case "flip" if at < len(data):
                data = data[:at] + bytes([data[at] ^ (1 << piece[0] % 8)]) + data[at + 1 :]
            case "end":
                data = data[:at]
    return data


def places(tree: Any) -> list[tuple[Any, Any]]:
    """(what holds it, its name or number) of each value in a tree of JSON."""
    inner = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    return [(tree, key) for key, _ in inner] + [place for _, item in inner for place in places(item)]


def changed(tree: Any, changes: list[tuple[str, float, Any]]) -> Any:
    """The tree with values set, taken out, renamed, added or wrapped."""
    tree = copy.deepcopy(tree)
    for kind, share, value in changes:
        found = places(tree)
        if not found:
            return value
        holder, key = found[min(int(share * len(found)), len(found) - 1)]
        match kind:
            case "set":
                holder[key] = value
            case "remove":
                del holder[key]
            case "wrap":
                holder[key] = [holder[key], value]
            case "rename" if isinstance(holder, dict):
                holder[str(value)[:20]] = holder.pop(key)
            case "add" if isinstance(holder, dict):
                holder[str(value)[:20]] = value
    return tree


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def buffered(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


CHEST = (
    b"Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
    b"00000001_000.png,Cardiomegaly|Emphysema,0,1,058Y,M,PA\n00000001_001.png,No Finding,1,1,58,F,AP\n"
    b'00000002_000.png,"Mass",0,2,013M,,PA\n00000003_000.png,-1,0,3,,M,\n'
)
ONE_COLUMN_EACH = b"Image Index,Patient ID,Mass,Nodule\na.png,p1,1,0\nb.png,p2,-1,\nc.png,p3,0.0,1.0\n"
TRAIN, TEST = b"00000001_000.png\n00000001_001.png\n", b"00000002_000.png\n00000003_000.png"
BOXES = b"Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Mass,225.0,547.0,86.7,79.1,,,\n"
REVIEWS = 'label,review\n1,"Good, clean ""rooms"""\n0,房间很差\n1,"two\nlines"\n'.encode()
SENTENCES = b"sentence\tlabel\nhide new secretions \t0\na smile on your face\t1\n"
INSTANCES = {
    "images": [{"id": 9, "file_name": "a.jpg", "height": 3}, {"id": 25, "file_name": "b.jpg"}],
    "categories": [{"id": 1, "name": "person", "supercategory": "x"}, {"id": 17, "name": "cat"}],
    "annotations": [{"id": 1, "image_id": 9, "category_id": 17, "segmentation": [[1, 2]], "bbox": [0, 0, 1, 1]}],
}
CONFIG = {
    "source": RESNET, "arguments": {"width": 4}, "num_classes": 3, "in_channels": 1, "classes": ["a", "b", "c"],
    "view": {"size": None, "mean": [0.5], "std": [0.25]},
}  # fmt: skip
NET = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
IMAGES = tuple(
    buffered(lambda file, kind=kind, image=image: image.save(file, kind))
    for kind, image in (
        ("PNG", Image.fromarray(PIXELS)),
        ("JPEG", Image.fromarray(PIXELS)),
        ("PNG", Image.fromarray(PIXELS).quantize(8)),
        ("PNG", Image.fromarray(PIXELS[..., 0]).convert("1")),
        ("WEBP", Image.fromarray(PIXELS)),
        ("TIFF", Image.fromarray(PIXELS)),
        ("BMP", Image.fromarray(PIXELS)),
        ("PPM", Image.fromarray(PIXELS)),
    )
)
BATCH = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1], "fine_labels": [1, 0]}
PICKLES = tuple(pickle.dumps(BATCH, protocol) for protocol in (0, 2, 5))
META = {"label_names": ["cat", "dog"], "fine_label_names": ["cat", "dog"]}
TABLE = pyarrow.table({"review": ["good", None, "so so"], "label": [1, 0, 1], "more": [[1], [], None]})
PARQUET = buffered(lambda file: parquet.write_table(TABLE, file))
COLUMNS = (
    ("timestamp[s]", [10**15, -(10**15), None]), ("duration[s]", [2**62, 1, 0]), ("date32[day]", [2**31 - 1, 0, None]),
    ("binary", [b"\xff", b"a", None]), ("bool", [True, False, None]), ("double", [float("nan"), 1e308, None]),
    ("uint64", [2**64 - 1, 0, 1]), ("null", [None, None, None]), ("time64[ns]", [1, 2, None]), ("float16", None),
)  # fmt: skip
STATE = {"learner": {"w": torch.ones(3)}, "optimizer": {"state": {0: {"step": 4}}}, "average": None, "random": [b"x"]}
PROGRESS = {"epoch": 3, "step": 120, "processes": 1, "best": {"accuracy": 0.5, "step": 40}, "history": [[1, 0.5]]}
REPORTS = tuple(json.loads(report.to_json(made)) for made in (made_report(HELPED), one_seed(3, 2, 5)))
NAMES = tuple(setting.name for setting in (*override_names(PAIR), *override_names(STAGED)))


def read_cifar(folder: Path, parts: tuple[bytes, bytes, bytes]) -> None:
    train, test, meta = parts
    for number in range(1, 6):
        written(folder, f"data_batch_{number}", train)
    written(folder, "test_batch", test)
    written(folder, "batches.meta", meta)
    read_cifar10(folder)


def read_cifar_binary(folder: Path, parts: tuple[bytes, bytes]) -> None:
    written(folder, "train.bin", parts[0])
    written(folder, "test.bin", parts[0])
    written(folder, "fine_label_names.txt", parts[1])
    read_cifar100(folder)


def read_lists(folder: Path, parts: tuple[bytes, bytes, bytes]) -> None:
    table = read_chest_table(written(folder, "t.csv", CHEST))
    for name, data in zip(("train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"), parts, strict=True):
        written(folder, name, data)
    for read in (lambda: official_rows(folder, table), lambda: read_boxes(folder, table, ("Mass", "Nodule"))):
        refused_or_read(read)


def read_column(folder: Path, drawn: tuple[int, int]) -> None:
    arrays = []
    for number in drawn:
        kind, values = COLUMNS[number]
        whole = pyarrow.array(np.zeros(3, np.float16)) if values is None else pyarrow.array(values, _type(kind))
        arrays.append(whole)
    parquet.write_table(pyarrow.table({"review": arrays[0], "label": arrays[1]}), folder / "t.parquet")
    read_table(folder / "t.parquet", ("review", "label"))


def _type(kind: str) -> Any:
    return {
        "timestamp[s]": pyarrow.timestamp("s"),
        "duration[s]": pyarrow.duration("s"),
        "time64[ns]": pyarrow.time64("ns"),
    }.get(kind) or pyarrow.type_for_alias(kind)


def read_image(folder: Path, data: bytes) -> None:
    path = written(folder, "a.png", data)
    for read in (lambda: decode(path), lambda: decode_grey(path, 4), lambda: image_size(path)):
        refused_or_read(read)


def sealed(state: Path) -> Path:
    """The folder of a checkpoint's state, with right checksums."""
    files = {name: state.with_name(name) for name in ("state.pt", "progress.json")}
    files["progress.json"].write_text("{}")
    sums = {name: hashlib.blake2b(path.read_bytes()).hexdigest() for name, path in files.items()}
    state.with_name("checksums.json").write_text(json.dumps(sums))
    return state.parent


def read_weights(folder: Path, data: bytes, name: str) -> None:
    tensors = read_tensors(written(folder, name, data))
    fit_tensors(copy.deepcopy(NET), tensors, source="net", weights=name)


def refused_or_read(read: Callable[[], object]) -> None:
    try:
        read()
    except ValueError as error:
        assert "\n" not in str(error), "the line has two lines"


@dataclass(frozen=True)
class Target:
    """A reader, what it is given, and how many times."""

    cases: int
    given: st.SearchStrategy[Any]
    read: Callable[[Path, Any], object]


def of_bytes(*seeds: bytes) -> st.SearchStrategy[bytes]:
    """The seeds with edits, and now and then bytes of no sense."""
    return st.builds(edited, st.sampled_from(seeds), EDITS) | st.binary(max_size=60)


def of_tree(*seeds: Any) -> st.SearchStrategy[bytes]:
    """JSON of the seeds with changes, and of their text with edits."""
    trees = st.builds(
        lambda tree, changes: json.dumps(changed(tree, changes)).encode(), st.sampled_from(seeds), CHANGES
    )
    return trees | trees | of_bytes(*(json.dumps(seed).encode() for seed in seeds))


def as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


WORDS = st.lists(
    st.tuples(
        st.sampled_from(NAMES)
        | st.sampled_from(("", ".", "plan.x.weight", "stages.9.epochs", "epochs.x", "plan", "name.")),
        st.sampled_from(
            (*HOSTILE_TEXT, *(f"{name}(x=1)" for name in TYPES), "SGD(lr=0.1)", "[1, 2]", "1,2", '{"type": "KD"}')
        )
        | st.text(max_size=8)
        | VALUES.map(str),
        st.booleans(),
    ),
    min_size=1,
    max_size=3,
).map(
    lambda drawn: [
        word for name, value, whole in drawn for word in ([f"--{name}={value}"] if whole else [f"--{name}", value])
    ]
)

RECIPES = tuple(json.loads(to_json(recipe)) for recipe in (PAIR, STAGED))
TARGETS: Mapping[str, Target] = {
    "recipe": Target(3500, of_tree(*RECIPES), lambda _, data: from_json(as_text(data))),
    "overrides of a plan": Target(2000, WORDS, lambda _, words: apply_overrides(PAIR, words)),
    "overrides of stages": Target(1000, WORDS, lambda _, words: apply_overrides(STAGED, words)),
    "chest table": Target(
        1500, of_bytes(CHEST, ONE_COLUMN_EACH), lambda at, data: read_chest_table(written(at, "t.csv", data))
    ),
    "chest table by label": Target(
        600,
        of_bytes(ONE_COLUMN_EACH),
        lambda at, data: read_chest_table(written(at, "t.csv", data), ("Mass", "Nodule")),
    ),
    "gzipped chest table": Target(
        600, of_bytes(gzip.compress(CHEST)), lambda at, data: read_chest_table(written(at, "t.csv.gz", data))
    ),
    "lists and boxes": Target(600, st.tuples(of_bytes(TRAIN), of_bytes(TEST), of_bytes(BOXES)), read_lists),
    "CSV of texts": Target(
        900, of_bytes(REVIEWS), lambda at, data: read_table(written(at, "t.csv", data), ("review", "label"))
    ),
    "CSV of texts in GB 18030": Target(
        400,
        of_bytes(REVIEWS.decode().encode("gb18030")),
        lambda at, data: read_table(written(at, "t.csv", data), ("review", "label"), encoding="gb18030"),
    ),
    "TSV of texts": Target(
        500, of_bytes(SENTENCES), lambda at, data: read_table(written(at, "t.tsv", data), ("sentence", "label"))
    ),
    "parquet of texts": Target(
        800, of_bytes(PARQUET), lambda at, data: read_table(written(at, "t.parquet", data), ("review", "label"))
    ),
    "parquet columns": Target(
        90, st.tuples(st.integers(0, len(COLUMNS) - 1), st.integers(0, len(COLUMNS) - 1)), read_column
    ),
    "SST-2": Target(500, of_bytes(SENTENCES), lambda at, data: read_sst2(written(at, "t.tsv", data))),
    "COCO": Target(1000, of_tree(INSTANCES), lambda at, data: read_instances(written(at, "i.json", data))),
    "CIFAR pickles": Target(
        800,
        st.tuples(
            of_bytes(*PICKLES), st.sampled_from(PICKLES), of_bytes(pickle.dumps(META)) | st.just(pickle.dumps(META))
        ),
        read_cifar,
    ),
    "CIFAR binary": Target(
        300, st.tuples(of_bytes(bytes(3074), bytes(6148)), of_bytes(b"cat\ndog\n")), read_cifar_binary
    ),
    "images": Target(2000, of_bytes(*IMAGES), read_image),
    "safetensors": Target(
        1200, of_bytes(save(NET.state_dict())), lambda at, data: read_weights(at, data, "w.safetensors")
    ),
    "PyTorch weights": Target(
        1000,
        of_bytes(
            buffered(lambda file: torch.save(NET.state_dict(), file)),
            buffered(lambda file: torch.save(NET.state_dict(), file, _use_new_zipfile_serialization=False)),
        ),
        lambda at, data: read_weights(at, data, "w.pt"),
    ),
    "pickled modules": Target(
        1000,
        of_bytes(
            buffered(lambda file: torch.save(NET, file)),
            buffered(lambda file: torch.save(NET, file, _use_new_zipfile_serialization=False)),
        ),
        lambda at, data: module_tensors(written(at, "w.pt", data), kind="torch.nn.modules.container.Sequential"),
    ),
    "config of a student": Target(
        800, of_tree(CONFIG, {"distill": CONFIG}), lambda at, data: read_config(written(at, "config.json", data).parent)
    ),
    "state of a checkpoint": Target(
        600,
        of_bytes(buffered(lambda file: torch.save(STATE, file))),
        lambda at, data: checkpoint.load_state(sealed(written(at, "state.pt", data))),
    ),
    "progress of a checkpoint": Target(
        600,
        of_tree(PROGRESS),
        lambda at, data: checkpoint.load_progress(written(at, "progress.json", data).parent),
    ),
    "report": Target(600, of_tree(*REPORTS), lambda _, data: report.from_json(as_text(data))),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")  # of long values in its own messages
@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_takes_what_it_is_given_or_refuses_it_with_one_line(name: str, tmp_path: Path) -> None:
    target, fed = TARGETS[name], 0

    @settings(
        max_examples=target.cases,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(target.given)
    def feed(value: Any) -> None:
        nonlocal fed
        fed += 1
        refused_or_read(lambda: target.read(tmp_path, value))

    feed()
    print(f"{name}: {fed:,} cases")
    assert fed >= target.cases


def test_the_readers_are_given_twenty_thousand_cases_in_all() -> None:
    assert sum(target.cases for target in TARGETS.values()) >= 20_000
