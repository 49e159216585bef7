"""What a start from the teacher's weights is worth by itself: CIFAR-10, equal budget, over seeds; as JSON.

python benchmarks/starts.py [--pairs resnet56-resnet20,resnet32x4-resnet8x4] [--seeds 3] [--out results/starts.json]

The student learns from the labels alone, whatever it starts from: at random, from blocks of the teacher (SkipLayers),
or from evenly chosen weights (SelectWeights). Its epoch is chosen on validation images, its test accuracy read once.
Each epoch's accuracy on the validation images is kept, since a start is worth most at the beginning. Interrupted, it
goes on where it stopped.
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality import commit
from rich.console import Console
from rich.table import Table

from distill import SGD, Cifar10, Cosine, CrossEntropy, Model, Recipe, SelectWeights, SkipLayers, Term
from distill.initialize import Initializer
from distill.measure import machine, versions
from distill.run import Options, train

STARTS: dict[str, Initializer | None] = {"random": None, "SkipLayers": SkipLayers(), "SelectWeights": SelectWeights()}


@dataclass(frozen=True)
class Pair:
    """A teacher and a student of the CIFAR zoo, with training images and epochs that a CPU can pay for."""

    teacher: str
    student: str
    subset: int
    teacher_epochs: int
    epochs: int

    @property
    def name(self) -> str:
        """Teacher and student."""
        return f"{self.teacher}-{self.student}"


PAIRS = {
    pair.name: pair
    for pair in (Pair("resnet56", "resnet20", 10_000, 12, 5), Pair("resnet32x4", "resnet8x4", 4_000, 6, 2))
}


def recipe(pair: Pair, start: str, epochs: int, seeds: int, **settings: Any) -> Recipe:
    return Recipe(
        name=f"starts-{pair.name}-{start.lower()}",
        data=Cifar10(subset=pair.subset, validation=2000),
        plan={"task": Term(CrossEntropy())},
        optimizer=SGD(lr=0.05, momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(warmup_epochs=0.5),
        epochs=epochs,
        batch_size=64,
        precision="bf16",
        repeats=seeds,
        **settings,
    )


def run(pair: Pair, seeds: int, root: Path) -> dict[str, Any]:
    how, console = Options(root=root, resume=True), Console()
    source = f"distill.models.cifar:{pair.teacher}"
    teacher = train(recipe(pair, "teacher", pair.teacher_epochs, 1, student=Model(source)), how, console)
    rows = {}
    for start, initialize in STARTS.items():
        given = (
            {}
            if initialize is None
            else {
                "teacher": Model(source, weights=f"runs/starts-{pair.name}-teacher"),
                "initialize": initialize,
            }
        )
        student = Model(f"distill.models.cifar:{pair.student}")
        made = recipe(pair, start, pair.epochs, seeds, student=student, **given)
        report = train(made, how, console)
        rows[start] = {
            "test": [outcome.test["accuracy"] for outcome in report.outcomes],
            "validation": [curve(root / made.name, made, outcome.seed) for outcome in report.outcomes],
            "covered": None if report.coverage is None else report.coverage["share"],
        }
    return {
        "teacher": teacher.outcomes[0].test["accuracy"],
        "training_images": pair.subset,
        "teacher_epochs": pair.teacher_epochs,
        "epochs": pair.epochs,
        "starts": rows,
    }


def curve(folder: Path, made: Recipe, seed: int) -> list[float]:
    """The accuracy on the validation images after each epoch."""
    arm = "plain" if made.teacher is None else "transferred"
    place = folder if seed == made.seed else folder / "arms" / f"{arm}-{seed}"
    lines = map(json.loads, (place / "metrics.jsonl").read_text().splitlines())
    return [line["validation"]["accuracy"] for line in lines if "validation" in line]


def show(name: str, found: dict[str, Any]) -> None:
    table = Table(title=f"{name}: teacher {100 * found['teacher']:.1f} % test accuracy", title_justify="left")
    for column in ("start", "test accuracy %", "gain over random, points", "validation % by epoch"):
        table.add_column(column)
    random = found["starts"]["random"]["test"]
    for start, row in found["starts"].items():
        gains = [100 * (one - other) for one, other in zip(row["test"], random, strict=True)]
        spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in (row["test"], gains)]
        gain = "" if start == "random" else f"{statistics.mean(gains):+.1f} ± {spread[1]:.1f}"
        epochs = " ".join(f"{100 * statistics.mean(each):.0f}" for each in zip(*row["validation"], strict=True))
        table.add_row(start, f"{100 * statistics.mean(row['test']):.1f} ± {100 * spread[0]:.1f}", gain, epochs)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default=",".join(PAIRS), help=f"default: {','.join(PAIRS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--root", type=Path, default=Path("runs/starts"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "starts.json")
    options = parser.parse_args()
    found = {name: run(PAIRS[name], options.seeds, options.root) for name in options.pairs.split(",")}
    for name, each in found.items():
        show(name, each)
    result = {"commit": commit(), "machine": machine(), "versions": versions(), "seeds": options.seeds, "pairs": found}
    options.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
