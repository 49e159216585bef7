"""Whole runs on a GPU, launched as users launch them: what precision, compiling, sharding and a stop change, as JSON.

python benchmarks/gpu_runs.py [--out benchmarks/results/gpu_runs.json]

A recipe on digits with a loss of each kind (answers, features, relations), four epochs of 23 steps, is run in float32
and then otherwise: in bf16 and fp16, compiled, sharded by both configurations of recipes/accelerate (one
process each), and stopped by SIGTERM twice and resumed. Each row says how far the losses of its steps and the student's
weights are from those of the float32 run, or of the plain run in its own precision. Deterministic algorithms, no TF32.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from distill.measure import machine, versions

ROOT = Path(__file__).parents[1]
TEACHER = """
from distill import SGD, CrossEntropy, Digits, Model, Recipe, Term, main

recipe = Recipe(
    name="teacher",
    data=Digits(),
    student=Model("distill.models.cifar:resnet20"),
    plan={"task": Term(CrossEntropy())},
    optimizer=SGD(lr=0.1, momentum=0.9),
    epochs=4,
)

if __name__ == "__main__":
    main(recipe)
"""
RECIPE = """
import torch

from distill import KD, SGD, Conv1x1, CrossEntropy, Digits, Hint, Model, Recipe, RKDDistance, Term, main

torch.use_deterministic_algorithms(True)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

recipe = Recipe(
    name="pair",
    data=Digits(),
    teacher=Model("distill.models.cifar:resnet20", weights="runs/teacher"),
    student=Model("distill.models.cifar:resnet8"),
    plan={
        "task": Term(CrossEntropy(), weight=0.1),
        "kd": Term(KD(temperature=4.0), weight=0.9),
        "hint": Term(Hint(), student="layer2", teacher="layer2", head=Conv1x1()),
        "samples": Term(RKDDistance(), student="embedding", teacher="embedding"),
    },
    optimizer=SGD(lr=0.05, momentum=0.9),
    ema=0.9,
    epochs=4,
    batch_size=48,
    log_every=1,
    checkpoint_every=10,
)

if __name__ == "__main__":
    main(recipe)
