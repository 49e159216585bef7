"""Cost of a training step against a hand-written loop of the same losses: median ratio of interleaved pairs, as JSON.

python benchmarks/step.py [--pairs 40] [--out benchmarks/results/step.json]

Both sides do the same work on the same uint8 batches: normalise, teacher without gradient, student, losses, backward,
SGD with momentum. The order within a pair alternates, so that a drifting machine hurts both sides alike.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from distill.batch import Batch
from distill.heads import Conv1x1
from distill.losses import KD, CrossEntropy, Hint, RKDDistance, SimilarityPreserving
from distill.measure import machine, versions
from distill.models.cifar import resnet8x4, resnet32x4
from distill.plan import Plan, Term, connect
from distill.trainer import Trainer
from distill.view import View

BATCH = 64
VIEW = View(mean=(0.5071, 0.4866, 0.4409), std=(0.2673, 0.2564, 0.2762))
LOGITS: Plan = {"task": Term(CrossEntropy(), weight=0.1), "kd": Term(KD(temperature=4.0), weight=0.9)}
PLANS: dict[str, Plan] = {
    "logits": LOGITS,
    "logits + hint": {**LOGITS, "hint": Term(Hint(), 100.0, "layer2", "layer2", Conv1x1())},
    "logits + relations": {
        **LOGITS,
        "distance": Term(RKDDistance(), 25.0, "embedding", "embedding"),
        "similarity": Term(SimilarityPreserving(), 3000.0, "layer3", "layer3"),
    },
}
Step = Callable[[Tensor, Tensor], None]


def models() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return resnet32x4(num_classes=100), resnet8x4(num_classes=100)


def with_trainer(name: str) -> Step:
    teacher, student = models()
    sample = Batch(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    guide, learner = connect(
        teacher, student, PLANS[name], sample, teacher_view=VIEW.module(), student_view=VIEW.module()
    )
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    prepared, prepared_optimizer = accelerator.prepare(learner, optimizer)
    trainer = Trainer(accelerator, guide, prepared, PLANS[name], prepared_optimizer)
    prepared.train()

    def step(images: Tensor, labels: Tensor) -> None:
        trainer.step([Batch(images, labels, torch.arange(len(labels)))])
        trainer.lines.rows.clear()

    return step


def by_hand(name: str) -> Step:
    """What a researcher writes for this one experiment: no checks, micro-batches, ranks, logging or resume."""
    teacher, student = models()
    teacher.eval()
    student.train()
    kept: dict[str, Tensor] = {}
    for key, model in (("teacher", teacher), ("student", student)):
        for layer in ("layer2", "layer3"):
            where = f"{key}.{layer}"
            tapped = model.get_submodule(layer)
            tapped.register_forward_hook(lambda m, a, out, where=where: kept.update({where: out}))
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        last.register_forward_hook(lambda m, args, out, key=key: kept.update({key: args[0]}))
    connector = nn.Sequential(nn.Conv2d(128, 128, 1, bias=False), nn.BatchNorm2d(128))
    parameters = [*student.parameters(), *(connector.parameters() if "hint" in name else ())]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (VIEW.mean, VIEW.std))

    def distances(rows: Tensor) -> Tensor:
        square = rows.square().sum(1)
        distance = (square[:, None] + square[None] - 2 * rows @ rows.T).clamp(min=1e-12).sqrt()
        distance = distance * (1 - torch.eye(len(rows)))
        return distance / distance[distance > 0].mean()

    def similarity(maps: Tensor) -> Tensor:
        rows = maps.flatten(1)
        return F.normalize(rows @ rows.T)

    def step(images: Tensor, labels: Tensor) -> None:
        x = (images.float() / 255 - mean) / std
        with torch.no_grad():
            target = teacher(x)
        logits = student(x)
        soft = F.kl_div(F.log_softmax(logits / 4, 1), F.softmax(target / 4, 1), reduction="batchmean")
        loss = 0.1 * F.cross_entropy(logits, labels) + 0.9 * 16 * soft
        if "hint" in name:
            loss = loss + 100 * F.mse_loss(connector(kept["student.layer2"]), kept["teacher.layer2"])
        if "relations" in name:
            loss = loss + 25 * F.smooth_l1_loss(distances(kept["student"]), distances(kept["teacher"]))
            gram = similarity(kept["student.layer3"]) - similarity(kept["teacher.layer3"])
            loss = loss + 3000 * gram.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def compare(name: str, pairs: int) -> dict[str, object]:
    ours, theirs = with_trainer(name), by_hand(name)
    images = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, 100, (BATCH,))
    seconds: dict[Step, list[float]] = {ours: [], theirs: []}
    for pair in range(pairs + 2):
        for step in (ours, theirs) if pair % 2 else (theirs, ours):
            start = time.perf_counter()
            step(images, labels)
            if pair >= 2:
                seconds[step].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True)]
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    return {
        "plan": name,
        "pairs": pairs,
        "ratio_median": middle,
        "ratio_quartiles": [lower, upper],
        "trainer_seconds": statistics.median(seconds[ours]),
        "by_hand_seconds": statistics.median(seconds[theirs]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "step.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in PLANS:
        rows.append(compare(name, options.pairs))
        print(f"{name:20} {rows[-1]['ratio_median']:.3f} of a hand-written step ({options.pairs} pairs)")
    result = {"pair": "resnet32x4 to resnet8x4", "batch": BATCH, "threads": 1, "rows": rows}
    options.out.write_text(json.dumps({**result, "machine": machine(), "versions": versions()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
