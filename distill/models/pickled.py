"""Whole modules that were pickled: their tensors by name, read without the file's classes and without running code.

`torch.load(weights_only=True)` refuses such files, in the older of PyTorch's two formats even where their classes are
allowed. Here no name of a file is ever looked up: each stands for an object that keeps what it is given and does
nothing, and the tensors are made of what these have kept.
"""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor
from torch.serialization import MAGIC_NUMBER

from distill.messages import first_line

_DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.LongStorage": torch.int64,
}
_TENSOR, _PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
_BACKEND = "torch.nn.backends.thnn._get_thnn_function_backend"  # what modules of PyTorch before 1.4 keep
_NAMES = (_TENSOR, _PARAMETER, "builtins.set", "__builtin__.set", _BACKEND)
_PLACES = ("torch.nn.modules.", "torchxrayvision.models.")


class _StandIn:
    """An object of a class that the file names: keeps what it was made of, and what it was given afterwards.

    It takes nothing else, so that a file can't leave attributes where somebody reads them.
    """

    __slots__ = ("args", "state")
    name = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> "_StandIn":
        self = super().__new__(cls)
        self.args = args
        self.state = {}
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Storage(NamedTuple):
    """Numbers that lie elsewhere in the file, under a key."""

    kind: str
    key: str
    length: int


class _Reader(pickle.Unpickler):
    """Reads a pickle into stand-ins, and notes the storages that it names."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str, /) -> type:
        whole = f"{module}.{name}"
        if whole == "collections.OrderedDict":
            return OrderedDict
        is_storage = module == "torch" and name.endswith("Storage")
        if not (is_storage or whole in _NAMES or whole.startswith(_PLACES)):
            raise pickle.UnpicklingError(f"it names {whole}")
        return type("StandIn", (_StandIn,), {"__slots__": (), "name": whole})

    def persistent_load(self, pid: Any, /) -> Any:
        match pid:
            case ("module", kind, _, _):  # the older format keeps a class with its source text
                return kind
            case ("storage", kind, str(key), _, int(length), *views) if issubclass(kind, _StandIn) and not any(views):
                storage = self.storages[key] = _Storage(kind.name, key, length)
                return storage
        raise pickle.UnpicklingError(f"it refers to {str(pid)[:60]}")


def module_tensors(path: Path, *, kind: str) -> dict[str, Tensor] | None:
    """Parameters and buffers by name of the module in the file; None where the file holds no object, but a mapping.

    kind: the module's class, as "package.module.Class".

    Raises:
        ValueError: the file is damaged, or holds an object of another kind, or one that names what no module needs.
    """
    try:
        with path.open("rb") as file:
            whole, storages = _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
        if not isinstance(whole, _StandIn):
            return None
        if whole.name != kind:
            raise pickle.UnpicklingError(f"it is a {whole.name}")
        return _tensors(whole, storages, "")
    except Exception as error:  # damaged bytes fail in the unpickler in many ways
        raise ValueError(
            f"{path} can't be read as a pickled {kind} or as weights alone ({first_line(error)}): it is damaged, or "
            "holds other Python objects, which could run code. Save only the tensors: torch.save(model.state_dict(), "
            "...)."
        ) from error


def _read_zip(file: IO[bytes]) -> tuple[Any, dict[str, Tensor]]:
    """What is pickled, and the numbers of each storage: a file each, in an archive that is not compressed."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        root = next(name for name in names if name.endswith("/data.pkl")).removesuffix("data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("its archive is compressed")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are not little-endian")
        with archive.open(f"{root}data.pkl") as pickled:
            reader = _Reader(pickled)
            whole = reader.load()
        return whole, {key: _numbers(one, archive.read(f"{root}data/{key}")) for key, one in reader.storages.items()}


def _read_legacy(file: IO[bytes]) -> tuple[Any, dict[str, Tensor]]:
    """The same of a file from before PyTorch 1.6: a few pickles, then each storage's length and numbers."""
    file.seek(0)
    magic, _, system = (_Reader(file).load() for _ in range(3))
    if magic != MAGIC_NUMBER:
        raise ValueError("it is no file of PyTorch")
    if not system["little_endian"]:
        raise ValueError("its numbers are not little-endian")
    reader = _Reader(file)
    whole = reader.load()
    found = {}
    for key in _Reader(file).load():
        storage = reader.storages[key]
        if int.from_bytes(file.read(8), "little") != storage.length:
            raise ValueError(f"storage {key} has another length")
        found[key] = _numbers(storage, file.read(storage.length * _DTYPES[storage.kind].itemsize))
    return whole, found


def _numbers(storage: _Storage, data: bytes) -> Tensor:
    numbers = torch.frombuffer(bytearray(data), dtype=_DTYPES[storage.kind])
    if len(numbers) != storage.length:
        raise ValueError(f"storage {storage.key} is cut off")
    return numbers


def _tensors(module: _StandIn, storages: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    found = {}
    for name, value in (*module.state["_parameters"].items(), *module.state["_buffers"].items()):
        if value is not None:
            found[f"{prefix}{name}"] = _tensor(value, storages)
    for name, child in module.state["_modules"].items():
        found |= _tensors(child, storages, f"{prefix}{name}.")
    return found


def _tensor(made: _StandIn, storages: dict[str, Tensor]) -> Tensor:
    """The tensor that a call of PyTorch's two functions for tensors and parameters would have made."""
    if made.name == _PARAMETER:
        return _tensor(made.args[0], storages)
    if made.name != _TENSOR:
        raise ValueError(f"a {made.name} stands where a tensor should")
    storage, offset, size, stride = made.args[:4]
    return storages[storage.key].as_strided(size, stride, offset)
