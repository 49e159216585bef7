"""What goes wrong on the way: each is one line with the way out and an exit code, and the run goes on to the same bits.

`FAULTS` is the list: a fault, how it is provoked, the line, the exit code. `ALONE` are those with a test of their own.
"""

import errno
import json
import math
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests import faulty
from tests.commands import ROOT, run_python, snapshot
from tests.faulty import STEP, Fault, at_step, left, train, write_place

AT = "runs/plain/checkpoints/step-0000000"
GO_ON = "Make room or mend the folder, then go on with --resume auto."
FULL = f"runs/plain can't be written: No space left on device. {GO_ON}"


@dataclass(frozen=True)
class Row:
    fault: Fault
    line: str
    code: int = 2
    words: tuple[str, ...] = ()


FAULTS = {
    "the disk is full under a checkpoint": Row(
        faulty.unwritable(errno.ENOSPC, "state.pt"),
        f"Checkpoint {AT}5 can't be written: No space left on device. The last one is step-00000004. {GO_ON}",
    ),
    "under the log": Row(faulty.unwritable(errno.ENOSPC, "metrics.jsonl"), FULL),
    "under the plan": Row(faulty.unwritable(errno.ENOSPC, "plan.txt", start=True), FULL),
    "under the student's config": Row(faulty.unwritable(errno.ENOSPC, "config.json"), FULL),
    "under the student's weights": Row(at_step(faulty.full_under_weights), FULL),
    "under the result": Row(faulty.unwritable(errno.ENOSPC, "result.json"), FULL),
    "under the report": Row(faulty.unwritable(errno.ENOSPC, "report.md"), FULL),
    "the share is full for this user": Row(
        faulty.unwritable(errno.EDQUOT, "metrics.jsonl"), f"runs/plain can't be written: Disk quota exceeded. {GO_ON}"
    ),
    "the folder can't be written from the start": Row(
        faulty.unwritable(errno.EROFS, "runs", start=True),
        "runs/plain can't be written: Read-only file system. Choose another folder with --root.",
    ),
    "it can't be written any more": Row(
        faulty.unwritable(errno.EROFS, "runs"), f"runs/plain can't be written: Read-only file system. {GO_ON}"
    ),
    "the checkpoints can't be written any more": Row(
        faulty.unwritable(errno.EROFS, "checkpoints"),
        f"Checkpoint {AT}5 can't be written: Read-only file system. The last one is step-00000004. {GO_ON}",
    ),
    "a file is where the folder should be": Row(
        lambda: faulty.file_for_folder("runs"),
        "runs/plain can't be written: File exists. Choose another folder with --root.",
    ),
    "a file is where the checkpoints were": Row(
        lambda: faulty.file_for_folder("runs/plain/checkpoints", at=STEP),
        f"Checkpoint {AT}5 can't be written: Not a directory. There is none yet. {GO_ON}",
    ),
    "images become unreadable": Row(
        faulty.damaged_images,
        "Cannot read image data/images/train/bee/SOME.png: image file is truncated. Bring it back, then go on with "
        f"--resume auto. Last good checkpoint: {AT}SOME.",
    ),
    "the data shrank between two runs": Row(
        faulty.fewer_images,
        "The run began with 36 training, 12 validation and 12 test examples, and now there are 35, 12 and 12. Bring "
        "the data back, or start anew with --overwrite.",
        words=("--resume", "auto"),
    ),
    "memory runs out": Row(
        at_step(faulty.out_of_memory),
        "Out of memory in step 5: micro-batches of 12 examples, terms task. Write micro_batch_size=6: the update stays "
        f"the same. Last good checkpoint: {AT}4.",
    ),
    "a loss is NaN": Row(
        at_step(faulty.nan_loss),
        f"The loss of term 'task' is nan at step 5. Last good checkpoint: {AT}4. Lower the learning rate or the term's "
        "weight, or clip the gradient.",
    ),
    **{
        f"{signal.name} is sent": Row(
            faulty.told(signal),
            f"{signal.name} stopped runs/plain behind step 5; it is saved. Go on with --resume auto.",
            code=75,
        )
        for signal in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    },
}
ALONE = {
    "a second run in the same folder": "test_a_second_run_in_the_folder_is_refused_and_the_first_is_unharmed",
    "the clock jumps": "test_a_clock_that_jumps_changes_nothing_and_gives_no_negative_times",
    "a data worker dies": "test_a_worker_that_dies_is_named_and_the_run_goes_on",
    "one of several processes fails": "test_where_one_process_fails_all_end_within_a_minute_with_its_error",
}


