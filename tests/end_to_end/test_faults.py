"""What goes wrong on the way: each is one line with the way out, and the run goes on where it stood."""

import errno
import io
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from distill.bar import Bar
from distill.data import Mix, Splits
from distill.data.images import UnreadableImageError
from distill.fit import fit_arm
from distill.recipe import Recipe
from distill.run import Options, train
from tests.commands import ROOT, run_python
from tests.tiny import Blobs, on_cpu, parts_of, plain_recipe


class Images:
    """The images of `Blobs`, of which one does something else after some time."""

    def __init__(self, images: Tensor, act: Callable[[], None], number: int) -> None:
        self.images, self.act, self.number = images, act, number

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> Tensor:
        if index == self.number:
            self.act()
        return self.images[index]


@dataclass(frozen=True)
class Failing:
    """`Blobs` with an image that breaks in the second epoch while the file `broken` says so."""

    broken: str
    how: str

    def load(self, seed: int, mix: Mix | None) -> Splits:
        splits = Blobs(augment=False).load(seed, mix)
        seen: list[None] = []

        def act() -> None:
            seen.append(None)
            if Path(self.broken).exists() and len(seen) > (1 if self.how == "dies" else 3):
                if self.how == "unreadable":
                    raise UnreadableImageError("Cannot read image film.png: truncated.")
                os.kill(os.getpid(), signal.SIGKILL)

        splits.train.images = Images(splits.train.images, act, 5)  # type: ignore[assignment, arg-type]
        return splits


def run(recipe: Recipe, root: Path, *, resume: bool = False) -> None:
    train(recipe, Options(root=root, resume=resume), Console(file=io.StringIO(), width=100))


def weights(root: Path) -> bytes:
    return (root / "plain" / "student" / "model.safetensors").read_bytes()


def test_an_image_that_can_not_be_read_any_more_is_named_and_the_run_goes_on(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    recipe = plain_recipe(data=Failing(str(broken), "unreadable"), checkpoint_every=1)
    broken.touch()
    with pytest.raises(ValueError, match=r"Cannot read image film\.png: truncated"):
        run(recipe, tmp_path / "runs")
    broken.unlink()
    run(recipe, tmp_path / "runs", resume=True)
    run(recipe, tmp_path / "straight")
    assert weights(tmp_path / "runs") == weights(tmp_path / "straight")


WORKER_DIES = """
from tests.end_to_end.test_faults import Failing
from tests.tiny import plain_recipe

recipe = plain_recipe(data=Failing("broken", "dies"), workers=1, checkpoint_every=1)
"""


@pytest.mark.slow
def test_a_worker_that_dies_is_named_and_the_run_goes_on(tmp_path: Path) -> None:
    """In a process of its own: the worker is forked from it, and from pytest it would inherit too much."""
    (tmp_path / "dies.py").write_text(WORKER_DIES)
    (tmp_path / "broken").touch()
    command = ["-m", "distill", "train", "dies.py"]
    failed = run_python(command, tmp_path)
    assert failed.returncode == 2, failed.stderr
    said = failed.stderr.splitlines()[-1]
    assert said.startswith("distill: A process that loads data died") and "Last good checkpoint: " in said
    (tmp_path / "broken").unlink()
    for more in (["--resume", "auto"], ["--root", "straight"]):
        done = run_python([*command, *more], tmp_path)
        assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "runs") == weights(tmp_path / "straight")


def test_a_full_disk_stops_with_what_to_do_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, save, saved = plain_recipe(checkpoint_every=1), torch.save, []

    def full(state: object, file: object) -> None:
        saved.append(None)
        if len(saved) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(ValueError, match=r"step-00000005 can't be written: No space left .* go on with --resume"):
            run(recipe, tmp_path / "runs")
    run(recipe, tmp_path / "runs", resume=True)
    run(recipe, tmp_path / "straight")
    assert weights(tmp_path / "runs") == weights(tmp_path / "straight")


class Hungry(Bar):
    """Runs out of memory in the second step, as a larger batch may."""

    def tick(self, examples: int) -> None:
        super().tick(examples)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_out_of_memory_says_what_to_lower(tmp_path: Path) -> None:
    recipe = plain_recipe(micro_batch_size=8)
    bar = Hungry(Console(file=io.StringIO()), "plain", shows=False)
    bar.begin = lambda examples: None  # type: ignore[method-assign]
    wanted = r"Out of memory in step .*: micro-batches of 8 examples, terms task\. Write micro_batch_size=4"
    parts = parts_of(recipe)
    tick, bar.tick = bar.tick, lambda examples: tick(examples) if examples else None  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=wanted):
        fit_arm(parts, tmp_path, on_cpu(), seed=0, resume=False, bar=bar)


RANK_FAILS = """
import os
from dataclasses import dataclass

from distill import SGD, CrossEntropy, Model, Recipe, Term, main
from tests.tiny import Blobs


@dataclass(frozen=True)
class Falling:
    def factor(self, epoch: float, epochs: int) -> float:
        if 1 < epoch < 2 and os.environ["RANK"] == "1":
            raise ValueError("The second process has had enough.")
        return 1.0


recipe = Recipe(
    name="fails",
    data=Blobs(),
    student=Model("tests.tiny:net"),
    plan={"task": Term(CrossEntropy())},
    optimizer=SGD(lr=0.05),
    schedule=Falling(),
    epochs=3,
    batch_size=12,
)

if __name__ == "__main__":
    main(recipe)
"""


@pytest.mark.slow
def test_where_one_process_fails_all_end_within_a_minute_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text(RANK_FAILS)
    began = time.monotonic()
    words = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    done = run_python([*words, "fails.py"], tmp_path, {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)})
    assert done.returncode != 0
    assert "distill (process 1): The second process has had enough." in done.stderr
    assert time.monotonic() - began < 120  # with the start of three interpreters
