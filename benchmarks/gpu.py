"""What a GPU does in a step of transfer: examples per second and the share of its bf16 peak, as JSON.

python benchmarks/gpu.py [--rounds 5] [--steps 20] [--out benchmarks/results/gpu.json]

Three pairs: ResNet-50 to ResNet-18 at 224x224, BERT-base to 4 layers at 128 tokens, and the literature's ResNet32x4 to
ResNet8x4 at 32x32. The weights are random, which changes no cost, and the batches lie on the device: no data is waited
for. Each way is the median of its rounds, one way after the other; compiling is timed apart.

The peak is the fastest of several bf16 products of 8192x8192 matrices. Work is counted as the teacher's forward pass
and three times the student's (two for the backward pass), two operations for each multiply-add.
"""

import argparse
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50
from transformers import BertConfig, BertForSequenceClassification

from distill.batch import Batch
from distill.heads import Conv1x1, Linear
from distill.losses import KD, CrossEntropy, HiddenState, Hint
from distill.measure import machine, multiply_adds, versions
from distill.models.cifar import resnet8x4, resnet32x4
from distill.plan import Plan, Term, connect
from distill.recipe import Speed
from distill.speed import quicken, warn_of_not_recorded
from distill.taps import Tapped, taken
from distill.teacher_cache import Cache, Form
from distill.trainer import Trainer

TASK: Plan = {"task": Term(CrossEntropy(), weight=0.1), "kd": Term(KD(temperature=4.0), weight=0.9)}


@dataclass(frozen=True)
class Pair:
    """What is trained from what, and on what."""

    teacher: Callable[[], nn.Module]
    student: Callable[[], nn.Module]
    plan: Plan
    batch: Callable[[], Batch]


@dataclass(frozen=True)
class Way:
    """How a step is run.

    compiled: the learner with its heads, by the launcher. speed: what a recipe says of it.
    teacher: whether there is one; without it the student learns from labels alone. answers: no hint, only the teacher's
    logits. cached: they come from the teacher cache, whose rows are read and copied to the device in each step.
    """

    precision: Literal["no", "bf16", "fp16"] = "bf16"
    compiled: bool = False
    speed: Speed | None = None
    channels_last: bool = False
    teacher: bool = True
    answers: bool = False
    cached: bool = False


def bert(layers: int) -> nn.Module:
    return BertForSequenceClassification(BertConfig(num_hidden_layers=layers))


def images(count: int, side: int, classes: int) -> Batch:
    inputs = torch.randn(count, 3, side, side)
    return Batch(inputs, torch.randint(0, classes, (count,)), torch.arange(count))


def sentences(count: int, length: int) -> Batch:
    ids = torch.randint(1000, 30_000, (count, length))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return Batch(inputs, torch.randint(0, 2, (count,)), torch.arange(count), torch.ones_like(ids, dtype=torch.bool))


PAIRS = {
    "resnet50 to resnet18, 224x224": Pair(
        resnet50,
        resnet18,
        {**TASK, "hint": Term(Hint(), 1.0, "layer3", "layer3", Conv1x1())},
        lambda: images(256, 224, 1000),
    ),
    "bert-base to 4 layers, 128 tokens": Pair(
        lambda: bert(12),
        lambda: bert(4),
        {**TASK, "hidden": Term(HiddenState(), 1.0, "bert.encoder.layer.3", "bert.encoder.layer.11", Linear())},
        lambda: sentences(256, 128),
    ),
    "resnet32x4 to resnet8x4, 32x32": Pair(
        lambda: resnet32x4(num_classes=100),
        lambda: resnet8x4(num_classes=100),
        {**TASK, "hint": Term(Hint(), 1.0, "layer2", "layer2", Conv1x1())},
        lambda: images(64, 32, 100),
    ),
}
COMPILED, GRAPHS = Speed(compile="both"), Speed(compile="both", cuda_graphs=True)
WAYS = {
    "float32": Way(precision="no"),
    "fp16": Way(precision="fp16"),
    "bf16": Way(),
    "bf16, channels last": Way(channels_last=True),
    "bf16, compiled student": Way(compiled=True),
    "bf16, compiled student, channels last": Way(compiled=True, channels_last=True),
    "bf16, no teacher": Way(teacher=False),
    "bf16, channels last, answers": Way(channels_last=True, answers=True),
    "bf16, channels last, cached answers": Way(channels_last=True, answers=True, cached=True),
    "bf16, channels last, no teacher": Way(channels_last=True, teacher=False),
    "bf16, both compiled": Way(speed=COMPILED),
    "bf16, both compiled, CUDA graphs": Way(speed=GRAPHS),
    "bf16, both compiled, channels last": Way(speed=COMPILED, channels_last=True),
    "bf16, both compiled, channels last, CUDA graphs": Way(speed=GRAPHS, channels_last=True),
    "bf16, channels last, CUDA graphs, cached answers": Way(
        speed=GRAPHS.without_teacher(), channels_last=True, answers=True, cached=True
    ),
}


