"""Cost of a training step against a hand-written loop of the same losses: time and peak memory, as JSON.

python benchmarks/step.py [--pairs 15] [--only BERT] [--out benchmarks/results/step.json]

Three pairs of networks (pairs.py) with three plans each, eager, float32, on one thread; the trainer updates as a recipe
does (fused), the loop as torch does by itself. Time: the median ratio of pairs of steps on the same batch, whose order
alternates, so that a drifting machine hurts both sides alike; seconds are the process's own. Memory: bytes of all
tensors at their peak, from building both models to the third step, counted by torch's profiler in a process of its own.
The losses of the first step agree, or there is no comparison (but for the hint, whose head starts from other numbers).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import accumulate
from pathlib import Path

import torch
from pairs import PAIRS, PLANS, Pair, Step, by_hand, with_trainer
from torch.profiler import ProfilerActivity, profile

from distill.measure import machine, versions

SIDES = {"trainer": with_trainer, "by_hand": by_hand}
WARM_UP, STEPS = 2, 3


def compare(pair: Pair, name: str, pairs: int) -> dict[str, object]:
    steps = {side: build(pair, name) for side, build in SIDES.items()}
    batch = pair.batch()
    check_first(name, steps, pair)
    seconds: dict[str, list[float]] = {side: [] for side in steps}
    for number in range(pairs + WARM_UP):
        for side in list(steps) if number % 2 else [*steps][::-1]:
            start = time.process_time()
            steps[side](batch)
            if number >= WARM_UP:
                seconds[side].append(time.process_time() - start)
    ratios = [ours / theirs for ours, theirs in zip(*seconds.values(), strict=True)]
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    memory = {side: peak(side, pair, name) for side in SIDES}
    row = {
        "pair": pair.name,
        "plan": name,
        "pairs": pairs,
        "ratio_median": middle,
        "ratio_quartiles": [lower, upper],
        **{f"{side}_seconds": statistics.median(of_side) for side, of_side in seconds.items()},
        "peak_ratio": memory["trainer"] / memory["by_hand"],
        **{f"{side}_peak_bytes": peak for side, peak in memory.items()},
    }
    print(
        f"{pair.name:24} {name:20} time {middle:.3f} ({lower:.3f} to {upper:.3f})  peak {row['peak_ratio']:.3f}",
        flush=True,
    )
    return row


def check_first(name: str, steps: dict[str, Step], pair: Pair) -> None:
    """Take the first step of both, whose losses must be the same."""
    losses = {}
    for side, step in steps.items():
        torch.manual_seed(1)  # both draw the same dropout
        losses[side] = float(step(pair.batch()))
    ours, theirs = losses.values()
    if "hint" not in name and abs(ours - theirs) > 1e-3 * abs(theirs):
        raise SystemExit(f"{pair.name}, {name}: the first losses are {losses}, so the two do not compute the same.")


def peak(side: str, pair: Pair, name: str) -> int:
    """Bytes that a process of its own says, see `say_peak`."""
    command = [sys.executable, __file__, "--peak", side, "--only", pair.name, "--plan", name]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(said.splitlines()[-1])


def say_peak(side: str, pair: Pair, name: str) -> None:
    """Print how many bytes of tensors there are at the peak while one side is built and takes steps."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step, batch = SIDES[side](pair, name), pair.batch()
        for _ in range(STEPS):
            step(batch)
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    print(max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15, help="pairs of steps")
    parser.add_argument("--only", default="", help="the pairs of networks whose name has this in it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "step.json")
    parser.add_argument("--peak", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--plan", choices=PLANS, default="logits", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [pair for pair in PAIRS if options.only in pair.name]
    if options.peak:
        say_peak(options.peak, chosen[0], options.plan)
        return
    rows = [compare(pair, name, options.pairs) for pair in chosen for name in PLANS]
    result = {"threads": 1, "rows": rows, "load": os.getloadavg(), "machine": machine(), "versions": versions()}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
