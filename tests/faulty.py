"""A run in which something goes wrong at the beginning of a chosen step, as a recipe file for the command line.

Each fault is a context: inside it is there, or comes at its step; behind it all is mended.
"""

import errno
import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from distill.batch import Batch
from distill.cli import run_command
from distill.data import ImageFolder
from distill.losses import CrossEntropy
from distill.models import weights
from distill.plan import Term
from distill.trainer.lines import SHARES
from tests.tiny import plain_recipe

STEPS = 3  # of an epoch, of which there are three
STEP = 5  # at whose beginning it happens
TIMED = ("examples_per_second", *SHARES)
acts: dict[int, Callable[[], None]] = {}
"""What happens once, at the beginning of a step; steps count from 1, and the first of an epoch can't be chosen."""
loss_factor = 1.0


@dataclass(frozen=True)
class Acting:
    """A constant rate; being asked for it tells the step."""

    def factor(self, epoch: float, epochs: int) -> float:
        if epoch % 1:  # whole epochs are asked for when the recipe is checked, too
            acts.pop(round(epoch * STEPS) + 1, lambda: None)()
        return 1.0


@dataclass(frozen=True)
class Scaled(CrossEntropy):
    """A loss that may become NaN."""

    def __call__(self, student: Tensor, teacher: object, batch: Batch) -> Tensor:
        return super().__call__(student, teacher, batch) * loss_factor


recipe = plain_recipe(
    data=ImageFolder("images", validation=0.2, test=0.2, size=8),
    plan={"task": Term(Scaled())},
    schedule=Acting(),
    checkpoint_every=1,
    log_every=2,
    keep_checkpoints=2,
)


def write_place(place: Path) -> None:
    """The recipe file `faulty.py`, and sixty images of three classes, of which 36 are trained on."""
    (place / "faulty.py").write_text("from tests.faulty import recipe as recipe\n")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("ant", "bee", "cat")):
        for number in range(20):
            pixels = rng.integers(0, 160, (8, 8, 3), dtype=np.uint8)
            pixels[2 * label] += 60
            path = place / "data" / "images" / "train" / name / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def train(*words: str) -> int:
    """The exit code of `distill train faulty.py WORDS`."""
    return run_command(["train", "faulty.py", *words])


def left(root: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """What a run ended with: the student's weights, and the log without what depends on the machine's pace."""
    folder = root / "plain"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    log = [{name: value for name, value in line.items() if name not in TIMED} for line in lines]
    return (folder / "student" / "model.safetensors").read_bytes(), log


# Faults

Fault = Callable[[], AbstractContextManager[None]]


def at_step(act: Callable[[pytest.MonkeyPatch], None]) -> Fault:
    """What is done at the step, or patched from there on."""

    @contextmanager
    def fault() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            acts[STEP] = lambda: act(patch)
            yield
        acts.clear()

    return fault


def unwritable(number: int, *parts: str, start: bool = False) -> Fault:
    """Files in whose path is one of these parts can't be written, nor folders made; from the start, or the step on."""

    def meant(path: Path) -> bool:
        return any(part in str(path) for part in parts)

    def act(patch: pytest.MonkeyPatch) -> None:
        open_file, mkdir, unlink = Path.open, Path.mkdir, Path.unlink

        def refuse(path: Path) -> None:
            if meant(path):
                raise OSError(number, os.strerror(number), str(path))

        def opened(self: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
            if set(mode) & set("wax+"):
                refuse(self)
            return open_file(self, mode, *more, **named)

        def made(self: Path, *more: Any, **named: Any) -> None:
            refuse(self)
            mkdir(self, *more, **named)

        def unlinked(self: Path, *more: Any, **named: Any) -> None:
            refuse(self)
            unlink(self, *more, **named)

        patch.setattr(Path, "open", opened)
        patch.setattr(Path, "mkdir", made)
        patch.setattr(Path, "unlink", unlinked)

    if not start:
        return at_step(act)

    @contextmanager
    def fault() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            act(patch)
            yield

    return fault


def full_under_weights(patch: pytest.MonkeyPatch) -> None:
    """As safetensors answers a full disk."""

    def save(*arguments: object, **named: object) -> None:
        raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(errno.ENOSPC)} (os error 28)")

    patch.setattr(weights, "save_file", save)


@contextmanager
def file_for_folder(folder: str, *, at: int | None = None) -> Iterator[None]:
    """A file lies where a folder should be, which no rights of root write through."""
    place, aside = Path(folder), Path("aside")

    def act() -> None:
        if place.exists():
            place.rename(aside)
        place.write_text("a file")

    acts.update({} if at is None else {at: act})
    if at is None:
        act()
    yield
    place.unlink()
    if aside.exists():
        aside.rename(place)


@contextmanager
def damaged_images() -> Iterator[None]:
    """Each image of a class is cut off from the step on."""
    whole = {path: path.read_bytes() for path in Path("data/images/train/bee").iterdir()}

    def act() -> None:
        for path, data in whole.items():
            path.write_bytes(data[: len(data) // 2])

    acts[STEP] = act
    yield
    for path, data in whole.items():
        path.write_bytes(data)


@contextmanager
def fewer_images() -> Iterator[None]:
    """The run was stopped before, and since then an image is gone."""
    path = Path("data/images/train/bee/07.png")
    with told(signal.SIGTERM)():
        assert train() == 75
    data = path.read_bytes()
    path.unlink()
    yield
    path.write_bytes(data)


def out_of_memory(patch: pytest.MonkeyPatch) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def nan_loss(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tests.faulty.loss_factor", math.nan)


def told(number: signal.Signals) -> Fault:
    return at_step(lambda patch: os.kill(os.getpid(), number))