"""
ONE = ["--num_processes", "1", "--num_machines", "1"]


@dataclass(frozen=True)
class Run:
    """name, the words for the launcher, how often it is stopped, the run that it is compared with, and own settings."""

    name: str
    launcher: tuple[str, ...]
    stops: int = 0
    base: str = "float32"
    settings: tuple[str, ...] = ()


def configured(file: str, *words: str) -> tuple[str, ...]:
    return ("--config_file", str(ROOT / "recipes" / "accelerate" / file), *words)


RUNS = (
    Run("float32", ("--mixed_precision", "no", *ONE)),
    Run("float32 again", ("--mixed_precision", "no", *ONE)),
    Run("bf16", configured("one_gpu_bf16.yaml")),
    Run("fp16", ("--mixed_precision", "fp16", *ONE)),
    Run("float32, compiled", ("--mixed_precision", "no", "--dynamo_backend", "inductor", *ONE)),
    Run("bf16, compiled", configured("one_gpu_bf16.yaml", "--dynamo_backend", "inductor")),
    Run("float32, fsdp2.yaml", configured("fsdp2.yaml", "--num_processes", "1", "--mixed_precision", "no")),
    Run("float32, zero2.yaml", configured("zero2.yaml", "--num_processes", "1", "--mixed_precision", "no")),
    Run(
        "float32, deepspeed_zero2.yaml",
        configured("deepspeed_zero2.yaml", "--num_processes", "1", "--mixed_precision", "no"),
    ),
    Run("bf16, deepspeed_zero2.yaml", configured("deepspeed_zero2.yaml", "--num_processes", "1"), base="bf16"),
    Run("bf16, fsdp2.yaml", configured("fsdp2.yaml", "--num_processes", "1"), base="bf16"),
    Run("fp16, fsdp2.yaml", configured("fsdp2.yaml", "--num_processes", "1", "--mixed_precision", "fp16"), base="fp16"),
    Run("float32, both compiled", ("--mixed_precision", "no", *ONE), settings=("--speed.compile", "both")),
    Run(
        "float32, both compiled, CUDA graphs",
        ("--mixed_precision", "no", *ONE),
        settings=("--speed.compile", "both", "--speed.cuda_graphs", "true"),
    ),
    Run("float32, cached", ("--mixed_precision", "no", *ONE), settings=("--teacher_cache.form", "float32")),
    Run("float32, profiled", ("--mixed_precision", "no", *ONE), settings=("--profile",)),
    Run("float32, stopped twice", (), stops=2),
    Run("fp16, stopped twice", (), stops=2, base="fp16"),
)


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {
        **os.environ,
        "PYTHONPATH": path,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "OMP_NUM_THREADS": "2",
        "DISTILL_CACHE": "cache",
    }


def train(run: Run, place: Path) -> dict[str, object]:
    """Run it to its end; what it says goes into a file."""
    folder = place / "runs" / run.name
    began = time.perf_counter()
    words = ["--name", run.name, "--resume", "auto", *run.settings]
    if run.stops:
        words += ["--precision", run.name.partition(",")[0]]
        command = [sys.executable, "-m", "distill", "train", "pair.py", *words]
    else:
        command = [sys.executable, "-m", "accelerate.commands.launch", *run.launcher, "pair.py", *words]
    codes = []
    for stop in range(run.stops + 1):
        with (place / f"{run.name}.txt").open("a") as said:
            process = subprocess.Popen(command, cwd=place, env=environment(), stdout=said, stderr=said)
            if stop < run.stops:
                wait_for_step(folder, 25 * (stop + 1), process)
                process.send_signal(signal.SIGTERM)
            codes.append(process.wait())
    return {"codes": codes, "seconds": time.perf_counter() - began}


def wait_for_step(folder: Path, step: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None and (not (folder / "metrics.jsonl").exists() or len(losses(folder)) < step):
        time.sleep(0.02)


def losses(folder: Path) -> list[dict[str, float]]:
    text = (folder / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return [line["raw"] for line in lines if "raw" in line]


def compared(run: Run, done: dict[str, object], place: Path) -> dict[str, object]:
    folder, base = place / "runs" / run.name, place / "runs" / run.base
    if not (folder / "report.json").exists():
        return {"run": run.name, **done, "failed": (place / f"{run.name}.txt").read_text()[-1500:]}
    ours, theirs = losses(folder), losses(base)
    assert len(ours) == len(theirs), f"{run.name} logged {len(ours)} steps, not {len(theirs)}"
    apart = [
        max(abs(a[term] - b[term]) / max(abs(b[term]), 1e-3) for term in b) for a, b in zip(ours, theirs, strict=True)
    ]
    weights, base_weights = (load_file(where / "student" / "model.safetensors") for where in (folder, base))
    outcome = json.loads((folder / "report.json").read_text())["outcomes"][0]
    return {
        "run": run.name,
        "compared_with": run.base,
        **done,
        "losses_apart_first_step": apart[0],
        "losses_apart_first_five_steps": max(apart[:5]),
        "losses_apart_all_steps": max(apart),
        "weights_apart": max(
            float((weights[name] - base_weights[name]).abs().max())
            for name in weights
            if weights[name].is_floating_point()
        ),
        "same_bits": all(torch.equal(weights[name], base_weights[name]) for name in weights),
        "test_accuracy": outcome["test"]["accuracy"],
        "training_seconds": outcome["seconds"],
        "plan": [
            line for line in (folder / "plan.txt").read_text().splitlines() if "precision" in line or "share of" in line
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu_runs.json")
    parser.add_argument("--only", default="", help="these runs and those they are compared with, as 'graphs|deepspeed'")
    parser.add_argument("--at_once", type=int, default=4, help="runs that share the GPU at a time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "teacher.py").write_text(TEACHER)
        (place / "pair.py").write_text(RECIPE)
        command = [sys.executable, "-m", "distill", "train", "teacher.py"]
        subprocess.run(command, cwd=place, env=environment(), check=True, stdout=subprocess.DEVNULL)
        asked = [run for run in RUNS if re.search(options.only, run.name)]
        runs = [run for run in RUNS if run in asked or run.name in [one.base for one in asked]]
        with ThreadPoolExecutor(options.at_once) as pool:
            done = list(pool.map(lambda run: train(run, place), runs))
        rows = [compared(run, of_run, place) for run, of_run in zip(runs, done, strict=True)]
    for row in rows:
        if "failed" in row:
            print(f"{row['run']:24} failed: {row['failed']}")
            continue
        print(
            f"{row['run']:24} codes {row['codes']}  losses apart: first {row['losses_apart_first_step']:.1e}, five "
            f"{row['losses_apart_first_five_steps']:.1e}, all {row['losses_apart_all_steps']:.1e}  weights "
            f"{row['weights_apart']:.1e}  same bits {row['same_bits']}  accuracy {row['test_accuracy']:.3f}"
        )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    result = {"device": device, "rows": rows, "machine": machine(), "versions": versions()}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
