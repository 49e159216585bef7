import io
import json
import os
import pickle
import sys
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from distill.data import Cifar10, Cifar100, Mix
from distill.data.arrays import statistics
from distill.data.cifar_files import read_cifar10

REAL = Path(os.environ.get("DISTILL_DATA", "../shared/data")) / "cifar10"
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
needs_cifar10 = pytest.mark.skipif(
    not (REAL / "train.parquet").is_file(), reason="needs CIFAR-10 as parquet in DISTILL_DATA or ../shared/data"
)


def pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


class _OldPickler(pickle._Pickler):
    """Writes arrays as Python 2 did for the official files: old module name, integers for a dtype's flags."""

    def reducer_override(self, value: object) -> object:
        if isinstance(value, np.dtype):
            return np.dtype, (value.str[1:], 0, 1), value.__reduce__()[2]
        return NotImplemented

    def save_global(self, value: object, name: str | None = None) -> None:
        if value is np.empty(0).__reduce__()[0]:
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
            self.memoize(value)
        else:
            super().save_global(value, name)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, type(len): save_global}


def write_pickle(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        _OldPickler(file, protocol=2).dump(content)


def write_cifar10_pickles(folder: Path, per_file: int = 20) -> None:
    write_pickle(folder / "batches.meta", {"num_cases_per_batch": per_file, "label_names": NAMES, "num_vis": 3072})
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for seed, name in enumerate(names):
        labels = [index % 10 for index in range(per_file)]
        write_pickle(
            folder / name, {"batch_label": name, "labels": labels, "data": pixels(per_file, seed), "filenames": []}
        )


@pytest.fixture
def cifar10_pickles(tmp_path: Path) -> Path:
    write_cifar10_pickles(tmp_path / "cifar-10-batches-py")
    return tmp_path


def everything(splits):
    return torch.cat([splits.train.images, splits.validation.images]).flatten(1).unique(dim=0)


@needs_cifar10
def test_the_real_cifar10_is_read_whole():
    splits = Cifar10(folder=str(REAL.resolve())).load(0, None)
    assert splits.classes == tuple(NAMES)
    assert [len(examples) for examples in (splits.train, splits.validation, splits.test)] == [45000, 5000, 10000]
    for examples, each in ((splits.train, 4500), (splits.validation, 500), (splits.test, 1000)):
        assert torch.bincount(examples.labels).tolist() == [each] * 10
    own = statistics(splits.train.images[:10_000])
    # The JPEG copy is a little smoother than the original, whose statistics these are.
    assert own.mean == pytest.approx(splits.view.mean, abs=0.004)
    assert own.std == pytest.approx(splits.view.std, abs=0.004)
    assert splits.train[0, 3].image.shape == (3, 32, 32)


@needs_cifar10
def test_the_pixels_of_the_real_cifar10_are_those_that_pillow_decodes():
    from pyarrow.parquet import read_table

    table = read_table(REAL / "test.parquet").slice(0, 50)
    test = Cifar10(folder=str(REAL.resolve()), subset=100, validation=100).load(0, None).test
    for row, entry in enumerate(table.to_pylist()):
        with Image.open(io.BytesIO(entry["image"]["bytes"])) as image:
            expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        assert torch.equal(test.images[row], expected)
        assert NAMES[test.labels[row]] == entry["image"]["path"].split("/")[0]


def test_official_pickles_are_read_as_torchvision_reads_them(cifar10_pickles, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *arguments: True)
    read = read_cifar10(cifar10_pickles)
    # Some versions of NumPy warn of the integers, when torchvision reads them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torchvision.datasets.CIFAR10(str(cifar10_pickles), train=True)
    assert list(read.classes) == theirs.classes
    assert read.train.labels.tolist() == theirs.targets
    ours = read.train.images(torch.arange(100))
    assert torch.equal(ours, torch.from_numpy(theirs.data).permute(0, 3, 1, 2))


def test_pickles_give_three_splits(cifar10_pickles):
    splits = Cifar10(folder=str(cifar10_pickles), validation=20).load(0, None)
    assert [len(examples) for examples in (splits.train, splits.validation, splits.test)] == [80, 20, 20]
    assert torch.bincount(splits.validation.labels).tolist() == [2] * 10
    assert len(everything(splits)) == 100
    direct = Cifar10(folder=str(cifar10_pickles / "cifar-10-batches-py"), validation=20).load(0, None)
    assert torch.equal(direct.train.images, splits.train.images)


def test_binary_files_hold_the_same_as_pickles(cifar10_pickles, tmp_path):
    binary = tmp_path / "other" / "cifar-10-batches-bin"
    binary.mkdir(parents=True)
    (binary / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    for seed, name in enumerate([f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]):
        labels = np.arange(20, dtype=np.uint8)[:, None] % 10
        (binary / name).write_bytes(np.concatenate([labels, pixels(20, seed)], axis=1).tobytes())
    settings = {"validation": 20, "subset": 50}
    ours = Cifar10(folder=str(tmp_path / "other"), **settings).load(0, None)
    theirs = Cifar10(folder=str(cifar10_pickles), **settings).load(0, None)
    assert ours.classes == theirs.classes
    for name in ("train", "validation", "test"):
        assert torch.equal(getattr(ours, name).images, getattr(theirs, name).images)
        assert torch.equal(getattr(ours, name).labels, getattr(theirs, name).labels)


def test_cifar100_takes_the_fine_labels_from_pickles_and_from_binary_files(tmp_path):
    fine = [f"thing{number:03d}" for number in range(100)]
    labels = [number % 100 for number in range(200)]
    coarse = [number % 20 for number in range(200)]
    folder, binary = tmp_path / "p" / "cifar-100-python", tmp_path / "b" / "cifar-100-binary"
    write_pickle(folder / "meta", {"fine_label_names": fine, "coarse_label_names": ["group"] * 20})
    binary.mkdir(parents=True)
    (binary / "fine_label_names.txt").write_text("\n".join(fine) + "\n")
    for seed, name in enumerate(("train", "test")):
        data = pixels(200, seed)
        write_pickle(folder / name, {"fine_labels": labels, "coarse_labels": coarse, "data": data})
        records = np.concatenate([np.array([coarse, labels], dtype=np.uint8).T, data], axis=1)
        (binary / f"{name}.bin").write_bytes(records.tobytes())
    one = Cifar100(folder=str(tmp_path / "p"), validation=100).load(0, None)
    other = Cifar100(folder=str(tmp_path / "b"), validation=100).load(0, None)
    assert one.classes == other.classes == tuple(fine)
    assert torch.equal(one.train.images, other.train.images)
    assert sorted(one.train.labels.tolist()) == list(range(100))
    assert torch.equal(one.train.labels, other.train.labels)
    assert torch.equal(one.test.labels, other.test.labels)
    assert one.test.labels.tolist() == labels


def test_keys_of_bytes_are_read_too(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10_pickles(folder)
    labels = [index % 10 for index in range(20)]
    (folder / "data_batch_2").write_bytes(pickle.dumps({b"labels": labels, b"data": pixels(20, 1)}, protocol=2))
    splits = Cifar10(folder=str(tmp_path), validation=20).load(0, None)
    assert len(everything(splits)) == 100


class _Payload:
    def __reduce__(self):
        return os.system, (f"touch {_Payload.proof}",)


def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(cifar10_pickles, tmp_path):
    _Payload.proof = tmp_path / "ran"
    bad = cifar10_pickles / "cifar-10-batches-py" / "data_batch_3"
    bad.write_bytes(pickle.dumps({"labels": [], "data": _Payload()}, protocol=2))
    with pytest.raises(
        ValueError, match=r"data_batch_3 cannot be read as a CIFAR file: it asks for (posix|nt)\.system"
    ) as error:
        Cifar10(folder=str(cifar10_pickles)).load(0, None)
    assert "\n" not in str(error.value)
    assert not _Payload.proof.exists()


def test_validation_and_subset_are_stratified_and_stay_for_every_seed(cifar10_pickles):
    def load(seed: int = 0, **settings: object):
        return Cifar10(folder=str(cifar10_pickles), validation=20, **settings).load(seed, None)

    splits = load(subset=30)
    assert torch.bincount(splits.train.labels).tolist() == [3] * 10
    assert torch.equal(load(subset=30, seed=7).train.images, splits.train.images)
    assert torch.equal(load().validation.images, splits.validation.images)
    assert not torch.equal(load(subset=30, split_seed=1).train.images, splits.train.images)
    assert len(load(subset=80).train) == 80


def test_augmenting_crops_and_mirrors(cifar10_pickles):
    settings = {"folder": str(cifar10_pickles), "validation": 20}
    train = Cifar10(**settings).load(0, None).train
    seen = {train[epoch, 0].image.contiguous().numpy().tobytes() for epoch in range(300)}
    # 9 x 9 offsets, mirrored or not: 162 forms, of which 300 draws should meet 162 * (1 - exp(-300/162)) = 137.
    assert 115 < len(seen) <= 162
    plain = Cifar10(**settings, augment=False).load(0, Mix(mixup=1.0)).train
    assert torch.equal(plain.crop(5, 0), plain.images[0])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"validation": 0}, "Cifar10.validation"),
        ({"validation": 100}, "Cifar10.validation cuts 100 of 100"),
        ({"validation": 101}, "Cifar10.validation cuts 101 of 100"),
        ({"subset": 0}, "Cifar10.subset"),
        ({"subset": 81, "validation": 20}, "Cifar10.subset cuts 81 of 80"),
        ({"subset": 5, "validation": 20}, "No training example of class"),
    ],
)
def test_sizes_without_sense_are_refused(cifar10_pickles, settings, words):
    with pytest.raises(ValueError, match=words):
        Cifar10(folder=str(cifar10_pickles), **settings).load(0, None)


