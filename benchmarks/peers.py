"""A training step against torchdistill's, same models, losses, batches and torch, as JSON.

python benchmarks/peers.py [--pairs 20] [--out benchmarks/results/peers.json]

torchdistill is installed from the package registry into a folder of its own, without its dependencies on torch, so that
both run the same. Each side lives in a process of its own on one thread; they take their steps in turn, in changing
order, on batches drawn by the same numbers, and each tells the seconds of its own process. ResNet32x4 to ResNet8x4,
batch 64, normalised 32x32 images; SGD with momentum. The losses of the first step must agree to 1e-3, but for
the similarity, whose rows torchdistill 1.1.5 divides by their sum and not by their L2 norm as the paper does: there the
cost alone is compared.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PEER = "torchdistill==1.1.5"
NEEDS = ("pyyaml", "scipy")
BATCH, CLASSES = 64, 100
NAMES = ("logits", "logits + hint", "logits + similarity")
_OUTPUT = (("path", "."), ("io", "output"))
Step = Callable[[Tensor, Tensor], float]


def models() -> tuple[nn.Module, nn.Module]:
    from distill.models.cifar import resnet8x4, resnet32x4

    torch.manual_seed(0)
    return resnet32x4(num_classes=CLASSES), resnet8x4(num_classes=CLASSES)


def ours(name: str) -> Step:
    from accelerate import Accelerator

    from distill.batch import Batch
    from distill.losses import KD, CrossEntropy, Hint, SimilarityPreserving
    from distill.plan import Term, connect
    from distill.trainer import Trainer

    teacher, student = models()
    plan = {"task": Term(CrossEntropy(), 0.1), "kd": Term(KD(temperature=4.0), 0.9)}
    if "hint" in name:
        plan["hint"] = Term(Hint(), 10.0, "layer2", "layer2")
    if "similarity" in name:
        plan["similarity"] = Term(SimilarityPreserving(), 3000.0, "layer3", "layer3")
    sample = Batch(torch.zeros(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    guide, learner = connect(teacher, student, plan, sample)
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    prepared, prepared_optimizer = accelerator.prepare(learner, optimizer)
    prepared.train()
    trainer = Trainer(accelerator, guide, prepared, plan, prepared_optimizer)

    def step(images: Tensor, labels: Tensor) -> float:
        means = trainer.step([Batch(images, labels, torch.arange(len(labels)))])
        trainer.lines.rows.clear()
        return sum(term.weight * float(means[key]) for key, term in plan.items())

    return step


def theirs(name: str) -> Step:
    from torchdistill.core.distillation import get_distillation_box

    teacher, student = models()
    logits = {f"{side}_module_{key}": value for side in ("student", "teacher") for key, value in _OUTPUT}
    terms: dict[str, Any] = {
        "kd": {
            "criterion": {"key": "KDLoss", "kwargs": {**logits, "temperature": 4.0, "alpha": 0.1}},
            "weight": 1.0,
        }
    }
    layers: list[str] = []
    if "hint" in name:
        layers = ["layer2"]
        own = {"module_path": "layer2", "io": "output"}
        wrapped = {"input": {"is_from_teacher": False, **own}, "target": {"is_from_teacher": True, **own}}
        terms["hint"] = {
            "criterion": {"key": "MSELoss", "kwargs": {"reduction": "mean"}},
            "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": wrapped},
            "weight": 10.0,
        }
    if "similarity" in name:
        layers = ["layer3"]
        paths = {"student_output_path": "layer3", "teacher_output_path": "layer3", "reduction": "batchmean"}
        terms["similarity"] = {"criterion": {"key": "SPKDLoss", "kwargs": paths}, "weight": 3000.0}
    hooks, forward = {"input": [], "output": layers}, {"wrapper": None, "forward_proc": "forward_batch_only"}
    config = {
        "num_epochs": 1,
        "teacher": {"sequential": [], "forward_hook": hooks, "requires_grad": False, **forward},
        "student": {"sequential": [], "forward_hook": hooks, "requires_grad": True, **forward},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}},
    }
    box = get_distillation_box(teacher, student, {}, config, torch.device("cpu"), None, False, 1)
    box.teacher_model.eval()
    box.student_model.train()

    def step(images: Tensor, labels: Tensor) -> float:
        loss = box.forward_process(images, labels, None)
        box.post_forward_process(loss)
        return float(loss.detach())

    return step


def work(side: str, name: str) -> None:
    """Answer each number on the input with the loss and the seconds of a step on the batch drawn by it."""
    torch.set_num_threads(1)
    said, sys.stdout = sys.stdout, sys.stderr  # a library's own prints are no answers
    step = {"ours": ours, "theirs": theirs}[side](name)
    print("ready", file=said, flush=True)
    for line in sys.stdin:
        draw = torch.Generator().manual_seed(int(line))
        images = torch.randn(BATCH, 3, 32, 32, generator=draw)
        labels = torch.randint(0, CLASSES, (BATCH,), generator=draw)
        start = time.process_time()
        loss = step(images, labels)
        print(json.dumps([loss, time.process_time() - start]), file=said, flush=True)


def ask(worker: "subprocess.Popen[str]", number: int) -> tuple[float, float]:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(f"{number}\n")
    worker.stdin.flush()
    loss, seconds = json.loads(worker.stdout.readline())
    return loss, seconds


def compare(name: str, pairs: int, site: Path) -> dict[str, object]:
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, str(site)]), "OMP_NUM_THREADS": "1"}
    workers = {
        side: subprocess.Popen(
            [sys.executable, __file__, "--worker", side, "--plan", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        for side in ("ours", "theirs")
    }
    try:
        for side, worker in workers.items():
            assert worker.stdout is not None
            if worker.stdout.readline().strip() != "ready":
                raise SystemExit(f"The process of {side} failed to start: run --worker {side} --plan '{name}' by hand.")
        seconds: dict[str, list[float]] = {side: [] for side in workers}
        first = {side: ask(worker, 0)[0] for side, worker in workers.items()}
        for number in range(1, pairs + 1):
            for side in random.sample(list(workers), 2):
                seconds[side].append(ask(workers[side], number)[1])
    finally:
        for worker in workers.values():
            worker.kill()
    if "similarity" not in name and abs(first["ours"] - first["theirs"]) > 1e-3 * abs(first["theirs"]):
        raise SystemExit(f"{name}: the first losses are {first}, so the two do not compute the same.")
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    print(f"{name:20} {middle:.3f} ({lower:.3f} to {upper:.3f}) of {PEER}'s time", flush=True)
    return {
        "plan": name,
        "pairs": pairs,
        "ratio_median": middle,
        "ratio_quartiles": [lower, upper],
        "seconds": {side: statistics.median(of_side) for side, of_side in seconds.items()},
        "first_losses": first,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "peers.json")
    parser.add_argument("--worker", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--plan", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.plan)
        return
    from distill.measure import machine, versions

    with tempfile.TemporaryDirectory() as name:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", name, PEER, *NEEDS]
        subprocess.run(install, check=True)
        rows = [compare(plan, options.pairs, Path(name)) for plan in NAMES]
    result = {"peer": PEER, "pair": "resnet32x4 to resnet8x4", "batch": BATCH, "threads": 1, "rows": rows}
    loads = {"load": os.getloadavg()}
    options.out.write_text(
        json.dumps({**result, **loads, "machine": machine(), "versions": versions()}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
