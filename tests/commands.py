"""A tiny teacher and its student as recipe files, and the real command to run them with."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent

TEACHER = """
from distill import SGD, CrossEntropy, Digits, Model, Recipe, Term, main

recipe = Recipe(
    name="teacher",
    data=Digits(),
    student=Model("distill.models.cifar:resnet8", arguments={"width": 4}),
    plan={"task": Term(CrossEntropy())},
    optimizer=SGD(lr=0.05),
    epochs=2,
)

if __name__ == "__main__":
    main(recipe)
"""

PAIR = """
from distill import KD, SGD, Conv1x1, CrossEntropy, Digits, Hint, Model, Recipe, SelectWeights, Term, main

recipe = Recipe(
    name="pair",
    data=Digits(),
    teacher=Model("distill.models.cifar:resnet8", weights="runs/teacher", arguments={"width": 4}),
    student=Model("distill.models.cifar:resnet8", arguments={"width": 2}),
    initialize=SelectWeights(),
    plan={
        "task": Term(CrossEntropy(), weight=0.1),
        "kd": Term(KD(temperature=4.0), weight=0.9),
        "hint": Term(Hint(), student="layer2", teacher="layer2", head=Conv1x1()),
    },
    optimizer=SGD(lr=0.05),
    epochs=2,
    repeats=2,
    controls=("plain", "initialized"),
)

if __name__ == "__main__":
    main(recipe)
"""


def snapshot(folder: Path) -> dict[str, bytes]:
    """{path: content} of all files below a folder, to see that nothing was lost or left behind."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def environment(**more: str) -> dict[str, str]:
    """The environment of a command of its own, with as many threads as here, so that numbers are equal to the bit."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
    threads = str(torch.get_num_threads())
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE", **more}


def run_python(
    words: Sequence[str], folder: Path, more: Mapping[str, str] | None = None, *, seconds: float = 240
) -> subprocess.CompletedProcess[str]:
    """What `python WORDS` did in a process of its own; past its time it is ended, with all that it started."""
    command = [sys.executable, *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment(**(more or {})),
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)