def test_each_fault_has_a_test() -> None:
    assert set(ALONE.values()) <= set(globals())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of one test: the recipe and its images."""
    write_place(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL_DATA", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    return tmp_path


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[dict[str, Any]]]:
    """What the run ends with where nothing goes wrong."""
    folder = tmp_path_factory.mktemp("straight")
    write_place(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(warnings, "formatwarning", warnings.formatwarning)
        assert train() == 0
    return left(folder / "runs")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_and_the_run_goes_on_to_the_same_bits(
    name: str, place: Path, straight: tuple[bytes, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    row = FAULTS[name]
    with row.fault():
        capsys.readouterr()
        assert train(*row.words) == row.code
    said = capsys.readouterr().err
    assert re.fullmatch(re.escape(f"distill: {row.line}\n").replace("SOME", ".*"), said), said
    assert train("--resume", "auto") == 0
    assert left(place / "runs") == straight


@pytest.mark.parametrize(("words", "lowered"), [(("--micro-batch-size", "6"), 6), (("--workers", "1"), None)])
def test_what_an_error_says_to_lower_may_change_on_resume(
    words: tuple[str, ...], lowered: int | None, place: Path
) -> None:
    with FAULTS["memory runs out"].fault():
        assert train() == 2
    assert train("--resume", "auto", *words) == 0
    assert json.loads((place / "runs" / "plain" / "recipe.json").read_text())["micro_batch_size"] == lowered
    assert left(place / "runs")[1][-1]["step"] == 9


def test_a_second_run_in_the_folder_is_refused_and_the_first_is_unharmed(
    place: Path, straight: tuple[bytes, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def second(patch: pytest.MonkeyPatch) -> None:
        for words in ((), ("--resume", "auto"), ("--overwrite",)):
            before = snapshot(place / "runs")
            capsys.readouterr()
            assert train(*words) == 2
            said.append(capsys.readouterr().err)
            assert snapshot(place / "runs") == before

    with at_step(second)():
        assert train() == 0
    wanted = "Another run is at work in runs/plain. Wait until it ends, or choose another --name."
    assert said == [f"distill: {wanted}\n"] * 3
    assert left(place / "runs") == straight


class Jumping:
    """All clocks of the process: ten years ahead, ten years behind, before 1970, and a little off."""

    jumps = (3e8, -3e8, -1.9e9, 0.5, -0.5)

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.off, self.count = 0.0, 0
        for name in ("time", "perf_counter", "monotonic", "process_time"):
            real = getattr(time, name)
            patch.setattr(time, name, lambda real=real: real() + self.off)

    def jump(self) -> None:
        self.off = self.jumps[self.count % len(self.jumps)]
        self.count += 1


def numbers(value: Any) -> Iterator[float]:
    """All numbers in nested values."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield value


def test_a_clock_that_jumps_changes_nothing_and_gives_no_negative_times(
    place: Path, straight: tuple[bytes, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It jumps within steps and while waiting for data, between two runs, and while another run holds the folder."""
    clock = Jumping(monkeypatch)
    read = Image.open

    def reading(*arguments: Any, **named: Any) -> Image.Image:
        clock.jump()
        return read(*arguments, **named)

    monkeypatch.setattr(Image, "open", reading)

    def second(patch: pytest.MonkeyPatch) -> None:
        for _ in Jumping.jumps:
            clock.jump()
            assert train("--resume", "auto") == 2
        os.kill(os.getpid(), signal.SIGTERM)

    with at_step(second)():
        assert train() == 75
    assert capsys.readouterr().err.count("Another run is at work in runs/plain.") == len(Jumping.jumps)
    clock.off = -1e9
    assert train("--resume", "auto") == 0
    assert clock.count > 100
    assert left(place / "runs") == straight
    folder = place / "runs" / "plain"
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())][-1] == "step-00000009"
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        timed = [json.loads(line).get(name, 0.0) for name in faulty.TIMED]
        assert all(0 <= value < math.inf for value in timed) and timed[1] <= 1 and timed[2] <= 1, line
    assert json.loads((folder / "report.json").read_text())["outcomes"][0]["seconds"] >= 0
    shown = EventAccumulator(str(folder / "tensorboard"))
    shown.Reload()
    logged = [line["step"] for line in straight[1] if "raw" in line]
    assert [event.step for event in shown.Scalars("raw/task")] == logged


WORKER_DIES = """
from dataclasses import dataclass
from pathlib import Path
import os, signal, time

from tests.tiny import Blobs, plain_recipe


class Images:
    def __init__(self, images):
        self.images, self.seen = images, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.seen += index == 5
        if self.seen == 2 and Path("broken").exists():
            time.sleep(1)  # what it gave before has arrived
            os.kill(os.getpid(), signal.SIGKILL)
        return self.images[index]


@dataclass(frozen=True)
class Dying(Blobs):
    def load(self, seed, mix):
        splits = super().load(seed, mix)
        splits.train.images = Images(splits.train.images)
        return splits


recipe = plain_recipe(data=Dying(augment=False), workers=1, checkpoint_every=1)
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
    assert left(tmp_path / "runs") == left(tmp_path / "straight")


RANK_FAILS = """
import os
import time
from dataclasses import dataclass
from pathlib import Path

from distill import SGD, CrossEntropy, Model, Recipe, Term, main
from tests.tiny import Blobs


@dataclass(frozen=True)
class Falling:
    def factor(self, epoch: float, epochs: int) -> float:
        if 1 < epoch < 2 and os.environ["RANK"] == "1" and Path("broken").exists():
            Path("failed").write_text(str(time.time()))
            raise ValueError("The second process has had enough.")
        return 1.0


recipe = Recipe(
    name="plain",
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
    (tmp_path / "broken").touch()
    words = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    more = {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    done = run_python([*words, "fails.py"], tmp_path, more)
    took = time.time() - float((tmp_path / "failed").read_text())
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("distill") and "warning" not in line]
    assert said[0] == "distill (process 1): The second process has had enough."
    print(f"all ended {took:.1f} seconds behind the failure")
    assert took < 60
    (tmp_path / "broken").unlink()
    for options in (["--resume", "auto"], ["--root", "straight"]):
        done = run_python([*words, "fails.py", *options], tmp_path, more)
        assert done.returncode == 0, done.stderr
    assert left(tmp_path / "runs") == left(tmp_path / "straight")
