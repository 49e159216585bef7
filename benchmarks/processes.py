"""Two processes on two cores against one: what training in parallel keeps of the speed, as JSON.

python benchmarks/processes.py [--rounds 5] [--out benchmarks/results/processes.json]

ResNet-32x4 to ResNet-8x4 with soft targets, batch 64 for each process, one thread each. In turns: one process alone,
two that know nothing of each other, and two that train together (DDP over gloo). Two strangers show what the two cores
lose to each other by themselves (memory, clock, threads of one core); what is left is the cost of working together:
images a second of both together, over those of both strangers. Seconds are by the clock, of six steps behind two.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from pairs import CIFAR, with_trainer

from distill.measure import machine, versions

STEPS, WARM_UP = 6, 2


def work(start: float) -> None:
    """Take steps from a moment by the clock on, and print the seconds of each."""
    torch.set_num_threads(1)
    step, batch = with_trainer(CIFAR, "logits"), CIFAR.batch()
    for _ in range(WARM_UP):
        step(batch)
    time.sleep(max(0.0, start - time.time()))
    began = time.perf_counter()
    for _ in range(STEPS):
        step(batch)
    print((time.perf_counter() - began) / STEPS)


def launched(environments: list[Mapping[str, str]]) -> float:
    """Images a second of all processes, which begin together."""
    start = str(time.time() + 25)
    plain = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--start", start]
    workers = [
        subprocess.Popen(command, env={**plain, **one}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for one in environments
    ]
    said = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise SystemExit("A process failed: run this file with --start 0 by hand.")
    return sum(len(CIFAR.batch()) / float(lines.splitlines()[-1]) for lines in said)


def together() -> list[Mapping[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    return [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "processes.json")
    parser.add_argument("--start", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start is not None:
        work(options.start)
        return
    ways = {"one": lambda: [{}], "strangers": lambda: [{}, {}], "together": together}
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, environments in ways.items():
            speeds[way].append(launched(environments()))
            print(f"{way:10} {speeds[way][-1]:.1f} images a second", flush=True)

    def of(way: str) -> float:
        """What both together do, as a share of another way's: the median over the rounds, since a machine drifts."""
        return statistics.median(both / other for both, other in zip(speeds["together"], speeds[way], strict=True))

    medians = {way: statistics.median(of_way) for way, of_way in speeds.items()}
    result = {
        "images_per_second": medians,
        "rounds": speeds,
        "of_linear": of("one") / 2,
        "of_linear_less_what_the_cores_lose": of("strangers"),
    }
    print(json.dumps({key: value for key, value in result.items() if key.startswith("of")}))
    told = {**result, "load": os.getloadavg(), "machine": machine(), "versions": versions()}
    options.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
