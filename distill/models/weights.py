"""Weights in files: read from safetensors or PyTorch files, fitted to a model, and written as a run's student."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distill.archive import check_archive
from distill.messages import first_line
from distill.models.from_transformers import student_config
from distill.models.transformers_config import OWN_KEY

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
SUFFIXES = (".safetensors", ".pt", ".pth")
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_NAMED_IN_ERRORS = 3
_KINDS: Mapping[str, Any] = {
    "source": str,
    "arguments": dict,
    "num_classes": int,
    "in_channels": int | None,
    "classes": list,
    "view": dict | None,
}


def student_folder(folder: Path) -> Path | None:
    """Where a run's student lies: in the run's `student`, or in the folder itself; None where in neither."""
    return next((each for each in (folder / "student", folder) if (each / MODEL_FILE).is_file()), None)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors, .pt or .pth file, on the CPU.

    PyTorch files are read without running code; a state may lie under `state_dict`, `model` or `model_state_dict`.

    Raises:
        ValueError: the file is missing, damaged, or holds something else than tensors by name.
    """
    if not path.is_file():
        raise ValueError(f"There is no weight file {path}. Give the path of a .safetensors, .pt or .pth file.")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def read_config(folder: Path) -> dict[str, Any]:
    """The config beside a student's weights: source, arguments, num_classes, in_channels, classes and view.

    A student of transformers has it inside of transformers' own.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} can't be read ({first_line(error)}). Give the weight file itself, or train the run again."
        ) from error
    if isinstance(config, dict):
        config = config.get(OWN_KEY, config)
    missing = [name for name in _KINDS if not isinstance(config, dict) or name not in config]
    if missing:
        raise ValueError(
            f"{path} is not the config of a run's student: it lacks {', '.join(missing)}. Give the weight file itself; "
            "a folder of transformers is named in the source, as in 'transformers:FOLDER' with weights='pretrained'."
        )
    for name, kind in _KINDS.items():
        if not isinstance(config[name], kind):
            raise ValueError(f"{path} is damaged: {name} is {config[name]!r:.80}. Train the run again.")
    return dict(config)


def named_for(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the model's own names, without what wrappers put in them.

    These are `_orig_mod.` (torch.compile), and a `module.` in front of all names (data parallelism) that the model
    has not.
    """
    own = model.state_dict()
    named = _uncompiled(tensors)
    while named and all(name.startswith("module.") and name not in own for name in named):
        named = {name.removeprefix("module."): tensor for name, tensor in named.items()}
    return named


def fit_tensors(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str, weights: str) -> None:
    """Load the tensors into the model, each under its own name and in its own shape; types are converted.

    Names may have what torch.compile and data parallelism put before them. The batch counts of batch normalisation
    may be missing, as in files from before they existed. A tensor of several names (tied weights) may be given under
    one of them.

    source, weights: how the user named the two, for the message.

    Raises:
        ValueError: tensors are missing, unexpected or of another shape; the first of each kind are named.
    """
    tensors = named_for(model, tensors)
    own = model.state_dict(keep_vars=True)
    given = {id(own[name]) for name in tensors if name in own}
    missing = [
        name
        for name, tensor in own.items()
        if name not in tensors and id(tensor) not in given and name.rpartition(".")[2] != "num_batches_tracked"
    ]
    unexpected = [name for name in tensors if name not in own]
    shapes = [
        f"{name} ({tuple(tensors[name].shape)} in the file, {tuple(tensor.shape)} in the model)"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    problems = [f"{kind} {_first(names)}" for kind, names in kinds if names]
    if problems:
        raise ValueError(
            f"{weights} does not fit {source}: {'; '.join(problems)}. Build the model that the weights were made for."
        )
    model.load_state_dict(dict(tensors), strict=False)


def save_student(folder: Path, model: nn.Module, config: Mapping[str, Any]) -> None:
    """Write a model's weights and config into a folder, from which the bare class loads them with `strict=True`.

    Each file is written beside its place and moved there whole, the weights last: where they are, the run is
    complete. Tied tensors are written under each of their names; names are those of the bare model. A student of
    transformers gets transformers' own config, with ours inside, so that its AutoModelForSequenceClassification loads
    the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = student_config(model, config) if config["source"].startswith("transformers:") else dict(config)
    text = json.dumps(whole, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    bare = model.module if isinstance(model, (nn.DataParallel, DistributedDataParallel)) else model
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in _uncompiled(bare.state_dict()).items()
    }
    config_part, model_part = folder / f".{CONFIG_FILE}.part", folder / f".{MODEL_FILE}.part"
    config_part.write_text(text, encoding="utf-8")
    save_file(tensors, model_part, metadata={"format": "pt"})
    for part, place in ((config_part, folder / CONFIG_FILE), (model_part, folder / MODEL_FILE)):
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(place)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is damaged, or no safetensors file ({first_line(error)}). Copy or train it again."
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    check_archive(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes fail in the unpickler in many ways
        raise ValueError(
            f"{path} can't be read as weights alone: it is damaged, or holds pickled Python objects, which could run "
            "code. Save only the tensors: torch.save(model.state_dict(), ...)."
        ) from error
    for key in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(map(_is_named, state.items())):
        held = _first([str(key) for key in state]) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(
            f"{path} does not hold tensors by name (it holds {held or 'nothing'}). "
            "Save them as torch.save(model.state_dict(), ...)."
        )
    return dict(state)


def _is_named(item: tuple[object, object]) -> bool:
    """Whether it is a name and a tensor that can be copied: neither sparse, nor quantised, nor without its numbers."""
    name, value = item
    if not (isinstance(name, str) and isinstance(value, Tensor)):
        return False
    return value.layout is torch.strided and not value.is_quantized and not value.is_meta


def _uncompiled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}


def _first(names: list[str]) -> str:
    rest = f" and {len(names) - _NAMED_IN_ERRORS} more" if len(names) > _NAMED_IN_ERRORS else ""
    return ", ".join(names[:_NAMED_IN_ERRORS]) + rest
