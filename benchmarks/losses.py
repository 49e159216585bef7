"""What every loss costs, as a share of a student's training step, and the two heavy ones against their usual form.

python benchmarks/losses.py [--repeats 9] [--out benchmarks/results/losses.json]

Each loss runs forward and backward on tensors of the size that it meets between a ResNet-32x4 and a ResNet-8x4 at
32x32 (maps 128x16x16 and 256x8x8, embeddings of 256, 100 classes), or between two layers of a BERT (64 tokens of 312,
12 heads). The step is forward, cross-entropy, backward and SGD of the ResNet-8x4. Both are timed by turns, on one
thread; medians. Memory is the most that is allocated at once.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from naive import naive_crd, naive_rkd_angle
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from distill import losses
from distill.batch import Batch
from distill.heads import Contrast
from distill.losses import CRD, AttentionRelation, Loss, RKDAngle
from distill.measure import machine, versions
from distill.models.cifar import resnet8x4

Value = Tensor | tuple[Tensor, ...]
CLASSES, TOKENS, WIDTH, HEADS = 100, 64, 312, 12
SIZES = (16, 64, 256)
BANK, NEGATIVES = 50_000, 16_384


@dataclass(frozen=True)
class Case:
    """A loss with what it is given; `student` is what the gradient is taken of."""

    loss: Loss
    student: Value
    teacher: Value
    batch: Batch

    def __call__(self) -> Tensor:
        """The mean loss."""
        return self.loss(self.student, self.teacher, self.batch).mean()


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


def cases(size: int) -> dict[str, Case]:
    hard = Batch(torch.zeros(size, 1), torch.randint(CLASSES, (size,)), torch.arange(size))
    several = Batch(hard.inputs, (torch.rand(size, 20) < 0.15).float(), hard.index)
    shapes: dict[str, tuple[int, ...]] = {
        "logits": (size, CLASSES),
        "map": (size, 256, 8, 8),
        "early": (size, 128, 16, 16),
        "embedding": (size, 256),
        "tokens": (size, TOKENS, WIDTH),
        "scores": (size, HEADS, TOKENS, TOKENS),
        "labels": (size, 20, 64),
    }

    def case(loss: Loss, *kinds: str, batch: Batch = hard) -> Case:
        student, teacher = tuple(leaf(*shapes[kind]) for kind in kinds), tuple(torch.randn(shapes[k]) for k in kinds)
        single = len(kinds) == 1
        return Case(loss, student[0] if single else student, teacher[0] if single else teacher, batch)

    of_kind = {
        "logits": "CrossEntropy KD ReverseKD LogitMSE DKD NKD DIST MultiLabelKD OFA",
        "map": "Hint CosineHint AttentionTransfer NST ChannelKD PearsonHint FactorTransfer Overhaul ReviewHCL "
        "InterChannel SimilarityPreserving",
        "embedding": "RKDDistance RKDAngle CorrelationCongruence PKT",
        "tokens": "HiddenState TokenCosine PatientKD",
        "scores": "AttentionScores",
    }
    found = {name: case(vars(losses)[name](), kind) for kind, names in of_kind.items() for name in names.split()}
    several_logits = Batch(hard.inputs, torch.rand(size, CLASSES).round(), hard.index)
    found["BinaryCrossEntropy"] = case(losses.BinaryCrossEntropy(), "logits", batch=several_logits)
    found["Asymmetric"] = case(losses.Asymmetric(), "logits", batch=several_logits)
    found["LabelEmbedding"] = case(losses.LabelEmbedding(), "labels", batch=several)
    found["VID"] = Case(
        losses.VID(), (leaf(size, 256, 8, 8), torch.full((256, 1, 1), 5.0)), torch.randn(size, 256, 8, 8), hard
    )
    found["FSP"] = case(losses.FSP(), "early", "map")
    found["LayerCKA"] = case(losses.LayerCKA(), "early", "map", "embedding")
    found["SingularVectors"] = case(losses.SingularVectors(), "early", "map")
    found["AttentionRelation"] = case(AttentionRelation(heads=HEADS), "tokens", "tokens", "tokens")
    found["CRD"] = contrast(size)
    return found


def contrast(size: int) -> Case:
    """CRD behind its head: 16,384 negatives of 50,000."""
    head = Contrast(examples=BANK, negatives=NEGATIVES)(torch.Size((size, 256)), torch.Size((size, 256)))
    batch = Batch(torch.zeros(size, 1), torch.randint(CLASSES, (size,)), torch.randperm(BANK)[:size])
    with torch.no_grad():
        student, teacher = head(torch.randn(size, 256), torch.randn(size, 256), batch)
    return Case(CRD(), tuple(x.clone().requires_grad_() for x in student), teacher, batch)


def backward(value: Callable[[], Tensor], student: Value) -> Callable[[], None]:
    leaves = [x for x in ((student,) if isinstance(student, Tensor) else student) if x.requires_grad]

    def once() -> None:
        torch.autograd.grad(value(), leaves)

    return once


def student_step(size: int) -> Callable[[], None]:
    student = resnet8x4(CLASSES)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9)
    images, labels = torch.randn(size, 3, 32, 32), torch.randint(CLASSES, (size,))

    def once() -> None:
        F.cross_entropy(student(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return once


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_bytes(run: Callable[[], None]) -> int:
    """The most that torch allocates at once beyond what there was."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def by_turns(one: Callable[[], None], other: Callable[[], None], repeats: int) -> tuple[float, float, float]:
    """Median seconds of both, and the median of the ratio of each pair, after one call of each."""
    one(), other()
    pairs = [(seconds(one), seconds(other)) for _ in range(repeats)]
    ratio = statistics.median(first / second for first, second in pairs)
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs), ratio


