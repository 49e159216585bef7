"""What a transfer is worth on real images: ResNet-20 into ResNet-8 on CIFAR-10, equal budget, over seeds; as JSON.

python benchmarks/quality.py --subset 10000 [--epochs 12] [--seeds 3] [--out benchmarks/results/quality.json]

Teacher and students see the same training images, in bf16. Each student has the same epochs, optimizer and seeds; its
epoch is chosen on validation images and its test accuracy is read once. Interrupted, it goes on where it stopped.
"""

import argparse
import json
import time
from pathlib import Path

from rich.console import Console

from distill import KD, SGD, Cifar10, Cosine, CrossEntropy, Model, Recipe, SelectWeights, Term
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


def run(options: argparse.Namespace) -> tuple[Report, Report]:
    data = Cifar10(subset=options.subset, validation=2000)
    how, console = Options(root=options.root, resume=True), Console()
    teacher = train(teacher_recipe(data, options.teacher_epochs), how, console)
    return teacher, train(student_recipe(data, options.epochs, options.seeds), how, console)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subset", type=int, default=10_000, help="training images, drawn class by class")
    parser.add_argument("--epochs", type=int, default=12, help="of each student")
    parser.add_argument("--teacher-epochs", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--root", type=Path, default=Path("runs/quality"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "quality.json")
    options = parser.parse_args()
    start = time.perf_counter()
    teacher, students = run(options)
    result = {
        "setting": {name: str(value) for name, value in vars(options).items() if name not in ("root", "out")},
        "seconds": time.perf_counter() - start,
        "teacher": json.loads(to_json(teacher))["summary"],
        "report": json.loads(to_json(students)),
    }
    options.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