def test_a_folder_without_cifar_says_what_is_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"train\.parquet, nor data_batch_1"):
        Cifar10(folder=str(tmp_path)).load(0, None)
    with pytest.raises(ValueError, match=r"CIFAR-100"):
        Cifar100(folder=str(tmp_path)).load(0, None)


def test_missing_and_damaged_files_are_named(cifar10_pickles):
    folder = cifar10_pickles / "cifar-10-batches-py"
    data = Cifar10(folder=str(cifar10_pickles), validation=20)
    whole = (folder / "data_batch_4").read_bytes()
    for content in (
        whole[:-400],
        b"",
        b"hello",
        pickle.dumps([1, 2]),
        pickle.dumps({"labels": [0], "data": "x"}),
        pickle.dumps({"labels": ["a"], "data": pixels(1, 0)}, 2),
    ):
        (folder / "data_batch_4").write_bytes(content)
        with pytest.raises(ValueError, match="data_batch_4") as error:
            data.load(0, None)
        assert "\n" not in str(error.value)
    (folder / "data_batch_4").unlink()
    with pytest.raises(ValueError, match="data_batch_4 is missing"):
        data.load(0, None)
    (folder / "data_batch_4").write_bytes(whole)
    write_pickle(folder / "test_batch", {"labels": [10] * 20, "data": pixels(20, 0)})
    with pytest.raises(ValueError, match="test_batch has labels from 10 to 10"):
        data.load(0, None)


