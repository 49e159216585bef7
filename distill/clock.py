"""Where the time goes: seconds by part of a run, read late so that measuring does not slow a step down."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch.profiler import record_function

PARTS = ("teacher", "forward", "losses", "backward", "optimizer", "wait", "checkpoints")
"""What the time of training is told by; forward is the student's, wait is for data."""
EVALUATION = "evaluation"
"""Of the student on the validation examples, behind each epoch."""
OTHER = "other"
"""What is none of these."""

# Events that are held before those that the device has passed are read.
_HELD = 1024


def elapsed() -> Callable[[], float]:
    """What tells the seconds since now, and never fewer than before: set back, a clock loses what it was not asked."""
    seen, passed = time.perf_counter(), 0.0

    def tell() -> float:
        nonlocal seen, passed
        before, seen = seen, time.perf_counter()
        passed += max(seen - before, 0.0)
        return passed

    return tell


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Each part's share of all the seconds; all zero where no time has passed."""
    total = sum(seconds.values())
    return {part: (spent / total if total > 0 else 0.0) for part, spent in seconds.items()}


def added(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """The seconds of both, part by part."""
    return {part: one.get(part, 0.0) + other.get(part, 0.0) for part in {**one, **other}}


class Stopwatch:
    """Adds up the seconds spent in named parts; each second is of one part, or of `OTHER`.

    On a GPU it is the device's own time, between events in its queue that are read once the device has passed them:
    what this process does while the device is at work takes none, and what the device waits for is of the part that
    keeps it waiting. Elsewhere it is the clock's, which may be set back.

    named: whether parts are also spans of a profile that is being taken.
    """

    def __init__(self, device: torch.device) -> None:
        self.named = False
        self._on_gpu = device.type == "cuda"
        self._seconds: dict[str, float] = defaultdict(float)
        self._told: dict[str, float] = {}
        self._part = OTHER
        self._now = elapsed()
        self._since = 0.0
        self._passed: list[torch.Event] = []  # to be used again
        self._held: list[tuple[str, torch.Event]] = [(OTHER, self._event())] if self._on_gpu else []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Inside, the time is of this part. Where parts lie within parts, it is of the innermost."""
        before = self._part
        self._turn(name)
        if self.named:
            with record_function(name):
                yield
        else:
            yield
        self._turn(before)

    def spent(self) -> dict[str, float]:
        """Seconds of each part since the start, `OTHER` among them: together all that passed. Waits for the device."""
        self._turn(self._part)
        if self._on_gpu:
            self._held[-1][1].synchronize()
            self._read()
        return {OTHER: 0.0, **self._seconds}

    def read(self) -> dict[str, float]:
        """The same since the last reading."""
        spent = self.spent()
        lap = {part: seconds - self._told.get(part, 0.0) for part, seconds in spent.items()}
        self._told = spent
        return lap

    def _turn(self, part: str) -> None:
        """What follows is of this part."""
        if self._on_gpu:
            self._held.append((part, self._event()))
            if len(self._held) % _HELD == 0:
                self._read()
        else:
            now = self._now()
            self._seconds[self._part] += now - self._since
            self._since = now
        self._part = part

    def _event(self) -> torch.Event:
        event = self._passed.pop() if self._passed else torch.Event("cuda", enable_timing=True)
        event.record()
        return event

    def _read(self) -> None:
        """Take up the time between the events that the device has passed, without waiting for the others."""
        at = 0
        while at + 1 < len(self._held) and self._held[at + 1][1].query():
            (part, start), (_, end) = self._held[at : at + 2]
            self._seconds[part] += start.elapsed_time(end) / 1000
            self._passed.append(start)
            at += 1
        del self._held[:at]
