"""The file formats of CIFAR-10 and CIFAR-100: Python pickles, plain binary, and parquet for CIFAR-10."""

import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from distill.data.folders import inside
from distill.data.images import UnreadableImageError, in_threads
from distill.data.split import check_labels
from distill.data.text_files import read_text


def _dtype(kind: str, align: int, copy: int) -> np.dtype[Any]:
    """A dtype whose flags may be integers, as in the official files."""
    # NumPy 2.4.0 to 2.4.4 warns of integers: https://github.com/numpy/numpy/pull/29301.
    return np.dtype(kind, bool(align), bool(copy))


# What an array needs to be rebuilt, under the names that old and new pickles use for it.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): str.encode,
}

# Far more than 32x32 pixels take; it keeps a small damaged file from being decoded into gigabytes.
_MOST_BYTES = 65_536


@dataclass(frozen=True)
class Stored:
    """Images as a file holds them: `images(rows)` is uint8 (len(rows), 3, 32, 32); labels are int64 (N,)."""

    images: Callable[[Tensor], Tensor]
    labels: Tensor


@dataclass(frozen=True)
class Cifar:
    """Training and test images, and the names of the classes."""

    train: Stored
    test: Stored
    classes: tuple[str, ...]


def read_cifar10(folder: Path) -> Cifar:
    """CIFAR-10 from parquet, pickles or binary files, in the folder or in the official one inside it.

    Raises:
        ValueError: none of these is there, or a file is missing, damaged, or asks to run code.
    """
    numbers = range(1, 6)
    if (folder / "train.parquet").is_file():
        return _read_parquet(folder)
    for place in (folder, folder / "cifar-10-batches-py"):
        if (place / "data_batch_1").is_file():
            names = [f"data_batch_{number}" for number in numbers]
            return _read_pickles(
                place, names, "test_batch", meta="batches.meta", classes="label_names", labels="labels"
            )
    for place in (folder, folder / "cifar-10-batches-bin"):
        if (place / "data_batch_1.bin").is_file():
            names = [f"data_batch_{number}.bin" for number in numbers]
            return _read_binary(place, names, "test_batch.bin", classes="batches.meta.txt", label_bytes=1)
    raise ValueError(f"{folder} holds no CIFAR-10: neither train.parquet, nor data_batch_1, nor data_batch_1.bin.")


def read_cifar100(folder: Path) -> Cifar:
    """CIFAR-100 with its fine classes from pickles or binary files, in the folder or in the official one inside it.

    Raises:
        ValueError: none of these is there, or a file is missing, damaged, or asks to run code.
    """
    for place in (folder, folder / "cifar-100-python"):
        if (place / "train").is_file():
            return _read_pickles(
                place, ["train"], "test", meta="meta", classes="fine_label_names", labels="fine_labels"
            )
    for place in (folder, folder / "cifar-100-binary"):
        if (place / "train.bin").is_file():
            return _read_binary(place, ["train.bin"], "test.bin", classes="fine_label_names.txt", label_bytes=2)
    raise ValueError(f"{folder} holds no CIFAR-100: neither train with test and meta, nor train.bin with test.bin.")


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds arrays and Python's own containers; whatever else a pickle names could run code, and is refused."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which may run code")
        return _ALLOWED[module_name, global_name]


def _read_pickles(place: Path, train: Sequence[str], test: str, *, meta: str, classes: str, labels: str) -> Cifar:
    names = _unpickle(place, meta).get(classes)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{place / meta} has no class names under {classes!r}.")

    def stored(files: Sequence[str]) -> Stored:
        pixels, numbers = [], []
        for name in files:
            entry = _unpickle(place, name)
            data, of_file = entry.get("data"), entry.get(labels)
            if not (
                isinstance(of_file, list) and all(isinstance(label, int) and abs(label) < 2**31 for label in of_file)
            ):
                raise ValueError(f"{place / name} has no list of class numbers under {labels!r}.")
            if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape == (len(of_file), 3072)):
                raise ValueError(f"{place / name} does not hold 'data' of 3072 bytes for each of its {labels!r}.")
            pixels.append(data)
            numbers.append(np.array(of_file, dtype=np.int64))
        return _stored(np.concatenate(pixels), np.concatenate(numbers), len(names), place / files[0])

    return Cifar(stored(train), stored([test]), tuple(names))


