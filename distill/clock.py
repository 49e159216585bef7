"""Where the time goes: seconds by part of a step, read late so that measuring does not slow the step down."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up the seconds spent in named parts.

    On a GPU a part is timed by device events, which are read only when the seconds are asked for; elsewhere by the
    clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.Event, torch.Event]] = []
        self._start = time.perf_counter()

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
        start = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - start

    def read(self) -> tuple[float, dict[str, float]]:
        """Seconds since the last reading, and those of each part; starts anew."""
        if self._events:
            torch.cuda.synchronize()
        for part, start, end in self._events:
            self._seconds[part] += start.elapsed_time(end) / 1000
        now = time.perf_counter()
        total, parts = now - self._start, dict(self._seconds)
        self._seconds, self._events, self._start = defaultdict(float), [], now
        return total, parts
