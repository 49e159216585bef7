"""A run's folder: what may be written where, and files that are whole or not there."""

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

if sys.platform != "win32":
    import fcntl

from safetensors import SafetensorError

from distill.recipe import Recipe, to_json

# What the system answers to writing alone: the disk or the share is full, not to be written, or the file too large.
_OF_WRITING = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EFBIG") if hasattr(errno, name))

# What may change where a run goes on, since its updates stay the same: what an error says to lower, and when it saves.
_FREE = ("workers", "micro_batch_size", "checkpoint_every", "keep_checkpoints")


def check_folder(folder: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that the run may not write into; what another run wrote is never overwritten unasked.

    Raises:
        ValueError: what is in the folder, and the way out.
    """
    path = folder / "recipe.json"
    if not path.exists():
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise ValueError(
                f"{folder} holds files and is not the folder of a run, so it is left alone. Choose another --name or "
                "--root."
            )
        return
    if overwrite:
        return
    if not resume:
        raise ValueError(
            f"{folder} holds a run already. Go on with --resume auto, start anew with --overwrite, or change --name."
        )
    try:
        before = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}). Change --name, or start anew with --overwrite.") from error
    if changed := _changed(_kept(before), _kept(json.loads(to_json(recipe)))):
        raise ValueError(
            f"{folder} holds a run of another recipe ({changed}), so it can't be resumed with this one. "
            "Change --name, or start anew with --overwrite."
        )


def open_folder(folder: Path, recipe: Recipe, *, overwrite: bool) -> None:
    """Make the run's folder, once all else was found to fit; `overwrite` removes what was there.

    Raises:
        ValueError: it can't be written.
    """
    try:
        if overwrite and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "recipe.json", to_json(recipe))
    except OSError as error:
        raise ValueError(f"{folder} can't be written: {error.strerror}. Choose another folder with --root.") from error


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Inside, no other run may use the folder; the system lets go of it where the process is killed.

    On Windows there is no such lock.

    Raises:
        ValueError: another run holds it, or a file can't be written inside, because the disk is full or such.
    """
    path = folder.parent / f".{folder.name}.lock"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(path)
    except BlockingIOError:
        raise ValueError(f"Another run is at work in {folder}. Wait until it ends, or choose another --name.") from None
    except OSError as error:
        raise ValueError(f"{folder} can't be written: {error.strerror}. Choose another folder with --root.") from error
    with lock:
        try:
            yield
        except (OSError, SafetensorError) as error:
            number = _number(error)
            if number is None or number not in _OF_WRITING:
                raise
            raise ValueError(
                f"{folder} can't be written: {os.strerror(number)}. Make room or mend the folder, then go on with "
                "--resume auto."
            ) from error
        finally:
            with suppress(OSError):  # a file that stays holds nobody: the lock is the open file's
                path.unlink(missing_ok=True)


def _locked(path: Path) -> IO[str]:
    """The file, locked. Raises: BlockingIOError: another process has the lock."""
    while True:
        lock = path.open("a")
        if sys.platform == "win32":
            return lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise
        # The run before may have removed the file between the two.
        if path.exists() and path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
            return lock
        lock.close()


def _number(error: OSError | SafetensorError) -> int | None:
    """The system's number of an error; safetensors tells it as text, `(os error 28)`."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def write_whole(path: Path, text: str) -> None:
    """Write a whole file or none of it."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)


def _kept(recipe: Any) -> Any:
    """A recipe without the settings that may change on resume."""
    return {name: value for name, value in recipe.items() if name not in _FREE} if isinstance(recipe, dict) else recipe


def _changed(before: Any, now: Any, path: str = "") -> str:
    """The first setting in which two recipes differ, with both values; empty where they are the same."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*now, *(key for key in before if key not in now)]:
            if found := _changed(before.get(key), now.get(key), f"{path}.{key}" if path else str(key)):
                return found
        return ""
    return "" if before == now else f"{path}: {before} there, {now} here"
