"""A checkpoint is whole or not there, runs no code when it is read, and brings the random state back to the bit."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from distill import checkpoint
from tests.tiny import on_cpu

WEIGHT = [1.5, -3.25, float("-inf")]
STATE = {
    "learner": {"weight": torch.tensor(WEIGHT), "count": torch.tensor(3)},
    "optimizer": {"state": {0: {"step": 4}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0]}]},
    "average": None,
}


def save(folder: Path, step: int, **progress: Any) -> Path:
    return checkpoint.save(folder, step, STATE, {"epoch": 1, **progress}, on_cpu())


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = save(tmp_path, 120, best={"accuracy": 0.5})
    assert path == tmp_path / "step-00000120"
    assert {file.name for file in path.iterdir()} == {"state.pt", "progress.json", "checksums.json"}
    assert checkpoint.load_progress(path) == {"epoch": 1, "best": {"accuracy": 0.5}, "step": 120, "processes": 1}
    state = checkpoint.load_state(path)
    assert torch.equal(state["learner"]["weight"], STATE["learner"]["weight"])
    assert int(state["learner"]["count"]) == 3
    assert state["optimizer"] == STATE["optimizer"] and state["average"] is None


def test_checkpoints_are_listed_oldest_first_by_their_step(tmp_path: Path) -> None:
    steps = [1_000, 9, 20]
    for step in steps:
        save(tmp_path, step)
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)] == [9, 20, 1_000]
    assert checkpoint.checkpoints(tmp_path / "none") == []


class Crash(Exception):
    pass


@pytest.mark.parametrize("moment", ["before state.pt", "within state.pt", "before progress.json", "before the rename"])
def test_a_crash_leaves_what_was_there_and_at_most_a_draft(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = save(tmp_path, 1)

    def crash(*args: Any, **kwargs: Any) -> None:
        raise Crash

    def half(state: Any, file: Any) -> None:
        file.write(b"PK half")
        raise Crash

    with monkeypatch.context() as patch:
        match moment:
            case "before state.pt":
                patch.setattr(torch, "save", crash)
            case "within state.pt":
                patch.setattr(torch, "save", half)
            case "before progress.json":
                patch.setattr(checkpoint.json, "dumps", crash)
            case "before the rename":
                patch.setattr(Path, "rename", crash)
        with pytest.raises(Crash):
            save(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {before.name, ".step-00000002.draft"}
    assert checkpoint.checkpoints(tmp_path) == [before]
    checkpoint.load_state(before)
    # The next one takes the draft's place.
    assert [*checkpoint.checkpoints(tmp_path), save(tmp_path, 2)] == checkpoint.checkpoints(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {before.name, "step-00000002"}


def test_all_is_on_the_disk_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[int | str] = []
    sync, rename = os.fsync, Path.rename

    def synced(handle: int) -> None:
        events.append(os.fstat(handle).st_ino)
        sync(handle)

    def renamed(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    path = save(tmp_path, 1)
    places = (path / "state.pt", path / "progress.json", path / "checksums.json", tmp_path)
    files = [place.stat().st_ino for place in places]
    assert events == [*files[:3], "rename", files[3]]


def test_the_newest_whole_checkpoint_is_found_and_damaged_ones_are_named(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path, on_cpu()) is None
    first, second, third = (save(tmp_path, step) for step in (1, 2, 3))
    assert checkpoint.newest(tmp_path, on_cpu()) == third
    (third / "checksums.json").unlink()
    (second / "progress.json").write_text("{}")
    with pytest.warns(UserWarning, match="goes on from the one before it") as said:
        assert checkpoint.newest(tmp_path, on_cpu()) == first
    assert [third.name in str(said[0].message), second.name in str(said[1].message)] == [True, True]
    (first / "state.pt").unlink()
    with pytest.raises(ValueError, match=r"step-00000003 can't be read: .*None of this run's checkpoints is whole"):
        checkpoint.newest(tmp_path, on_cpu())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"), "PytorchStreamWriter"),
    ],
)
def test_a_checkpoint_that_cant_be_written_is_one_line_and_leaves_the_last_one(
    error: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = save(tmp_path, 1)

    def fail(state: Any, file: Any) -> None:
        file.write(b"PK half")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(ValueError, match=rf"step-00000002 can't be written: {said}.*The last one is step-00000001"):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == [before.name]
    checkpoint.load_state(before)


@pytest.mark.parametrize(
    ("keep", "also", "left"),
    [
        (1, (), [50]),
        (2, (), [40, 50]),
        (1, (20,), [20, 50]),
        (2, (50,), [40, 50]),
        (9, (), [10, 20, 30, 40, 50]),
        (1, (7,), [50]),
    ],
)
def test_old_checkpoints_go_and_the_newest_and_the_best_stay(
    keep: int, also: tuple[int, ...], left: list[int], tmp_path: Path
) -> None:
    for step in (10, 20, 30, 40, 50):
        (tmp_path / f"step-{step:08d}").mkdir()
        (tmp_path / f"step-{step:08d}" / "progress.json").write_text("{}")
    checkpoint.remove_old(tmp_path, keep, also)
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)] == left


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.mkdir, (str(self.trace),))


def test_no_code_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    path, trace = save(tmp_path, 1), tmp_path / "trace"
    torch.save({**STATE, "evil": Malicious(trace)}, path / "state.pt")
    torch.load(path / "state.pt", weights_only=False)
    assert trace.is_dir(), "the file does run code when it is let"
    trace.rmdir()
    with pytest.raises(ValueError, match="step-00000001"):
        checkpoint.load_state(path)
    # Nor where whoever wrote it wrote checksums to it.
    sums = {name: checkpoint._checksum(path / name) for name in ("state.pt", "progress.json")}
    (path / "checksums.json").write_text(json.dumps(sums))
    checkpoint.verify(path)
    with pytest.raises(ValueError, match="holds more than tensors"):
        checkpoint.load_state(path)
    assert not trace.exists()


def damaged(whole: bytes) -> dict[str, bytes]:
    """A file of tensors in states that a full disk, a broken copy or another program leaves it in."""
    weight = torch.tensor(WEIGHT).numpy().tobytes()
    assert whole.count(weight) == 1 and whole.count(b"_rebuild_tensor_v2") == 1
    return {
        "empty": b"",
        "first half": whole[: len(whole) // 2],
        "without its end": whole[:-1],
        "text": b"not a checkpoint\n",
        "zeros": bytes(len(whole)),
        "a pickle alone": b"\x80\x02K\x01.",
        "a cut pickle alone": b"\x80\x02}q\x00(X",
        "another name in the pickle": whole.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v9"),
        "one wrong bit in a tensor": whole.replace(weight, bytes([weight[0] ^ 1]) + weight[1:]),
    }


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "first half",
        "without its end",
        "text",
        "zeros",
        "a pickle alone",
        "a cut pickle alone",
        "another name in the pickle",
        "one wrong bit in a tensor",
    ],
)
def test_a_damaged_state_is_one_line_that_names_the_checkpoint(kind: str, tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "state.pt").write_bytes(damaged((path / "state.pt").read_bytes())[kind])
    with pytest.raises(ValueError) as refused:
        checkpoint.load_state(path)
    message = str(refused.value)
    assert str(path) in message and "state.pt is damaged" in message
    assert "\n" not in message


def test_a_missing_state_names_the_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "state.pt").unlink()
    with pytest.raises(ValueError, match=r"step-00000001 can't be read: .*state\.pt"):
        checkpoint.load_state(path)


@pytest.mark.parametrize("text", ["", "{", "\xff\xfe", '{"epoch": '])
def test_damaged_progress_names_the_checkpoint(text: str, tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "progress.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=r"step-00000001.*can't be read: .*Remove it") as refused:
        checkpoint.load_progress(path)
    assert "\n" not in str(refused.value)


def test_the_random_state_comes_back_to_the_bit(tmp_path: Path) -> None:
    torch.manual_seed(3)
    torch.randn(5)
    path = save(tmp_path, 1)
    drawn = torch.randn(4), torch.rand(3)
    torch.manual_seed(99)
    checkpoint.restore_random_state(checkpoint.load_state(path), on_cpu())
    assert torch.equal(torch.randn(4), drawn[0]) and torch.equal(torch.rand(3), drawn[1])


def test_saving_leaves_the_random_state_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    save(tmp_path, 1)
    assert torch.equal(torch.randn(4), expected)


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    state = checkpoint.load_state(save(tmp_path, 1))
    with pytest.raises(ValueError, match="is of 2 processes and this run has 1"):
        checkpoint.restore_random_state({**state, "random": state["random"] * 2}, on_cpu())


def test_a_checkpoint_of_the_same_step_is_replaced_whole(tmp_path: Path) -> None:
    path = save(tmp_path, 1, epoch=1)
    (path / "stray").write_text("")
    save(tmp_path, 1, epoch=2)
    assert checkpoint.load_progress(path)["epoch"] == 2
    assert not (path / "stray").exists()
