"""Saving and restoring what can change in a run: learner, optimizer, average, random state, place. Never the teacher.

A checkpoint is a folder `step-00000120` with `state.pt` (tensors and plain values) and `progress.json` (where the run
stands). It is
written beside its place, synced, then renamed, and only then are older ones removed: there is always one that is whole.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

_PREFIX = "step-"


def save(
    folder: Path, step: int, state: Mapping[str, Any], progress: Mapping[str, Any], accelerator: Accelerator
) -> Path:
    """Write a checkpoint and return its folder. Called by every process; the first one writes.

    state: tensors, and plain values as `torch.load(weights_only=True)` reads them. The random state of every process is
    added.
    progress: plain values, as JSON.
    """
    target = folder / f"{_PREFIX}{step:08d}"
    random_states = gather_object([_random_state(accelerator.device)])
    if accelerator.is_main_process:
        draft = folder / f".{target.name}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        _write(draft / "state.pt", {**state, "random": random_states})
        with (draft / "progress.json").open("w") as file:
            json.dump({**progress, "step": step, "processes": accelerator.num_processes}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
        _sync_folder(folder)
    accelerator.wait_for_everyone()
    return target


def remove_old(folder: Path, keep: int, also: tuple[int, ...] = ()) -> None:
    """Remove all but the newest `keep` checkpoints and those of the steps `also`."""
    for path in checkpoints(folder)[:-keep]:
        if step_of(path) not in also:
            shutil.rmtree(path)


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / "progress.json").is_file())


def step_of(path: Path) -> int:
    """The number of updates that a checkpoint stands behind."""
    return int(path.name.removeprefix(_PREFIX))


def load_progress(path: Path) -> dict[str, Any]:
    """Where the run stood.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        progress: dict[str, Any] = json.loads((path / "progress.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Checkpoint {path} can't be read: {error}. Remove it to go on from the one before it."
        ) from error
    return progress


def load_state(path: Path) -> dict[str, Any]:
    """Tensors and plain values of a checkpoint, on the CPU; no code is run from the file.

    Raises:
        ValueError: the file is missing or damaged.
    """
    file = path / "state.pt"
    if not file.is_file():
        raise ValueError(f"Checkpoint {path} has no state.pt. Remove it to go on from the one before it.")
    try:
        with zipfile.ZipFile(file) as archive:  # torch.save writes checksums, and torch.load does not look at them
            if name := archive.testzip():
                raise zipfile.BadZipFile(f"{name} has another checksum.")
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
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


def _write(path: Path, state: Mapping[str, Any]) -> None:
    with path.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
