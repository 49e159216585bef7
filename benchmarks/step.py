"""Cost of a training step against a hand-written loop of the same losses: time and peak memory, as JSON.

python benchmarks/step.py [--pairs 15] [--only BERT] [--out benchmarks/results/step.json]

Three pairs of networks (pairs.py) with three plans each, eager, float32, on one thread. Time: the median ratio of pairs
of steps on the same batch, whose order alternates, so that a drifting machine hurts both sides alike; seconds are the
process's own. Memory: what a process of its own holds more at the peak of six steps than before it built anything. The
losses of the first step agree, or there is no comparison (but for the hint, whose head starts from other numbers).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from pairs import PAIRS, PLANS, Pair, Step, by_hand, with_trainer

from distill.measure import machine, versions

SIDES = {"trainer": with_trainer, "by_hand": by_hand}
WARM_UP, STEPS = 2, 6


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
    """Print by how many bytes the memory of this process grows at its peak while it builds one side and takes steps."""
    warm = torch.ones(64, 64, requires_grad=True)
    (warm @ warm).sum().backward()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = of_status("VmRSS")
    step, batch = SIDES[side](pair, name), pair.batch()
    for _ in range(STEPS):
        step(batch)
    print(of_status("VmHWM") - before)


def of_status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


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
