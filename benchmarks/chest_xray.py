"""The chest X-ray pipeline on real radiographs: 1,000 of ChestX-ray14, reduced to 64x64, by their official lists.

python benchmarks/chest_xray.py [--seeds 3] [--out results/chest_xray.json]

690 films to train and to choose on, 310 to test on: far too few to stand beside any published number, and every output
says so. What they show is that the whole way runs on real films, and what its intervals look like. Teacher, plain and
transferred student with their intervals over patients; the control has the same budget and seeds. Interrupted, it goes
on where it stopped.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from quality import commit
from rich.console import Console

from distill import (
    SGD,
    AttentionTransfer,
    BinaryCrossEntropy,
    ChestXray,
    Cosine,
    Model,
    MultiLabelKD,
    Recipe,
    SkipLayers,
    Term,
)
from distill.measure import machine, versions
from distill.report import Report, to_json
from distill.run import Options, train

CAUTION = "1,000 reduced films are too few to compare with published results."
DATA = ChestXray(size=64, validation=0.25, cache=False)
TEACHER = "distill.models.cifar:resnet20"
STEM = {"stem_stride": 2}
OPTIMIZER = SGD(lr=0.05, momentum=0.9, weight_decay=5e-4)


def teacher() -> Recipe:
    return Recipe(
        name="chest-real-teacher",
        data=DATA,
        student=Model(TEACHER, arguments=STEM),
        plan={"task": Term(BinaryCrossEntropy())},
        optimizer=OPTIMIZER,
        schedule=Cosine(warmup_epochs=0.5),
        epochs=30,
        batch_size=32,
    )


def pair(seeds: int) -> Recipe:
    return Recipe(
        name="chest-real",
        data=DATA,
        teacher=Model(TEACHER, weights="runs/chest-real-teacher", arguments=STEM),
        student=Model("distill.models.cifar:resnet8", arguments=STEM),
        initialize=SkipLayers(),
        plan={
            "task": Term(BinaryCrossEntropy(), weight=0.5),
            "kd": Term(MultiLabelKD(), weight=5.0),
            "attention": Term(AttentionTransfer(), weight=100.0, student="layer3", teacher="layer3"),
        },
        optimizer=OPTIMIZER,
        schedule=Cosine(warmup_epochs=0.5),
        epochs=20,
        batch_size=32,
        repeats=seeds,
        controls=("plain", "initialized"),
    )


def figures(report: Report) -> dict[str, Any]:
    """What the report says label by label, with its verdict."""
    values = json.loads(to_json(report))
    return {
        "verdict": values["summary"]["sentence"],
        "by_label": values["by_label"],
        "runs": [{key: one[key] for key in ("arm", "seed", "test", "validation")} for one in values["outcomes"]],
        "teacher": values["teacher"],
        "notes": values["notes"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--root", type=Path, default=Path("runs/chest_xray"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "chest_xray.json")
    options = parser.parse_args()
    how, console = Options(root=options.root, resume=True), Console()
    train(teacher(), how, console)
    report = train(pair(options.seeds), how, console)
    console.print(CAUTION, style="bold")
    made = {"commit": commit(), "machine": machine(), "versions": versions(), "caution": CAUTION}
    options.out.write_text(json.dumps({**made, **figures(report)}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