def _unpickle(place: Path, name: str) -> dict[str, Any]:
    path = _present(place, name)
    try:
        with path.open("rb") as file:
            entry = _ArraysOnly(file, encoding="latin1").load()
    # A damaged pickle raises whatever its bytes happen to mean.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read as a CIFAR file: {reason}.") from error
    if not isinstance(entry, dict):
        raise ValueError(f"{path} cannot be read as a CIFAR file: it holds a {type(entry).__name__}.")
    # Some copies were pickled again with keys of bytes.
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in entry.items()}


def _read_binary(place: Path, train: Sequence[str], test: str, *, classes: str, label_bytes: int) -> Cifar:
    names = tuple(read_text(_present(place, classes)).split())

    def stored(files: Sequence[str]) -> Stored:
        blocks = []
        for name in files:
            block = np.fromfile(_present(place, name), dtype=np.uint8)
            if len(block) == 0 or len(block) % (label_bytes + 3072):
                raise ValueError(
                    f"{place / name} has {len(block)} bytes, no multiple of {label_bytes + 3072}. Fetch it again."
                )
            blocks.append(block.reshape(-1, label_bytes + 3072))
        records = np.concatenate(blocks)
        # CIFAR-100 puts its coarse label before the fine one.
        return _stored(
            records[:, label_bytes:], records[:, label_bytes - 1].astype(np.int64), len(names), place / files[0]
        )

    return Cifar(stored(train), stored([test]), names)


def _stored(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], num_classes: int, path: Path) -> Stored:
    images, numbers = torch.from_numpy(pixels).view(-1, 3, 32, 32), torch.from_numpy(labels)
    check_labels(numbers, num_classes, str(path))
    return Stored(lambda rows: images[rows], numbers)


def _present(place: Path, name: str) -> Path:
    path = inside(place, place / name)
    if not path.is_file():
        raise ValueError(f"{path} is missing. The other files of the set are there: fetch it again.")
    return path


def _read_parquet(folder: Path) -> Cifar:
    """Two files of image: {bytes, path} and label, as Hugging Face writes them, with the class names in the schema."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise ValueError(
            f"{folder} holds parquet, which needs pyarrow. Install it: pip install 'distill[text]'."
        ) from None

    def stored(name: str) -> tuple[Stored, tuple[str, ...]]:
        path = _present(folder, name)
        try:
            table = read_table(path, columns=["image", "label"])
            features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
            classes = tuple(str(one) for one in features["label"]["names"])
            encoded = table["image"].combine_chunks().field("bytes")
            numbers = torch.from_numpy(table["label"].to_numpy().astype(np.int64, casting="safe"))
        except (ArrowException, OSError, LookupError, TypeError, ValueError, RecursionError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(f"{path} is not parquet with images, labels and class names ({reason}).") from error
        check_labels(numbers, len(classes), str(path))

        def images(rows: Tensor) -> Tensor:
            pixels = torch.empty(len(rows), 3, 32, 32, dtype=torch.uint8)

            def work(part: range) -> None:
                for place in part:
                    row = int(rows[place])
                    pixels[place] = _decode(encoded[row].as_py(), f"{row} of {path}")

            in_threads(work, len(rows), description="Decoding images")
            return pixels

        return Stored(images, numbers), classes

    train, classes = stored("train.parquet")
    test, _ = stored("test.parquet")
    return Cifar(train, test, classes)


def _decode(data: bytes | None, name: str) -> Tensor:
    """A compressed 32x32 image, uint8 (3, 32, 32), in a third of the time that Pillow takes."""
    if not data or len(data) > _MOST_BYTES:
        raise UnreadableImageError(
            f"Cannot read image {name}: its {len(data or b'')} bytes are not those of 32x32 pixels."
        )
    try:
        image: Tensor = decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        raise UnreadableImageError(f"Cannot read image {name}: {' '.join(str(error).split())}.") from error
    if image.shape != (3, 32, 32):
        raise UnreadableImageError(f"Cannot read image {name}: its shape is {tuple(image.shape)}, not (3, 32, 32).")
    return image
