"""Runs that are killed at random moments and resumed until they end: `python -m tests.killing FOLDER PROCESSES KILLS`.

One process imports everything, and forks each attempt, so that an attempt takes no longer than its training. Prints one
line of JSON: how many attempts were killed, and whether every run ended with the weights of the straight one.
"""

import json
import os
import random
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import torch

from distill.fit import fit_arm
from distill.recipe import Recipe
from tests.test_fit import StoppingBar, hard_recipe
from tests.tiny import on_cpu, parts_of


def attempt(recipe: Recipe, folder: Path) -> None:
    """Train on from where the folder stands, and leave the weights in it."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = parts_of(recipe)
    accelerator = on_cpu()
    fit_arm(parts, folder, accelerator, seed=recipe.seed, resume=True, bar=StoppingBar())
    if accelerator.is_main_process:
        torch.save(parts.student.state_dict(), folder / "ended.part")
        (folder / "ended.part").rename(folder / "ended.pt")


def start(recipe: Recipe, folder: Path, processes: int) -> list[int]:
    """Fork the processes of an attempt."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            if processes > 1:
                places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
                address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
                os.environ.update(places | address)
            with (folder.parent / "said.txt").open("a") as said:
                os.dup2(said.fileno(), 2)
            attempt(recipe, folder)
            code = 0
        finally:
            os._exit(code)
    return children


def ended(children: list[int], seconds: float) -> bool:
    """Whether all children end by themselves in this time; else they are killed."""
    until, left = time.monotonic() + seconds, list(children)
    while left and time.monotonic() < until:
        for child in list(left):
            if os.waitpid(child, os.WNOHANG)[0]:
                left.remove(child)
        time.sleep(0.001)
    for child in left:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return not left


def main(folder: Path, processes: int, kills: int) -> None:
    recipe = Recipe(**{**vars(hard_recipe()), "checkpoint_every": 1, "log_every": 4})
    began = time.monotonic()
    assert ended(start(recipe, folder / "straight", processes), 120), (folder / "said.txt").read_text()
    takes = time.monotonic() - began
    straight = torch.load(folder / "straight" / "ended.pt")
    chance, killed, runs, same = random.Random(0), 0, 0, True
    while killed < kills:
        place = folder / f"run-{runs}"
        while not (place / "ended.pt").exists():
            killed += not ended(start(recipe, place, processes), chance.uniform(0.1, 0.8) * takes)
        found = torch.load(place / "ended.pt")
        same &= all(torch.equal(tensor, straight[name]) for name, tensor in found.items())
        shutil.rmtree(place)
        runs += 1
    print(json.dumps({"killed": killed, "runs": runs, "same": same, "seconds": round(takes, 2)}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
