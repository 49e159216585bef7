"""Times of all ways at one batch and number of threads, taken in turns; and what a pass holds in memory."""

import math
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch._inductor import config as inductor
from torch.profiler import ProfilerActivity, profile

from distill.cost.subject import Subject
from distill.cost.ways import OF_ONNX, Way
from distill.measure import multiply_adds, parameters
from distill.messages import first_line
from distill.taps import Inputs

# What a block of passes takes at least, so that the clock's own error stays far below a hundredth.
_BLOCK_SECONDS = 0.02
_WARM_UP = 2


@dataclass(frozen=True)
class Row:
    """What one way costs at one batch and number of threads.

    seconds: of a pass, the median of blocks in which all ways took turns. spread: between their quartiles.
    memory: bytes of the weights and of all that torch allocates at the peak of a pass; None where it can't be told.
    ready_seconds: of building and trying it on two examples, with the export to ONNX. first_seconds: of the first pass
    at this batch, with the compilation for it. multiply_adds: of one example; None where they can't be counted.
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
    ready_seconds: float | None
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


@dataclass(frozen=True)
class _Started:
    """A way that has run at a batch. passes: in a block."""

    way: Way
    inputs: Inputs
    first_seconds: float
    memory: int | None
    passes: int


def measure(
    ways: Sequence[Way],
    batch: int,
    threads: int,
    device: torch.device,
    *,
    rounds: int,
    tick: Callable[[], None] = lambda: None,
) -> list[Row]:
    """A row for each way; what fails at this batch is told in its row, and the others go on.

    rounds: two or more. tick: called behind each.
    """
    torch.set_num_threads(threads)
    if any(way.way == "compiled" for way in ways):
        torch.compiler.reset()  # so that the first pass compiles, even at the batch on which a way was tried
    failed: dict[int, str] = {}
    started: dict[int, _Started] = {}
    for way in ways:
        try:
            if way.run is not None:
                started[id(way)] = _start(way, batch, device)
        except Exception as error:  # out of memory, or a model that takes no such batch: others may do
            failed[id(way)] = f"failed at batch {batch}: {first_line(error)}"
    seconds: dict[int, list[float]] = {key: [] for key in started}
    order = random.Random(0)
    for _ in range(rounds):
        for key in sorted(started, key=lambda _: order.random()):
            try:
                one = started[key]
                seconds[key].append(_timed(one.way, one.inputs, one.passes, device))
            except Exception as error:
                failed[key] = f"failed at batch {batch}: {first_line(error)}"
                del started[key]
        tick()
    adds = {subject.name: _counted(subject) for subject in {id(way.subject): way.subject for way in ways}.values()}
    return [
        _row(way, batch, threads, device, started.get(id(way)), seconds.get(id(way), []), adds[way.subject.name], note)
        for way, note in ((way, failed.get(id(way), "")) for way in ways)
    ]


def _start(way: Way, batch: int, device: torch.device) -> _Started:
    """Run it for the first time at a batch; its inputs are made and moved here, so that no later pass has to."""
    inputs = way.prepare(way.subject.inputs(batch))
    if way.way == "compiled":
        # What an earlier process compiled and kept would make the first pass look cheap; torch warns of its absence.
        with warnings.catch_warnings(), inductor.patch(force_disable_caches=True):
            warnings.filterwarnings("ignore", message=".*force_disable_caches", category=UserWarning)
            first = _timed(way, inputs, 1, device)
    else:
        first = _timed(way, inputs, 1, device)
    return _Started(way, inputs, first, _peak(way, inputs, device), _passes(way, inputs, device))


def _counted(subject: Subject) -> int | None:
    try:
        return multiply_adds(subject.model, subject.inputs(1))
    except Exception:  # a model that fails at one example; the rows tell it
        return None


def _row(
    way: Way,
    batch: int,
    threads: int,
    device: torch.device,
    started: _Started | None,
    seconds: Sequence[float],
    adds: int | None,
    failure: str,
) -> Row:
    quarters = None if started is None else statistics.quantiles(seconds, n=4, method="inclusive")
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
        memory=None if started is None else started.memory,
        seconds=None if quarters is None else quarters[1],
        spread=None if quarters is None else quarters[2] - quarters[0],
        ready_seconds=None if way.run is None else way.ready_seconds,
        first_seconds=None if started is None else started.first_seconds,
        apart=way.apart if started is not None and math.isfinite(way.apart) else None,
        quality=None if subject.quality != subject.quality else subject.quality,
        quality_spread=None if subject.spread != subject.spread else subject.spread,
        metric=subject.metric,
        note=failure or way.note,
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
    """Weights, and what torch allocates at the peak of a pass, its inputs apart; ONNX Runtime does not tell it."""
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
