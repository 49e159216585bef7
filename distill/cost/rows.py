"""Times of all ways at one batch and number of threads, taken in turns; and what a pass holds in memory."""

import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

from distill.cost.ways import OF_ONNX, Way
from distill.measure import multiply_adds, parameters
from distill.taps import Inputs

# What a block of passes takes at least, so that the clock's own error stays far below a hundredth.
_BLOCK_SECONDS = 0.02
_WARM_UP = 2


@dataclass(frozen=True)
class Row:
    """What one way costs at one batch and number of threads.

    seconds: of a pass, the median of blocks in which all ways took turns. spread: between their quartiles.
    memory: bytes of the weights and of all that a pass holds at its peak; None where it can't be told.
    multiply_adds: of one example; None where they can't be counted.
    apart: the largest difference of logits from the eager float32 model's. note: what is to be known of it.
    """

    name: str
    subject: str
    way: str
    precision: str
    batch: int
    threads: int
    device: str
    parameters: int
    multiply_adds: int | None
    bytes: int
    memory: int | None
    seconds: float | None
    spread: float | None
    first_seconds: float | None
    apart: float | None
    quality: float | None
    quality_spread: float | None
    metric: str
    note: str

    @property
    def throughput(self) -> float | None:
        """Examples a second."""
        return None if self.seconds is None else self.batch / self.seconds


def measure(
    ways: Sequence[Way],
    batch: int,
    threads: int,
    device: torch.device,
    *,
    rounds: int,
    tick: Callable[[], None] = lambda: None,
) -> list[Row]:
    """A row for each way. tick: called behind each round."""
    torch.set_num_threads(threads)
    runnable = [(way, way.subject.inputs(batch)) for way in ways if way.run is not None]
    memory = {id(way): _peak(way, inputs, device) for way, inputs in runnable}
    blocks = {id(way): _passes(way, inputs, device) for way, inputs in runnable}
    seconds: dict[int, list[float]] = {id(way): [] for way, _ in runnable}
    order = random.Random(0)
    for _ in range(rounds):
        for way, inputs in order.sample(runnable, len(runnable)):
            seconds[id(way)].append(_timed(way, inputs, blocks[id(way)], device))
        tick()
    adds = {way.subject.name: multiply_adds(way.subject.model, way.subject.inputs(1)) for way in ways}
    return [
        _row(way, batch, threads, device, seconds.get(id(way)), memory.get(id(way)), adds[way.subject.name])
        for way in ways
    ]


def _row(
    way: Way,
    batch: int,
    threads: int,
    device: torch.device,
    seconds: list[float] | None,
    memory: int | None,
    adds: int | None,
) -> Row:
    quarters = None if seconds is None else statistics.quantiles(seconds, n=4, method="inclusive")
    known = way.run is not None
    subject = way.subject
    return Row(
        name=way.name,
        subject=subject.name,
        way=way.way,
        precision=way.precision,
        batch=batch,
        threads=threads,
        device=device.type,
        parameters=parameters(subject.model),
        multiply_adds=adds,
        bytes=way.bytes,
        memory=memory,
        seconds=None if quarters is None else quarters[1],
        spread=None if quarters is None else quarters[2] - quarters[0],
        first_seconds=way.first_seconds if known else None,
        apart=way.apart if known else None,
        quality=None if subject.quality != subject.quality else subject.quality,
        quality_spread=None if subject.spread != subject.spread else subject.spread,
        metric=subject.metric,
        note=way.note,
    )


def _passes(way: Way, inputs: Inputs, device: torch.device) -> int:
    for _ in range(_WARM_UP):
        once = _timed(way, inputs, 1, device)
    return max(1, round(_BLOCK_SECONDS / max(once, 1e-7)))


def _timed(way: Way, inputs: Inputs, passes: int, device: torch.device) -> float:
    """Seconds of a pass in a block of so many."""
    assert way.run is not None
    with torch.inference_mode():
        _wait(device)
        began = time.perf_counter()
        for _ in range(passes):
            way.run(inputs)
        _wait(device)
        return (time.perf_counter() - began) / passes


def _peak(way: Way, inputs: Inputs, device: torch.device) -> int | None:
    """Weights, and what torch allocates at most during a pass; ONNX Runtime does not tell it."""
    if way.way in OF_ONNX or way.run is None:
        return None
    with torch.inference_mode():
        way.run(inputs)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            way.run(inputs)
            return int(torch.cuda.max_memory_allocated(device)) - before + way.bytes
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would write about its own start, and that there is no GPU
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            way.run(inputs)
    results = None if profiler.profiler is None else profiler.profiler.kineto_results
    if results is None:
        return None
    events = sorted((one for one in results.events() if one.name() == "[memory]"), key=lambda one: one.start_ns())
    return way.bytes + max([0, *accumulate(int(one.nbytes()) for one in events)])


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