def trainer_of(pair: Pair, way: Way, cache: Cache | None = None) -> Trainer:
    torch.manual_seed(0)
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=way.precision, dynamo_backend="inductor" if way.compiled else "no")
    teacher, student, plan = pair.teacher(), pair.student(), pair.plan
    if way.answers:
        plan = TASK
    if not way.teacher:
        plan = {"task": Term(CrossEntropy())}
    guide, learner = connect(teacher if way.teacher else None, student, plan, pair.batch().rows(slice(2)))
    form = torch.channels_last if way.channels_last else torch.preserve_format
    learner.to(accelerator.device).to(memory_format=form)  # type: ignore[call-overload]
    if guide is not None:
        guide.to(accelerator.device).to(memory_format=form)  # type: ignore[call-overload]
    quicken(guide, learner, way.speed)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.01, momentum=0.9)
    prepared, prepared_optimizer = accelerator.prepare(learner, optimizer)
    prepared.train()
    return Trainer(accelerator, guide, prepared, plan, prepared_optimizer, cache=cache)


def cache_of(pair: Pair, examples: int) -> Cache:
    """A cache of random logits for one batch."""
    one = pair.batch().rows(slice(1))
    logits = Tapped(pair.student(), ("logits",))(one.inputs)["logits"]
    form = Form("float16", tuple(logits.shape[1:]))
    cache = Cache(Path(tempfile.mkdtemp()), {"logits": form}, examples=examples, views=1)
    filled = cache.with_kept(Batch(torch.arange(examples), torch.arange(examples), torch.arange(examples)), 0)
    assert filled.kept is not None
    cache.add(filled.kept, {"logits": torch.randn(examples, *form.shape)})
    cache.keep()
    cache.refresh()
    return cache


def with_rows(cache: Cache, batch: Batch, numbers: Tensor) -> Batch:
    """The batch on the device, with its rows read from the disk and copied there."""
    kept = cache.with_kept(Batch(numbers, numbers, numbers), 0).to(batch.index.device).kept
    assert kept is not None
    return batch.with_kept(kept)


def operations(pair: Pair, way: Way) -> float:
    """Floating-point operations of a step."""
    batch = pair.batch()
    one = batch.rows(slice(1))
    student, teacher = (
        multiply_adds(model, taken(model, one.inputs)) or 0 for model in (pair.student(), pair.teacher())
    )
    return 2.0 * len(batch) * (3 * student + (teacher if way.teacher and not way.cached else 0))


def peak() -> float:
    """Operations per second of bf16 matrix products."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(10):
        seconds = timed(lambda: a @ b, 10)
        best = max(best, 2 * 8192**3 / seconds)
    return best


def timed(run: Callable[[], object], times: int) -> float:
    """Seconds of one run, by the device's own clock."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / times


def rows_of(
    name: str, pair: Pair, ways: Mapping[str, Way], rounds: int, steps: int, at_most: float
) -> list[dict[str, object]]:
    batch, numbers = pair.batch().to(torch.device("cuda")), pair.batch().index
    rows = []
    for key, way in ways.items():
        # One at a time: Accelerate has one state, so a teacher runs in the precision of the last accelerator made.
        cache = cache_of(pair, len(batch)) if way.cached else None
        trainer = trainer_of(pair, way, cache)

        def run(trainer: Trainer = trainer, cache: Cache | None = cache) -> None:
            trainer.step([batch if cache is None else with_rows(cache, batch, numbers)])
            trainer.lines.rows.clear()

        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        for _ in range(3):
            run()
        torch.cuda.synchronize()
        first = time.perf_counter() - began
        warn_of_not_recorded(way.speed)
        seconds = [timed(run, steps) for _ in range(rounds)]
        middle = statistics.median(seconds)
        row = {
            "pair": name,
            "way": key,
            "batch": len(batch),
            "seconds": middle,
            "spread": (max(seconds) - min(seconds)) / middle,
            "examples_per_second": len(batch) / middle,
            "share_of_peak": operations(pair, way) / middle / at_most,
            "first_three_steps_seconds": first,
            "peak_memory_bytes": torch.cuda.max_memory_allocated(),
        }
        rows.append(row)
        print(
            f"{name:36} {key:40} {row['examples_per_second']:10,.0f}/s  {row['share_of_peak']:6.1%} of the peak  "
            f"first steps {first:5.1f} s",
            flush=True,
        )
        trainer.accelerator.free_memory()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of a way")
    parser.add_argument("--steps", type=int, default=20, help="steps of a way in a round")
    parser.add_argument("--ways", default="", help="run only the ways whose name fits this pattern, as 'answers'")
    parser.add_argument("--pairs", default="", help="run only the pairs whose name fits this pattern, as 'bert'")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device here.")
    at_most = peak()
    print(f"{torch.cuda.get_device_name()}: {at_most / 1e12:.0f} TFLOP/s in bf16", flush=True)
    rows: list[dict[str, object]] = []
    for name, pair in PAIRS.items():
        if not re.search(options.pairs, name):
            continue
        ways = {
            key: way
            for key, way in WAYS.items()
            if re.search(options.ways, key) and not (way.channels_last and "bert" in name and not way.answers)
        }
        rows += rows_of(name, pair, ways, options.rounds, options.steps, at_most)
    result = {
        "device": torch.cuda.get_device_name(),
        "peak_bf16_flops": at_most,
        "cifar_epochs_per_minute": {
            str(row["way"]): 60 * float(row["examples_per_second"]) / 50_000  # type: ignore[arg-type]
            for row in rows
            if "resnet32x4" in str(row["pair"])
        },
        "rows": rows,
    }
    options.out.write_text(json.dumps({**result, "machine": machine(), "versions": versions()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