def priced(repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """{loss: {batch size: seconds, bytes, and both as shares of the student's step}}; each round times all of them."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for size in SIZES:
        step, runs = student_step(size), {name: backward(case, case.student) for name, case in cases(size).items()}
        step_bytes = peak_bytes(step)
        used = {name: peak_bytes(run) for name, run in runs.items()}  # a first call of each, too
        rounds = [(seconds(step), {name: seconds(run) for name, run in runs.items()}) for _ in range(repeats)]
        for name in sorted(runs):
            found.setdefault(name, {})[str(size)] = {
                "seconds": statistics.median(times[name] for _, times in rounds),
                "bytes": used[name],
                "time_share": statistics.median(times[name] / whole for whole, times in rounds),
                "memory_share": used[name] / step_bytes,
            }
        print(f"Batches of {size} are timed.", flush=True)
    return found


def against_usual(repeats: int) -> dict[str, dict[str, float]]:
    """The bars: RKDAngle at B = D = 256 against B x B x D, and at B = 1024 its memory; CRD against gathered rows."""
    student, teacher = leaf(256, 256), torch.randn(256, 256)
    batch = Batch(torch.zeros(256, 1), torch.zeros(256, dtype=torch.int64), torch.arange(256))
    ours = backward(lambda: RKDAngle()(student, teacher, batch).mean(), student)
    usual = backward(lambda: naive_rkd_angle(student, teacher), student)
    own, other, ratio = by_turns(ours, usual, repeats)
    angle = {"seconds": own, "usual_seconds": other, "time_ratio": ratio}
    angle["memory_ratio"] = peak_bytes(ours) / peak_bytes(usual)
    difference = RKDAngle()(student, teacher, batch).mean() - naive_rkd_angle(student, teacher)
    angle["difference"] = abs(float(difference.detach()))
    large, other_large = leaf(1024, 256), torch.randn(1024, 256)
    whole = Batch(torch.zeros(1024, 1), torch.zeros(1024, dtype=torch.int64), torch.arange(1024))
    angle["bytes_at_1024"] = peak_bytes(backward(lambda: RKDAngle()(large, other_large, whole).mean(), large))
    case = contrast(64)
    assert isinstance(case.student, tuple) and isinstance(case.teacher, tuple)
    of_both, memory = case.student, case.teacher
    ours = backward(case, case.student)
    usual = backward(lambda: naive_crd(of_both, memory).mean(), case.student)  # type: ignore[arg-type]
    own, other, ratio = by_turns(ours, usual, repeats)
    crd = {"seconds": own, "usual_seconds": other, "time_ratio": ratio}
    crd["memory_ratio"] = peak_bytes(ours) / peak_bytes(usual)
    return {"RKDAngle": angle, "CRD": crd}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "losses.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bars = against_usual(options.repeats)
    print(json.dumps(bars, indent=1))
    losses_priced = priced(options.repeats)
    table = Table(title="Time of a loss over that of a ResNet-8x4's step", title_justify="left")
    for column in ("loss", *(f"batch {size}" for size in SIZES)):
        table.add_column(column)
    for name, row in losses_priced.items():
        table.add_row(name, *(f"{row[str(size)]['time_share']:.3f}" for size in SIZES))
    Console().print(table)
    result = {"bars": bars, "losses": losses_priced, "machine": machine(), "versions": versions()}
    result |= {"repeats": options.repeats, "threads": 1}
    options.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
