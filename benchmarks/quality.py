"""What a transfer is worth on real images: ResNet-20 into ResNet-8 on CIFAR-10, equal budget, over seeds; as JSON.

python benchmarks/quality.py --subset 10000 [--epochs 12] [--seeds 3] [--out benchmarks/results/quality.json]
python benchmarks/quality.py --losses all [--losses KD,DKD,CRD] [--epochs 5] compares the methods of methods.py instead.
python benchmarks/quality.py --scenario sentiment [--losses KD,PKD] [--epochs 2] those of sentiment.py, on SST-2.

Teacher and students see the same training images, in bf16. Each student has the same epochs, optimizer and seeds; its
epoch is chosen on validation images and its test accuracy is read once. Interrupted, it goes on where it stopped, so
several processes can share the methods of one root, and a last call with all of them collects.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentiment
from methods import TASK, plans
from rich.console import Console
from rich.table import Table

from distill import KD, SGD, Cifar10, Cosine, CrossEntropy, Model, Recipe, SelectWeights, Term
from distill.measure import machine, versions
from distill.plan import Plan
from distill.report import Report, to_json
from distill.run import Options, train


def teacher_recipe(data: Cifar10, epochs: int) -> Recipe:
    return Recipe(
        name="quality-teacher",
        data=data,
        student=Model("distill.models.cifar:resnet20"),
        plan={"task": Term(CrossEntropy())},
        optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True),
        schedule=Cosine(warmup_epochs=1),
        epochs=epochs,
        batch_size=128,
        precision="bf16",
    )


def student_recipe(data: Cifar10, epochs: int, seeds: int) -> Recipe:
    return Recipe(
        name="quality-kd",
        data=data,
        teacher=Model("distill.models.cifar:resnet20", weights="runs/quality-teacher"),
        student=Model("distill.models.cifar:resnet8"),
        initialize=SelectWeights(),
        plan={
            "task": Term(CrossEntropy(), weight=0.1),
            "kd": Term(KD(temperature=4.0), weight=0.9),
        },
        optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True),
        schedule=Cosine(warmup_epochs=1),
        epochs=epochs,
        batch_size=128,
        precision="bf16",
        repeats=seeds,
        controls=("plain", "initialized"),
    )


def method_recipe(data: Cifar10, name: str, plan: Plan, epochs: int, seeds: int) -> Recipe:
    """The literature's optimizer and batch; the student starts at random and learns by this one method."""
    teacher = Model("distill.models.cifar:resnet20", weights="runs/quality-teacher")
    return Recipe(
        name=name,
        data=data,
        teacher=teacher if any(term.needs_teacher for term in plan.values()) else None,
        student=Model("distill.models.cifar:resnet8"),
        plan=plan,
        optimizer=SGD(lr=0.05, momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(warmup_epochs=0.5),
        epochs=epochs,
        batch_size=64,
        precision="bf16",
        repeats=seeds,
    )


def run(options: argparse.Namespace) -> tuple[Report, Report]:
    data = Cifar10(subset=options.subset, validation=2000)
    how, console = Options(root=options.root, resume=True), Console()
    teacher = train(teacher_recipe(data, options.teacher_epochs), how, console)
    return teacher, train(student_recipe(data, options.epochs, options.seeds), how, console)


def run_methods(options: argparse.Namespace) -> dict[str, Any]:
    """The teacher, the plain student and each method, as rows with their test accuracy under each seed."""
    data = Cifar10(subset=options.subset, validation=2000)
    how, console = Options(root=options.root, resume=True), Console()
    known = {"plain": {"task": TASK}, **plans(options.subset, options.epochs)}
    names = list(known) if options.losses == "all" else ["plain", *options.losses.split(",")]
    teacher = train(teacher_recipe(data, options.teacher_epochs), how, console)
    rows = {}
    for name in names:
        folder = "losses-" + "".join(letter if letter.isalnum() else "-" for letter in name.lower())
        report = train(method_recipe(data, folder, known[name], options.epochs, options.seeds), how, console)
        rows[name] = {
            "test": [outcome.test["accuracy"] for outcome in report.outcomes],
            "agreement": [outcome.agreement for outcome in report.outcomes],
            "seconds": [outcome.seconds for outcome in report.outcomes],
        }
    return {"teacher": teacher.outcomes[0].test["accuracy"], "methods": rows}


def run_sentiment(options: argparse.Namespace) -> dict[str, Any]:
    """The teacher and each method on SST-2, as rows with their test accuracy under each seed."""
    how, console = Options(root=options.root, resume=True), Console()
    known = sentiment.methods(options.epochs)
    names = list(known) if options.losses in (None, "all") else options.losses.split(",")
    teacher = train(sentiment.teacher_recipe(), how, console)
    rows = {}
    for name in names:
        report = train(sentiment.method_recipe(name, known[name], options.seeds), how, console)
        rows[name] = {
            "test": [outcome.test["accuracy"] for outcome in report.outcomes],
            "validation": [outcome.validation["accuracy"] for outcome in report.outcomes],
            "agreement": [outcome.agreement for outcome in report.outcomes],
            "seconds": [outcome.seconds for outcome in report.outcomes],
        }
    return {
        "teacher": teacher.outcomes[0].test["accuracy"],
        "teacher_parameters": teacher.student_cost.parameters,
        "student_parameters": report.student_cost.parameters,
        "methods": rows,
    }


def gains(rows: dict[str, Any], control: str = "plain") -> list[dict[str, Any]]:
    """Each method's accuracy and its gain over the control in points, paired by seed, best first."""
    plain = rows[control]["test"]
    found = []
    for name, row in rows.items():
        difference = [100 * (one - other) for one, other in zip(row["test"], plain, strict=True)]
        found.append(
            {
                "method": name,
                "accuracy": 100 * statistics.mean(row["test"]),
                "spread": 100 * statistics.stdev(row["test"]),
                "gain": statistics.mean(difference),
                "gain_spread": statistics.stdev(difference),
                "gain_standard_error": statistics.stdev(difference) / len(difference) ** 0.5,
                "seconds": statistics.mean(row["seconds"]),
            }
        )
    return sorted(found, key=lambda row: -row["accuracy"])


def show(table_rows: Sequence[dict[str, Any]], teacher: float, control: str = "plain") -> None:
    table = Table(title=f"Teacher {100 * teacher:.1f} % test accuracy", title_justify="left")
    for column in ("method", "test accuracy %", f"gain over {control}, points", "seconds"):
        table.add_column(column)
    for row in table_rows:
        accuracy = f"{row['accuracy']:.1f} ± {row['spread']:.1f}"
        gain = "" if row["method"] == control else f"{row['gain']:+.1f} ± {row['gain_spread']:.1f}"
        table.add_row(row["method"], accuracy, gain, f"{row['seconds']:.0f}")
    Console().print(table)


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subset", type=int, default=10_000, help="training images, drawn class by class")
    parser.add_argument("--scenario", choices=("image", "sentiment"), default="image")
    parser.add_argument("--losses", default=None, metavar="all|NAME,NAME", help="compare these methods")
    parser.add_argument(
        "--epochs", type=int, default=None, help="of each student; default 12, 5 with --losses, 2 for sentiment"
    )
    parser.add_argument("--teacher-epochs", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--root", type=Path, default=Path("runs/quality"))
    parser.add_argument("--out", type=Path, default=None, help="default: in results/")
    options = parser.parse_args()
    text = options.scenario == "sentiment"
    options.epochs = options.epochs or (2 if text else 12 if options.losses is None else 5)
    name = "sentiment_quality" if text else "quality" if options.losses is None else "losses_quality"
    out = options.out or Path(__file__).parent / "results" / f"{name}.json"
    start = time.perf_counter()
    without = ("root", "out", *(("subset", "teacher_epochs") if text else ()))
    setting = {name: str(value) for name, value in vars(options).items() if name not in without}
    if not text and options.losses is None:
        teacher, students = run(options)
        found = {
            "teacher": json.loads(to_json(teacher))["summary"],
            "report": json.loads(to_json(students)),
        }
    else:
        found = run_sentiment(options) if text else run_methods(options)
        control = "initialized" if text else "plain"
        found |= {"commit": commit(), "machine": machine(), "versions": versions()}
        if control in found["methods"]:
            found["table"] = gains(found["methods"], control)
            show(found["table"], found["teacher"], control)
    result = {"setting": setting, "seconds": time.perf_counter() - start, **found}
    out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
