"""Where the time goes: seconds by part of a step, read late so that measuring does not slow the step down."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


def elapsed() -> Callable[[], float]:
    """What tells the seconds since now, and never fewer than before: set back, a clock loses what it was not asked."""
    seen, passed = time.perf_counter(), 0.0

    def tell() -> float:
        nonlocal seen, passed
        before, seen = seen, time.perf_counter()
        passed += max(seen - before, 0.0)
        return passed

    return tell


class Stopwatch:
    """Adds up the seconds spent in named parts.

    On a GPU a part is timed by device events, which are read only when the seconds are asked for; elsewhere by the
    clock, which may be set back.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.Event, torch.Event]] = []
        self._now = elapsed()
        self._start = 0.0

    @contextmanager
    def device(self, part: str) -> Iterator[None]:
        """Time work that runs on the device."""
        if not self._on_gpu:
            with self.host(part):
                yield
            return
        start, end = torch.Event("cuda", enable_timing=True), torch.Event("cuda", enable_timing=True)
        start.record()
        yield
        end.record()
        self._events.append((part, start, end))

    @contextmanager
    def host(self, part: str) -> Iterator[None]:
        """Time work that this process itself does, such as waiting for data."""
        start = self._now()
        yield
        self._seconds[part] += self._now() - start

    def read(self) -> tuple[float, dict[str, float]]:
        """Seconds since the last reading, and those of each part; starts anew."""
        if self._events:
            torch.cuda.synchronize()
        for part, start, end in self._events:
            self._seconds[part] += start.elapsed_time(end) / 1000
        now = self._now()
        total, parts = now - self._start, dict(self._seconds)
        self._seconds, self._events, self._start = defaultdict(float), [], now
        return total, parts