def encoded(seed: int, size: int = 32) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(stored, "PNG")
    return stored.getvalue()


def write_parquet(
    path: Path, images: list[bytes | None], *, names: list[str] | None = None, label: str = "label"
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(images)]
    table = pyarrow.table({"image": rows, label: [number % 2 for number in range(len(rows))]})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


def test_parquet_gives_images_labels_and_names(tmp_path):
    for name in ("train", "test"):
        write_parquet(tmp_path / f"{name}.parquet", [encoded(seed) for seed in range(12)], names=["cat", "dog"])
    splits = Cifar10(folder=str(tmp_path), validation=4).load(0, None)
    assert splits.classes == ("cat", "dog")
    assert splits.test.labels.tolist() == [0, 1] * 6
    with Image.open(io.BytesIO(encoded(5))) as image:
        assert torch.equal(splits.test.images[5], torch.from_numpy(np.array(image)).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([b"no image"] * 12, r"image \d+ of .*test\.parquet"),
        ([encoded(0)[:-60]] * 12, r"image \d+ of .*test\.parquet"),
        ([None] * 12, "0 bytes"),
        ([encoded(0, size=31)] * 12, r"\(3, 31, 31\)"),
        ([encoded(0) + bytes(70_000)] * 12, "bytes are not those of 32x32"),
    ],
)
def test_unreadable_images_in_parquet_are_named(tmp_path, images, words):
    write_parquet(tmp_path / "train.parquet", [encoded(seed) for seed in range(12)], names=["cat", "dog"])
    write_parquet(tmp_path / "test.parquet", images, names=["cat", "dog"])
    with pytest.raises(ValueError, match=words) as error:
        Cifar10(folder=str(tmp_path), validation=4).load(0, None)
    assert "\n" not in str(error.value)


def test_parquet_of_another_kind_is_refused(tmp_path):
    good = [encoded(seed) for seed in range(4)]
    write_parquet(tmp_path / "train.parquet", good)
    with pytest.raises(ValueError, match=r"train\.parquet is not parquet with images"):
        Cifar10(folder=str(tmp_path)).load(0, None)
    write_parquet(tmp_path / "train.parquet", good, names=["cat", "dog"], label="answer")
    with pytest.raises(ValueError, match=r"train\.parquet is not parquet with images"):
        Cifar10(folder=str(tmp_path)).load(0, None)
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ValueError, match=r"train\.parquet is not parquet with images"):
        Cifar10(folder=str(tmp_path)).load(0, None)
    write_parquet(tmp_path / "train.parquet", good, names=["cat", "dog"])
    with pytest.raises(ValueError, match=r"test\.parquet is missing"):
        Cifar10(folder=str(tmp_path)).load(0, None)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "train.parquet").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"distill\[text\]"):
        Cifar10(folder=str(tmp_path)).load(0, None)
