"""What the teacher cache saves, and how it grows: interleaved steps and synthetic logits, as JSON.

python benchmarks/teacher_cache.py [--pairs 12] [--out benchmarks/results/teacher_cache.json]

Steps: ResNet32x4 to ResNet8x4 at batch 64, 32x32, by answers and by answers and a hint. A hand-written loop with a live
teacher, the trainer reading the cache, the trainer with the same terms against targets in memory, and the trainer's
student alone (cross-entropy, no teacher at all) take their steps in turn on batches out of a training set of 640 images
that is cached before. Seconds are the process's own on one thread. And a step of a ResNet8x4 from a cache of 60,000
examples against one of 1,000, and of 1,000 classes against 10.

Growth: logits of 10 to 1,000 classes of 1,000 to 60,000 examples are written and read back in shuffled batches of 64;
and the 16 largest of 1,000 of 100,000 examples: their size on disk, and what the process holds in memory for them.
"""

import argparse
import gc
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from pairs import CIFAR, LOGITS, VIEW, by_hand, images, models
from torch import Tensor

from distill.batch import Batch
from distill.losses import CrossEntropy
from distill.measure import machine, versions
from distill.models.cifar import resnet8x4
from distill.plan import Plan, Term, connect
from distill.teacher_cache import Cache, Form
from distill.trainer import Trainer

EXAMPLES, BATCH = 640, 64
Step = Callable[[Batch], object]


def trainer_of(plan: Plan, cache: Cache | None, classes: int = 100) -> Trainer:
    teacher, student = models(CIFAR) if classes == 100 else (resnet8x4(num_classes=classes) for _ in range(2))
    sample = images(32, 4, classes)
    asked = any(term.needs_teacher for term in plan.values())
    guide, learner = connect(
        teacher if asked else None, student, plan, sample, teacher_view=VIEW.module(), student_view=VIEW.module()
    )
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    prepared, prepared_optimizer = accelerator.prepare(learner, optimizer)
    prepared.train()
    return Trainer(accelerator, guide, prepared, plan, prepared_optimizer, cache=cache)


def step_of(trainer: Trainer) -> Step:
    def step(batch: Batch) -> None:
        trainer.step([batch])
        trainer.lines.rows.clear()

    return step


def with_cache(name: str, folder: Path, data: Batch) -> Step:
    forms = {
        "logits": Form("float16", (100,)),
        **({"layer2": Form("float16", (128, 16, 16))} if "hint" in name else {}),
    }
    cache = Cache(folder / name, forms, examples=EXAMPLES, views=1)
    step = step_of(trainer_of(CIFAR.plan(name), cache))
    for which in torch.arange(EXAMPLES).split(BATCH):
        step(cache.with_kept(data.rows(which), 0))
    cache.keep()
    cache.refresh()
    assert cache.kept() == EXAMPLES
    return lambda batch: step(cache.with_kept(batch, 0))


def alone(name: str) -> Step:
    """The student, with what else the plan trains and compares, but against targets in memory: no teacher, no disk."""
    trainer = trainer_of(CIFAR.plan(name), None)
    drawn = {"logits": torch.randn(BATCH, 100), "layer2": torch.randn(BATCH, 128, 16, 16)}
    taps = trainer.teacher.tapped.taps if trainer.teacher is not None else ()
    trainer._teach = lambda batch: {tap: drawn[tap] for tap in taps}  # type: ignore[method-assign]
    return step_of(trainer)


def in_turn(
    steps: Mapping[str, Step], batches: Mapping[str, Callable[[], Batch]], pairs: int
) -> dict[str, list[float]]:
    """Seconds of each step, in rounds of changing order."""
    seconds: dict[str, list[float]] = {key: [] for key in steps}
    for pair in range(pairs + 1):
        for key in random.sample(list(steps), len(steps)):
            batch = batches[key]()
            start = time.process_time()
            steps[key](batch)
            if pair:
                seconds[key].append(time.process_time() - start)
    return seconds


def compare(name: str, pairs: int, folder: Path) -> dict[str, object]:
    data = images(32, EXAMPLES)
    bare = step_of(trainer_of({"task": Term(CrossEntropy())}, None))
    steps: dict[str, Step] = {
        "by hand, live teacher": by_hand(CIFAR, name),
        "cache": with_cache(name, folder, data),
        "targets in memory": alone(name),
        "student alone": bare,
    }
    drawn = lambda: data.rows(torch.randperm(EXAMPLES)[:BATCH])  # noqa: E731
    seconds = in_turn(steps, dict.fromkeys(steps, drawn), pairs)
    ratios = {
        "cache over student alone": ("cache", "student alone"),
        "cache over targets in memory": ("cache", "targets in memory"),
        "live by hand over cache": ("by hand, live teacher", "cache"),
    }
    medians = {
        told: statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))
        for told, (over, under) in ratios.items()
    }
    print(f"{name:20} " + "  ".join(f"{told} {ratio:.3f}" for told, ratio in medians.items()), flush=True)
    return {"plan": name, "pairs": pairs, **medians, "seconds": {k: statistics.median(v) for k, v in seconds.items()}}


