"""What checkpoints within an epoch cost, and whether memory stays level under them, as a table and as JSON.

python benchmarks/checkpoints.py [--pairs 7] [--steps 21] [--out benchmarks/results/checkpoints.json]

Cost: whole runs of one epoch of random images, with a checkpoint every 20 updates and with none. Runs take turns and
the order within a pair alternates, so that a drifting machine hurts both sides alike: the ratios are of seconds by the
clock, and of the process's own, in which other programs count little, but waiting for the disk does not count at all.
So there is the share too: the seconds spent in writing, by part, over all others of the same run. The bar: 5 %.

Memory: what the process holds in memory (resident set) behind update 200 and behind update 2,000 of one run with a
checkpoint every 20 updates and a validation every 500, in a process that did nothing before. The bar: 1 % more.
"""

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table

from distill import KD, SGD, Arrays, CrossEntropy, Mix, Model, Recipe, Term, checkpoint
from distill.bar import Bar
from distill.data import Splits
from distill.fit import fit_arm
from distill.measure import machine, versions
from distill.prepare import Parts, prepare
from distill.view import View

BATCH, CLASSES, VALIDATION, EVERY = 64, 10, 64, 20
EARLY, LATE, EPOCHS = 200, 2_000, 4
WALL, CPU, WRITING = "wall", "cpu", "writing"
PARTS = ("archive", "checksums", "sync", "removal")


@dataclass(frozen=True)
class Noise:
    """Random images (N, channels, side, side) of random classes, of which `steps` batches are to train on."""

    steps: int
    channels: int
    side: int

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits."""
        total = BATCH * self.steps + 2 * VALIDATION
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (total, self.channels, self.side, self.side), dtype=torch.uint8, generator=draw)
        labels = torch.arange(total) % CLASSES
        view = View(mean=(0.5,) * self.channels, std=(0.25,) * self.channels)
        names, share = tuple(map(str, range(CLASSES))), VALIDATION / total
        return Arrays(images, labels, names, validation=share, test=share, view=view).load(seed, mix)


def recipe(teacher: Model, student: Model, data: Noise, *, epochs: int = 1) -> Recipe:
    return Recipe(
        name="checkpoints",
        data=data,
        teacher=teacher,
        student=student,
        plan={"task": Term(CrossEntropy(), weight=0.1), "kd": Term(KD(temperature=4.0), weight=0.9)},
        optimizer=SGD(lr=1e-3, momentum=0.9, weight_decay=5e-4),
        epochs=epochs,
        batch_size=BATCH,
    )


def subjects(steps: int) -> dict[str, Recipe]:
    """Runs by name: the pair of the cost of a step, and the demo's, whose steps are the cheapest that there are."""
    large, small = Model("distill.models.cifar:resnet32x4"), Model("distill.models.cifar:resnet8x4")
    half = Model("distill.models.cifar:resnet8", arguments={"width": 8})
    return {
        "ResNet-32x4 to ResNet-8x4, 3x32x32": recipe(large, small, Noise(steps, 3, 32)),
        "ResNet-8x4 to half a ResNet-8, 1x8x8": recipe(small, half, Noise(20 * steps, 1, 8)),
    }


@contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """Inside, the seconds of writing checkpoints add up, in all and by part."""

    def watched(part: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return act(*arguments, **named)
            finally:
                seconds[part] += time.perf_counter() - start

        return run

    places = (
        (checkpoint, "save", WRITING),
        (checkpoint, "remove_old", "removal"),
        (torch, "save", "archive"),
        (checkpoint, "_checksum", "checksums"),
        (os, "fsync", "sync"),
    )
    with ExitStack() as stack:
        for place, name, part in places:
            stack.enter_context(mock.patch.object(place, name, watched(part, getattr(place, name))))
        yield


def quiet() -> Bar:
    return Bar(Console(file=io.StringIO()), "", shows=False)


def parts_of(one: Recipe) -> Parts:
    return prepare(one, one.data.load(0, None), 0, Path("runs"))


def run(one: Recipe) -> dict[str, float]:
    """Seconds from behind a run's first update to its end, by the clock and of this process, and of its writing.

    The run ends with its validation; the checkpoint behind that, which each run writes, is left out.
    """
    spent: dict[str, float] = defaultdict(float)
    ticks, begin, end = 0, dict[str, float](), dict[str, float]()

    def now() -> dict[str, float]:
        return {**spent, WALL: time.perf_counter(), CPU: time.process_time()}

    def tick(examples: int) -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 2:  # the first one tells what was done before the run
            begin.update(now())

    bar = quiet()
    bar.tick = tick  # type: ignore[method-assign]
    bar.line = lambda line: end.update(now()) if "validation" in line else None  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder, timed(spent):
        fit_arm(parts_of(one), Path(folder), Accelerator(cpu=True), seed=0, resume=False, bar=bar)
    steps = one.data.steps  # type: ignore[attr-defined]
    assert ticks == steps + 1
    return {part: end.get(part, 0.0) - begin.get(part, 0.0) for part in (WALL, CPU, WRITING, *PARTS)}


def compare(name: str, one: Recipe, pairs: int) -> dict[str, Any]:
    sides = {"without": one, "with": replace(one, checkpoint_every=EVERY)}
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for pair in range(pairs):
        for side in sides if pair % 2 else reversed(sides):
            found[side].append(run(sides[side]))
    steps = one.data.steps - 1  # type: ignore[attr-defined]
    number = steps // EVERY
    both = list(zip(found["with"], found["without"], strict=True))
    shares = [(a[WRITING] + a["removal"]) / (a[WALL] - a[WRITING] - a["removal"]) for a in found["with"]]
    return {
        "run": name,
        "pairs": pairs,
        "steps": steps,
        "checkpoints": number,
        "wall_ratio_median": statistics.median(a[WALL] / b[WALL] for a, b in both),
        "wall_ratios": [a[WALL] / b[WALL] for a, b in both],
        "cpu_ratio_median": statistics.median(a[CPU] / b[CPU] for a, b in both),
        "cpu_ratios": [a[CPU] / b[CPU] for a, b in both],
        "share_median": statistics.median(shares),
        "share_highest": max(shares),
        "step_seconds": statistics.median(b[WALL] / steps for b in found["without"]),
        "checkpoint_seconds": statistics.median((a[WRITING] + a["removal"]) / number for a in found["with"]),
        "part_seconds": {part: statistics.median(a[part] / number for a in found["with"]) for part in PARTS},
    }


def memory() -> dict[str, float]:
    """Bytes resident behind two updates of one run."""
    one = next(reversed(subjects(LATE // EPOCHS // 20).values()))
    resident: list[int] = []
    bar = quiet()
    bar.tick = lambda examples: resident.append(psutil.Process().memory_info().rss)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        changed = replace(one, epochs=EPOCHS, checkpoint_every=EVERY)
        fit_arm(parts_of(changed), Path(folder), Accelerator(cpu=True), seed=0, resume=False, bar=bar)
    # The first reading is of the run's beginning, before an update.
    early, late, most = resident[EARLY], resident[LATE], max(resident[EARLY:])
    return {"early_bytes": early, "late_bytes": late, "growth": late / early - 1, "most": most / early - 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="pairs of runs, with and without; default: 7")
    parser.add_argument("--steps", type=int, default=21, help="updates of a run, 20 times as many of cheap ones")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "checkpoints.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    held = memory()
    rows = [compare(name, one, options.pairs) for name, one in subjects(options.steps).items()]
    table = Table(title=f"A checkpoint every {EVERY} updates, batch {BATCH}, one thread, {options.pairs} pairs")
    for column in ("run", "clock", "process", "share", "ms each", *PARTS, "ms a step"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for row in rows:
        parts = (f"{1000 * row['part_seconds'][part]:.1f}" for part in PARTS)
        table.add_row(
            row["run"],
            f"{row['wall_ratio_median']:.3f}",
            f"{row['cpu_ratio_median']:.3f}",
            f"{row['share_median']:.2%}",
            f"{1000 * row['checkpoint_seconds']:.1f}",
            *parts,
            f"{1000 * row['step_seconds']:.1f}",
        )
    Console(width=120).print(table)
    print(
        f"Memory: {held['early_bytes'] / 2**20:.1f} MiB behind update {EARLY}, {held['growth']:+.2%} behind {LATE}, "
        f"at most {held['most']:+.2%} between."
    )
    result = {"every": EVERY, "batch": BATCH, "threads": 1, "rows": rows, "memory": held, "load": os.getloadavg()}
    options.out.write_text(json.dumps({**result, "machine": machine(), "versions": versions()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
