"""Does `distill rank` put teachers in the order of what their students become? Five of known worth, as JSON.

python benchmarks/rank.py [--seeds 2] [--root runs/rank] [--out benchmarks/results/rank.json]

Five ResNet-20 for CIFAR-10: with random weights; trained on other labels (how bright an image is, in ten classes);
trained for one epoch; trained on images of five of the ten classes alone; trained well. Each is the source of ResNet-8
students, which learn by a hint from its features beside the labels, under equal budget and seeds, since a source of
other labels has no answers to the target's. Sources are scored on the students' training images, before any training of
theirs. Then weighted Kendall's tau (Vigna, 2015, arXiv:1404.3325) of every score with the students' mean test accuracy.
"""

import argparse
import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from quality import commit
from rich.console import Console
from scipy.stats import weightedtau

from distill import SGD, Cifar10, Cosine, CrossEntropy, Hint, Model, Recipe, Term
from distill.data import Mix, Splits
from distill.data.examples import Examples
from distill.measure import machine, versions
from distill.rank import SCORES, candidate, score
from distill.run import Options, train

IMAGES, TEACHERS_IMAGES, HALF = 2_000, 6_000, 5
ARCHITECTURE, STUDENT = "distill.models.cifar:resnet20", "distill.models.cifar:resnet8"


@dataclass(frozen=True)
class Bright(Cifar10):
    """CIFAR-10 with other labels: in which tenth of all brightnesses an image lies."""

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits."""
        splits = super().load(seed, mix)
        for examples in (splits.train, splits.validation, splits.test):
            light = images_of(examples).float().mean((1, 2, 3))
            order = light.argsort().argsort()
            examples.labels = order * 10 // len(order)
        return replace(splits, classes=tuple(f"tenth {number}" for number in range(10)))


@dataclass(frozen=True)
class Few(Cifar10):
    """CIFAR-10 with the training images of five classes alone; the network keeps ten answers."""

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits."""
        splits = super().load(seed, mix)
        kept = (splits.train.labels < HALF).nonzero().flatten()
        splits.train.images, splits.train.labels = images_of(splits.train)[kept], splits.train.labels[kept]
        return splits


def images_of(examples: Examples) -> torch.Tensor:
    if isinstance(examples.images, torch.Tensor):
        return examples.images
    return torch.stack([examples.images[place] for place in range(len(examples))])


def recipe(name: str, data: Any, epochs: int, **settings: Any) -> Recipe:
    return Recipe(
        name=name,
        data=data,
        optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True),
        schedule=Cosine(warmup_epochs=min(1, epochs / 2)),
        epochs=epochs,
        batch_size=64,
        precision="bf16",
        **settings,
    )


def sources(root: Path, how: Options, console: Console) -> dict[str, str]:
    """{name: what `distill rank` calls it}; the trained ones are trained where they are not there yet."""
    common = {"validation": 1_000}
    data = {
        "little": (Cifar10(subset=TEACHERS_IMAGES, **common), 1),
        "other labels": (Bright(subset=TEACHERS_IMAGES, **common), 15),
        "part of the classes": (Few(subset=TEACHERS_IMAGES, **common), 15),
        "well": (Cifar10(subset=TEACHERS_IMAGES, **common), 15),
    }
    found = {"random": ARCHITECTURE}
    for name, (of_source, epochs) in data.items():
        folder = f"rank-{name.replace(' ', '-')}"
        student = {"student": Model(ARCHITECTURE), "plan": {"task": Term(CrossEntropy())}}
        train(recipe(folder, of_source, epochs, **student), how, console)
        found[name] = str(root / folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--root", type=Path, default=Path("runs/rank"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rank.json")
    options = parser.parse_args()
    how, console = Options(root=options.root, resume=True), Console(quiet=True)
    named = sources(options.root, how, console)
    target = Cifar10(subset=IMAGES, validation=1_000)
    hint = Term(Hint(), weight=10.0, student="embedding", teacher="embedding")
    accuracy: dict[str, list[float]] = {}
    for name, source in named.items():
        teacher = Model(ARCHITECTURE, weights=None if name == "random" else source)
        made = recipe(
            f"rank-from-{name.replace(' ', '-')}", target, 6, teacher=teacher, student=Model(STUDENT),
            plan={"task": Term(CrossEntropy()), "hint": hint}, repeats=options.seeds, allow_chance_teacher=True,
        )  # fmt: skip
        accuracy[name] = list(train(made, how, console).values("transferred"))
        mean = 100 * statistics.mean(accuracy[name])
        print(f"{name:22} {mean:.2f} % test accuracy of its students, {len(accuracy[name])} seeds", flush=True)
    asked = recipe(
        "rank", target, 1, student=Model("distill.models.cifar:resnet8"), plan={"task": Term(CrossEntropy())}
    )
    found = score(asked, [candidate(source, options.root) for source in named.values()], options.root, examples=IMAGES)
    worth = [statistics.mean(accuracy[name]) for name in named]
    tau = {key: float(weightedtau([one.scores[key].value for one in found], worth).statistic) for key in SCORES}
    for key, value in tau.items():
        print(f"{SCORES[key]:14} weighted tau {value:+.2f}")
    rows = {
        name: {
            "students": accuracy[name],
            "scores": {key: [each.value, each.low, each.high] for key, each in one.scores.items()},
            "pass_seconds": one.pass_seconds,
            "score_seconds": one.score_seconds,
        }
        for name, one in zip(named, found, strict=True)
    }
    told = {"commit": commit(), "images": IMAGES, "seeds": options.seeds, "weighted_tau": tau, "sources": rows}
    options.out.write_text(json.dumps({**told, "machine": machine(), "versions": versions()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
