"""The rows of a run's taps, read before a step and written behind it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.batch import Batch, Kept
from distill.teacher_cache.forms import Form
from distill.teacher_cache.key import RECORD
from distill.teacher_cache.rows import Numbers, Rows

# Micro-batches whose answers wait on the device, so that a step does not wait for them.
_WAITING = 4


class Cache:
    """The teacher's answers to one data set, for some taps.

    folder: of this teacher, data set and transforms alone. forms: {tap: how its value is kept}.
    examples: how many there are to train on. views: of each. depends_on: {what the answers depend on: its state}.
    tokens: which of a batch's inputs tells the length of its texts; None for images.
    """

    def __init__(
        self,
        folder: Path,
        forms: Mapping[str, Form],
        *,
        examples: int,
        views: int,
        depends_on: Mapping[str, str] | None = None,
        tokens: str | None = None,
    ) -> None:
        self.folder, self.forms, self.examples, self.views = folder, dict(forms), examples, views
        self._depends_on = dict(depends_on or {})
        self._tokens = tokens
        self._rows = {
            tap: Rows(folder / _folder_name(tap, form), form.bytes, examples * views) for tap, form in forms.items()
        }
        self._waiting: list[tuple[Numbers, dict[str, Tensor], torch.cuda.Event | None]] = []

    def with_kept(self, batch: Batch, epoch: int) -> Batch:
        """A batch on the CPU with what is kept for it in this epoch."""
        numbers = (epoch % self.views) * self.examples + batch.index.numpy().astype(np.int64)
        rows = None
        if all(of_tap.has(numbers).all() for of_tap in self._rows.values()):
            rows = {tap: torch.from_numpy(of_tap.read(numbers)) for tap, of_tap in self._rows.items()}
        length = None
        if self._tokens is not None and not isinstance(batch.inputs, Tensor):
            length = batch.inputs[self._tokens].shape[1]
        return batch.with_kept(Kept(numbers, rows, length))

    def read(self, kept: Kept) -> dict[str, Tensor]:
        """The answers of a batch that has them all, float32."""
        assert kept.rows is not None
        return {tap: form.unpack(kept.rows[tap], kept.length) for tap, form in self.forms.items()}

    def add(self, kept: Kept, answers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take in the teacher's answers to a batch; gives them as they will be read, so that both are the same.

        Raises:
            ValueError: those of a batch before can't be written or kept in their form.
        """
        packed = {tap: form.pack(answers[tap].detach()) for tap, form in self.forms.items()}
        rows = {tap: tensor.to("cpu", non_blocking=True) for tap, tensor in packed.items()}
        event = None
        if any(tensor.is_cuda for tensor in packed.values()):
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._waiting.append((kept.numbers, rows, event))
        if len(self._waiting) > _WAITING:
            self._write()
        return {tap: form.unpack(packed[tap], kept.length) for tap, form in self.forms.items()}

    def keep(self) -> None:
        """Make all that was added safe on the disk.

        Raises:
            ValueError: it can't be written or kept in its form.
        """
        self._write()
        try:
            for rows in self._rows.values():
                rows.keep()
        except OSError as error:
            raise ValueError(self._no_room(error)) from error

    def refresh(self) -> None:
        """See what the other processes have kept."""
        for rows in self._rows.values():
            rows.refresh()

    def kept(self) -> int:
        """How many views of examples need no teacher."""
        return min(rows.count() for rows in self._rows.values())

    @property
    def bytes(self) -> int:
        """What one view of one example takes."""
        return sum(form.bytes for form in self.forms.values())

    def record(self, name: str) -> None:
        """Note what the answers depend on and which run asked, for the next one of that name that asks what changed."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            draft = self.folder / f".{RECORD}.{os.getpid()}"
            draft.write_text(json.dumps({"name": name, "parts": self._depends_on}, indent=1))
            draft.replace(self.folder / RECORD)
        except OSError as error:
            raise ValueError(self._no_room(error)) from error

    def _write(self) -> None:
        try:
            for numbers, rows, event in self._waiting:
                if event is not None:
                    event.synchronize()
                for tap, tensor in rows.items():
                    self._check(tap, tensor)
                    missing = ~self._rows[tap].has(numbers)
                    self._rows[tap].add(numbers[missing], tensor.numpy()[missing])
        except OSError as error:
            raise ValueError(self._no_room(error)) from error
        self._waiting.clear()

    def _check(self, tap: str, rows: Tensor) -> None:
        if not self.forms[tap].unpack(rows).isfinite().all():
            raise ValueError(
                f"The teacher's '{tap}' is NaN, infinite or above what {self.forms[tap].kind} holds. Write "
                "--teacher_cache.form bfloat16 or float32, or leave teacher_cache out."
            )

    def _no_room(self, error: OSError) -> str:
        return (
            f"The teacher cache {self.folder} can't be written: {error.strerror or error}. Make room, set "
            "$DISTILL_CACHE to another place, or leave teacher_cache out, then go on with --resume auto."
        )


def _folder_name(tap: str, form: Form) -> str:
    top = "" if form.top is None else f"-top{form.top}"
    return f"{tap.replace('/', '_').replace(':', '@')}-{form.kind}{top}"