def sizes(pairs: int, folder: Path) -> dict[str, object]:
    """Time of a step from the cache: 60,000 examples over 1,000, and 1,000 classes over 10."""
    made = {(1_000, 100), (60_000, 100), (1_000, 10), (1_000, 1_000)}
    steps: dict[str, Step] = {}
    batches: dict[str, Callable[[], Batch]] = {}
    for examples, classes in sorted(made):
        cache = Cache(
            folder / f"step-{examples}-{classes}", {"logits": Form("float16", (classes,))}, examples=examples, views=1
        )
        for which in torch.arange(examples).split(1_000):
            kept = cache.with_kept(Batch(which, which, which), 0).kept
            assert kept is not None
            cache.add(kept, {"logits": torch.randn(len(which), classes)})
        cache.keep()
        cache.refresh()
        step = step_of(trainer_of(LOGITS, cache, classes))
        key = f"{examples} examples, {classes} classes"
        pixels = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8)

        def draw(examples: int = examples, classes: int = classes, pixels: Tensor = pixels) -> Batch:
            return Batch(pixels, torch.randint(0, classes, (BATCH,)), torch.randperm(examples)[:BATCH])

        def take(batch: Batch, cache: Cache = cache, step: Step = step) -> None:
            step(cache.with_kept(batch, 0))

        steps[key], batches[key] = take, draw
    seconds = in_turn(steps, batches, pairs)
    ratios = {
        "60,000 over 1,000 examples": ("60000 examples, 100 classes", "1000 examples, 100 classes"),
        "1,000 over 10 classes": ("1000 examples, 1000 classes", "1000 examples, 10 classes"),
    }
    medians = {
        told: statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))
        for told, (over, under) in ratios.items()
    }
    print("a step from the cache: " + "  ".join(f"{told} {ratio:.3f}" for told, ratio in medians.items()), flush=True)
    return {**medians, "seconds": {k: statistics.median(v) for k, v in seconds.items()}}


def resident() -> int:
    """Bytes of the process that are its own, without pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


def growth(examples: int, classes: int, top: int | None, folder: Path) -> dict[str, object]:
    form = Form("float16", (classes,), top)
    cache = Cache(folder / f"{examples}-{classes}-{top}", {"logits": form}, examples=examples, views=1)
    logits = torch.randn(4096, classes)
    start = time.process_time()
    for which in torch.randperm(examples).split(64):
        batch = cache.with_kept(Batch(which, which, which), 0)
        assert batch.kept is not None
        cache.add(batch.kept, {"logits": logits[which % 4096]})
    cache.keep()
    written = time.process_time() - start
    folder_of = cache.folder
    del cache, batch
    gc.collect()
    before, times = resident(), []
    cache = Cache(folder_of, {"logits": form}, examples=examples, views=1)
    for which in torch.randperm(examples)[:20_000].split(64):
        start = time.process_time()
        batch = cache.with_kept(Batch(which, which, which), 0)
        assert batch.kept is not None
        cache.read(batch.kept)
        times.append((time.process_time() - start) / len(which))
    size = sum(path.stat().st_size for path in cache.folder.rglob("*") if path.is_file())
    row = {
        "examples": examples,
        "classes": classes,
        "top": top,
        "microseconds_read": 1e6 * statistics.median(times),
        "microseconds_written": 1e6 * written / examples,
        "bytes_on_disk_per_example": size / examples,
        "bytes_in_memory_per_example": max(resident() - before, 0) / examples,
    }
    print(
        "  ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
        ),
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "teacher_cache.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = [
            (1_000, 100, None),
            (60_000, 100, None),
            (20_000, 10, None),
            (20_000, 1_000, None),
            (100_000, 1_000, 16),
        ]
        growing = [growth(*size, folder) for size in measured]
        by_size = sizes(options.pairs, folder)
        steps = [compare(plan, options.pairs, folder) for plan in ("logits", "logits + hint")]
    per_example = float(growing[-1]["bytes_on_disk_per_example"])  # type: ignore[arg-type]
    result = {
        "pair": "resnet32x4 to resnet8x4",
        "batch": BATCH,
        "steps": steps,
        "growth": growing,
        "step": by_size,
        "megabytes_of_1.28_million_at_top_16": 1.28 * per_example,
        "load": os.getloadavg(),
    }
    print(f"1.28 million examples of 1,000 classes at top 16: {1.28 * per_example:.0f} MB a view")
    options.out.write_text(json.dumps({**result, "machine": machine(), "versions": versions()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
