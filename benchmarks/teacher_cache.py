"""What the teacher cache saves, and how it grows: interleaved steps and synthetic logits, as JSON.

python benchmarks/teacher_cache.py [--pairs 12] [--out benchmarks/results/teacher_cache.json]

Steps: ResNet32x4 to ResNet8x4 at batch 64, 32x32, by answers and by answers and a hint. A hand-written loop with a live
teacher, the trainer reading the cache, and the trainer's student alone (cross-entropy, no teacher at all) take their
steps in turn on the same batches, out of a training set of 640 images that is cached before. Seconds are the process's
own on one thread.

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
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from step import BATCH, PLANS, VIEW, by_hand, models
from torch import Tensor

from distill.batch import Batch
from distill.losses import CrossEntropy
from distill.measure import machine, versions
from distill.plan import Plan, Term, connect
from distill.teacher_cache import Cache, Form
from distill.trainer import Trainer

EXAMPLES = 640
Step = Callable[[Tensor, Tensor, Tensor], None]


def trainer_of(plan: Plan, cache: Cache | None) -> Trainer:
    teacher, student = models()
    sample = Batch(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    asked = any(term.needs_teacher for term in plan.values())
    guide, learner = connect(
        teacher if asked else None, student, plan, sample, teacher_view=VIEW.module(), student_view=VIEW.module()
    )
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    prepared, prepared_optimizer = accelerator.prepare(learner, optimizer)
    prepared.train()
    return Trainer(accelerator, guide, prepared, plan, prepared_optimizer, cache=cache)


def with_cache(name: str, folder: Path, images: Tensor, labels: Tensor) -> Step:
    forms = {
        "logits": Form("float16", (100,)),
        **({"layer2": Form("float16", (128, 16, 16))} if "hint" in name else {}),
    }
    cache = Cache(folder / name, forms, examples=EXAMPLES, views=1)
    trainer = trainer_of(PLANS[name], cache)

    def step(images: Tensor, labels: Tensor, index: Tensor) -> None:
        trainer.step([cache.with_kept(Batch(images, labels, index), 0)])
        trainer.lines.rows.clear()

    for which in torch.arange(EXAMPLES).split(BATCH):
        step(images[which], labels[which], which)
    cache.keep()
    cache.refresh()
    assert cache.kept() == EXAMPLES
    return step


def alone() -> Step:
    trainer = trainer_of({"task": Term(CrossEntropy())}, None)

    def step(images: Tensor, labels: Tensor, index: Tensor) -> None:
        trainer.step([Batch(images, labels, index)])
        trainer.lines.rows.clear()

    return step


def compare(name: str, pairs: int, folder: Path) -> dict[str, object]:
    images = torch.randint(0, 256, (EXAMPLES, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, 100, (EXAMPLES,))
    live = by_hand(name)
    steps: dict[str, Step] = {
        "by hand, live teacher": lambda images, labels, index: live(images, labels),
        "cache": with_cache(name, folder, images, labels),
        "student alone": alone(),
    }
    seconds: dict[str, list[float]] = {key: [] for key in steps}
    for pair in range(pairs + 1):
        which = torch.randperm(EXAMPLES)[:BATCH]
        for key in random.sample(list(steps), len(steps)):
            start = time.process_time()
            steps[key](images[which], labels[which], which)
            if pair:
                seconds[key].append(time.process_time() - start)
    ratios = {
        "cache over student alone": ("cache", "student alone"),
        "live by hand over cache": ("by hand, live teacher", "cache"),
    }
    medians = {
        told: statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))
        for told, (over, under) in ratios.items()
    }
    print(f"{name:20} " + "  ".join(f"{told} {ratio:.3f}" for told, ratio in medians.items()), flush=True)
    return {"plan": name, "pairs": pairs, **medians, "seconds": {k: statistics.median(v) for k, v in seconds.items()}}


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
        sizes = [
            (1_000, 100, None),
            (60_000, 100, None),
            (20_000, 10, None),
            (20_000, 1_000, None),
            (100_000, 1_000, 16),
        ]
        growing = [growth(*size, folder) for size in sizes]
        steps = [compare(plan, options.pairs, folder) for plan in ("logits", "logits + hint")]
    per_example = float(growing[-1]["bytes_on_disk_per_example"])  # type: ignore[arg-type]
    result = {
        "pair": "resnet32x4 to resnet8x4",
        "batch": BATCH,
        "steps": steps,
        "growth": growing,
        "megabytes_of_1.28_million_at_top_16": 1.28 * per_example,
        "load": os.getloadavg(),
    }
    print(f"1.28 million examples of 1,000 classes at top 16: {1.28 * per_example:.0f} MB a view")
    options.out.write_text(json.dumps({**result, "machine": machine(), "versions": versions()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
