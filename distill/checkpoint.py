"""Saving and restoring what can change in a run: learner, optimizer, average, random state, place. Never the teacher.

A checkpoint is a folder `step-00000120` with `state.pt` (tensors and plain values), `progress.json` (where the run
stands) and `checksums.json` of both. It is written beside its place, synced, then renamed, and only then are older ones
removed: there is always one that is whole. A damaged one is noticed when it is read, and the one before it is used.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from distill.archive import check_archive
from distill.messages import first_line

_PREFIX = "step-"
_STATE, _PROGRESS, _CHECKSUMS = "state.pt", "progress.json", "checksums.json"


def save(
    folder: Path, step: int, state: Mapping[str, Any], progress: Mapping[str, Any], accelerator: Accelerator
) -> Path:
    """Write a checkpoint and return its folder. Called by every process; the first one writes.

    state: tensors, and plain values as `torch.load(weights_only=True)` reads them. The random state of every process is
    added.
    progress: plain values, as JSON.

    Raises:
        ValueError: it can't be written; what was written before is left as it was.
    """
    target = folder / f"{_PREFIX}{step:08d}"
    random_states = gather_object([_random_state(accelerator.device)])
    fault = [""]
    if accelerator.is_main_process:
        told = {**progress, "step": step, "processes": accelerator.num_processes}
        try:
            _write(target, {**state, "random": random_states}, told)
        except (OSError, RuntimeError) as error:
            # torch writes its archive in C++, which answers a full disk with a RuntimeError. Others are not of writing:
            # that a data worker died is told at any moment.
            if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
                raise
            shutil.rmtree(_draft(target), ignore_errors=True)
            fault = [f"Checkpoint {target} can't be written: {_reason(error, folder)}."]
    if accelerator.num_processes > 1:
        fault = broadcast_object_list(fault)
    if fault[0]:
        older = checkpoints(folder)
        last = f"The last one is {older[-1].name}" if older else "There is none yet"
        raise ValueError(f"{fault[0]} {last}. Make room or mend the folder, then go on with --resume auto.")
    return target


def newest(folder: Path, accelerator: Accelerator) -> Path | None:
    """The newest whole checkpoint, the same on every process; None where there is none at all.

    A damaged one is named in a warning, and the one before it is taken.

    Raises:
        ValueError: there are some, and all are damaged.
    """
    found = [_newest(folder)] if accelerator.is_main_process else [None]
    if accelerator.num_processes > 1:
        found = broadcast_object_list(found)
    assert found[0] is not None
    path, faults = found[0]
    if path is None and faults:
        raise ValueError(f"{faults[0]} None of this run's checkpoints is whole. Start anew with --overwrite.")
    if accelerator.is_main_process:
        for fault in faults:
            warnings.warn(f"{fault} The run goes on from the one before it.", stacklevel=2)
    return path


def _newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, and what is wrong with those behind it."""
    faults: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            verify(path)
        except ValueError as error:
            faults.append(str(error))
        else:
            return path, faults
    return None, faults


def verify(path: Path) -> None:
    """Compare a checkpoint's files with their checksums.

    Raises:
        ValueError: a file is missing or damaged; names it.
    """
    try:
        expected = json.loads((path / _CHECKSUMS).read_text())
        wrong = [name for name in (_STATE, _PROGRESS) if _checksum(path / name) != expected[name]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"Checkpoint {path} can't be read: {first_line(error)}.") from error
    if wrong:
        raise ValueError(f"Checkpoint {path} can't be read: its {wrong[0]} is damaged.")


def remove_old(folder: Path, keep: int, also: tuple[int, ...] = ()) -> None:
    """Remove all but the newest `keep` checkpoints and those of the steps `also`."""
    for path in checkpoints(folder)[:-keep]:
        if step_of(path) not in also:
            shutil.rmtree(path)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def step_of(path: Path) -> int:
    """The number of updates that a checkpoint stands behind."""
    return int(path.name.removeprefix(_PREFIX))


def load_progress(path: Path) -> dict[str, Any]:
    """Where the run stood.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        progress = json.loads((path / _PROGRESS).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"Checkpoint {path} can't be read: {first_line(error)}. Remove it to go on from the one before it."
        ) from error
    if not isinstance(progress, dict):
        raise ValueError(f"Checkpoint {path} can't be read: its {_PROGRESS} is no mapping.")
    return progress


def load_state(path: Path) -> dict[str, Any]:
    """Tensors and plain values of a checkpoint, on the CPU; no code is run from the file.

    Raises:
        ValueError: the file is missing or damaged.
    """
    verify(path)
    try:
        check_archive(path / _STATE)
        state: dict[str, Any] = torch.load(path / _STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes fail in the unpickler in many ways
        raise ValueError(
            f"Checkpoint {path} can't be read: its state.pt is damaged, or holds more than tensors and plain values. "
            "Remove it to go on from the one before it."
        ) from error
    return state


def restore_random_state(state: Mapping[str, Any], accelerator: Accelerator) -> None:
    """Set this process's random state to what it was.

    Raises:
        ValueError: the checkpoint was written by another number of processes.
    """
    states = state["random"]
    if len(states) != accelerator.num_processes:
        raise ValueError(
            f"The checkpoint is of {len(states)} processes and this run has {accelerator.num_processes}. "
            "Go on with as many, so that the run stays the same."
        )
    own = states[accelerator.process_index]
    torch.set_rng_state(own["torch"])
    if own["cuda"] is not None:
        torch.cuda.set_rng_state(own["cuda"], accelerator.device)


def _random_state(device: torch.device) -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"torch": torch.get_rng_state(), "cuda": cuda}


def _write(target: Path, state: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
    draft = _draft(target)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    with (draft / _STATE).open("wb") as file:
        torch.save(dict(state), file)
    (draft / _PROGRESS).write_text(json.dumps(progress, indent=1))
    checksums = {name: _checksum(draft / name) for name in (_STATE, _PROGRESS)}
    (draft / _CHECKSUMS).write_text(json.dumps(checksums, indent=1))
    for name in (*checksums, _CHECKSUMS):
        with (draft / name).open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    _sync_folder(target.parent)


def _draft(target: Path) -> Path:
    return target.parent / f".{target.name}.draft"


def _checksum(path: Path) -> str:
    digest = hashlib.blake2b()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def _reason(error: Exception, folder: Path) -> str:
    """Why a file could not be written; torch's own archive does not say that the disk is full."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "no space left on device" if shutil.disk_usage(folder).free < 2**20 else first_line(error)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
