"""The settings that `distill plan --tune` finds here, against a hand-written eager float32 loop with a live teacher.

python benchmarks/fastest.py [--pairs 12] [--tune 90] [--only cifar,bert] [--out benchmarks/results/fastest.json]
python benchmarks/fastest.py --accuracy [--seeds 3]: what they do to the accuracy of a short run instead.

Four pairs of steps by answers and labels, on one thread: ResNet-32x4 to ResNet-8x4 on CIFAR-10, batch 64; ResNet-34 to
ResNet-18 on random 64x64 images, batch 16; a 6-layer MiniLM to 3 layers on SST-2, batch 16, both padded to 64 tokens;
and the same in buckets of similar length against padding to 64. The recipe is tuned as a user would do it, its settings
are applied, and blocks of its steps take turns with blocks of the loop's; the first pair also reads its teacher's
answers from the cache. Loading is left out on both sides. What `--tune` measured, kept and refused is in the JSON,
with the seconds of the first step, which compiles.
"""

import argparse
import copy
import io
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from pairs import CIFAR, PAIRS, Pair, loop
from PIL import Image
from rich.console import Console
from sentiment import encoder
from torch import nn

from distill import KD, SGD, AdamW, Cifar10, Cosine, CrossEntropy, ImageFolder, Model, Recipe, SkipLayers, Sst2, Term
from distill.batch import Batch
from distill.build import make_accelerator, stage_trainer, training_feed
from distill.measure import machine, versions
from distill.prepare import Parts, load_splits, prepare
from distill.recipe import apply_overrides
from distill.run import Options, train
from distill.teacher_cache import TeacherCache
from distill.tune import tune

PLAN = {"task": Term(CrossEntropy(), weight=0.1), "kd": Term(KD(temperature=4.0), weight=0.9)}
BLOCK, WARM_UP, CACHED = 4, 2, 640
RANDOM = Path("fastest-images")


@dataclass(frozen=True)
class Case:
    """A recipe and the hand-written loop beside it. padded: the recipe of the loop's batches, where they are others."""

    name: str
    recipe: Recipe
    pair: Pair
    padded: Recipe | None = None
    optimizer: Callable[[Any], torch.optim.Optimizer] = lambda own: torch.optim.SGD(own, 0.01, 0.9, weight_decay=5e-4)


def cases(folder: Path) -> dict[str, Case]:
    base: dict[str, Any] = {"plan": PLAN, "epochs": 1, "precision": "float32", "allow_chance_teacher": True}
    sgd = {"optimizer": SGD(lr=0.01, momentum=0.9, weight_decay=5e-4)}
    cifar = Recipe(
        name="fastest-cifar",
        data=Cifar10(subset=2_000, validation=200),
        teacher=Model("distill.models.cifar:resnet32x4"),
        student=Model("distill.models.cifar:resnet8x4"),
        batch_size=64,
        **base,
        **sgd,
    )
    imagenet = Recipe(
        name="fastest-resnet",
        data=ImageFolder(str(folder / RANDOM), size=64),
        teacher=Model("torchvision:resnet34"),
        student=Model("torchvision:resnet18"),
        batch_size=16,
        **base,
        **sgd,
    )
    bert = Recipe(
        name="fastest-bert",
        data=Sst2(max_length=64, padding="max_length"),
        teacher=Model(f"transformers:{encoder()}", weights="pretrained"),
        student=Model(f"transformers:{encoder()}", arguments={"num_hidden_layers": 3}, tokenizer=encoder()),
        initialize=SkipLayers(),
        optimizer=AdamW(lr=5e-5),
        batch_size=16,
        **base,
    )
    buckets = replace(bert, name="fastest-buckets", data=Sst2(max_length=64, padding="buckets"))
    adamw: dict[str, Any] = {"optimizer": lambda own: torch.optim.AdamW(own, lr=5e-5)}
    return {
        "cifar": Case("ResNet-32x4 to ResNet-8x4", cifar, CIFAR),
        "resnet": Case("ResNet-34 to ResNet-18 at 64x64", imagenet, PAIRS[1]),
        "bert": Case("MiniLM of 6 layers to 3, padded to 64", bert, PAIRS[2], **adamw),
        "buckets": Case("MiniLM of 6 layers to 3, buckets against padding to 64", buckets, PAIRS[2], bert, **adamw),
    }


def write_images(folder: Path) -> None:
    """Random 64x64 images of two classes, for training and for the test."""
    drawn = torch.Generator().manual_seed(0)
    for split, images in (("train", 40), ("test", 8)):
        for label in ("a", "b"):
            place = folder / RANDOM / split / label
            place.mkdir(parents=True)
            for number in range(images):
                pixels = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=drawn)
                Image.fromarray(pixels.numpy()).save(place / f"{number}.png")


def parts_of(recipe: Recipe) -> Parts:
    return prepare(recipe, load_splits(recipe, 0, Path("runs")), 0, Path("runs"))


def tuned(parts: Parts, seconds: float) -> tuple[list[str], str]:
    """The words that `distill plan --tune` says to add, and all that it prints."""
    said = io.StringIO()
    tune(parts, seconds, Console(file=said, width=120))
    found = re.search(r"of its time with: (.*)", said.getvalue())
    words = [] if found is None else found.group(1).split()
    workers = words.index("--workers") if "--workers" in words else len(words)
    return words[:workers] + words[workers + 2 :], said.getvalue()


@dataclass
class Ours:
    """The trainer of a recipe, and its batches without end."""

    parts: Parts
    recipe: Recipe
    first_seconds: float = 0.0

    def __post_init__(self) -> None:
        accelerator = make_accelerator(self.recipe)
        own = replace(
            self.parts,
            recipe=self.recipe,
            student=copy.deepcopy(self.parts.student),
            teacher=copy.deepcopy(self.parts.teacher),
        )
        self.trainer, _ = stage_trainer(own, self.recipe.all_stages()[0], accelerator, 0)
        self.trainer.learner.train()
        self.cache = self.trainer.cache
        feed = training_feed(own, accelerator, 0, self.cache)
        self.windows = (window for epoch in count() for _, window in feed(epoch))
        if self.cache is not None:
            for _ in range(feed.batches.steps):
                self.trainer.step(next(self.windows))
            self.cache.keep()
            self.cache.refresh()
        start = time.process_time()
        self.trainer.step(next(self.windows))
        self.first_seconds = time.process_time() - start

    def block(self) -> Callable[[], None]:
        """So many updates on the next batches, which are loaded before."""
        windows = [next(self.windows) for _ in range(BLOCK)]
        assert self.cache is None or all(b.kept is not None and b.kept.rows is not None for w in windows for b in w)

        def run() -> None:
            make_accelerator(self.recipe)  # all accelerators share one state: that of the one made last
            for window in windows:
                self.trainer.step(window)
            self.trainer.lines.rows.clear()

        return run


class ByHand:
    """The hand-written loop on copies of the same models, and batches of the same data."""

    def __init__(self, case: Case) -> None:
        recipe = case.padded or case.recipe
        parts = parts_of(recipe)
        assert parts.teacher is not None
        self.step = loop(case.pair, "logits", copied(parts.teacher), copied(parts.student), case.optimizer)
        feed = training_feed(parts, make_accelerator(recipe), 0)
        self.batches: Iterator[Batch] = (window[0] for epoch in count() for _, window in feed(epoch))

    def block(self) -> Callable[[], None]:
        """So many updates on the next batches, which are loaded before."""
        batches = [next(self.batches) for _ in range(BLOCK)]

        def run() -> None:
            for batch in batches:
                self.step(batch)

        return run


def copied(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).requires_grad_(True)


def ratio(sides: dict[str, Callable[[], Callable[[], None]]], pairs: int) -> dict[str, object]:
    """By hand over ours: blocks in turns, whose order alternates."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(pairs + WARM_UP):
        for side in list(sides) if number % 2 else [*sides][::-1]:
            run = sides[side]()
            start = time.process_time()
            run()
            if number >= WARM_UP:
                seconds[side].append((time.process_time() - start) / BLOCK)
    ratios = [theirs / ours for theirs, ours in zip(*seconds.values(), strict=True)]
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    medians = {f"{side}_seconds": statistics.median(taken) for side, taken in seconds.items()}
    return {"times_as_fast": middle, "quartiles": [lower, upper], "pairs": pairs, **medians}


def measure(case: Case, pairs: int, seconds: float) -> list[dict[str, object]]:
    parts = parts_of(case.recipe)
    words, said = tuned(parts, seconds)
    print(said, flush=True)
    by_hand = ByHand(case)
    best = apply_overrides(case.recipe, words)
    recipes = {case.name: best}
    if case.pair is CIFAR:
        cached = replace(best, data=replace(case.recipe.data, subset=CACHED), teacher_cache=TeacherCache())
        recipes[f"{case.name}, cached"] = cached
    rows = []
    for name, recipe in recipes.items():
        ours = Ours(parts if recipe is best else parts_of(recipe), recipe)
        found = ratio({"by_hand": by_hand.block, "ours": ours.block}, pairs)
        rows.append(
            {
                "row": name,
                "settings": words,
                "first_step_seconds": ours.first_seconds,
                **found,
                "tune": said.splitlines(),
            }
        )
        print(f"{name:56} {found['times_as_fast']:.2f} times as fast with {' '.join(words)}", flush=True)
    return rows


def accuracy(words: list[str], seeds: int, root: Path) -> dict[str, object]:
    """Test accuracy of a short run as it is in float32 and with the settings, over seeds."""
    data = Cifar10(subset=4_000, validation=1_000)
    training: dict[str, Any] = {
        "data": data,
        "optimizer": SGD(lr=0.05, momentum=0.9, weight_decay=5e-4),
        "schedule": Cosine(warmup_epochs=0.5),
        "batch_size": 64,
    }
    teacher = Recipe(
        name="fastest-teacher",
        student=Model("distill.models.cifar:resnet32x4"),
        plan={"task": Term(CrossEntropy())},
        epochs=4,
        precision="bf16",
        **training,
    )
    short = Recipe(
        name="fastest-float32",
        teacher=Model("distill.models.cifar:resnet32x4", weights="runs/fastest-teacher"),
        student=Model("distill.models.cifar:resnet8x4"),
        plan=PLAN,
        epochs=2,
        precision="float32",
        repeats=seeds,
        **{**training, "data": replace(data, subset=2_000)},
    )
    how, console = Options(root=root, resume=True), Console()
    train(teacher, how, console)
    named = {"float32": short, "settings": replace(apply_overrides(short, words), name="fastest-settings")}
    found = {name: list(train(recipe, how, console).values("transferred")) for name, recipe in named.items()}
    means = {name: statistics.mean(values) for name, values in found.items()}
    spread = {name: statistics.stdev(values) for name, values in found.items()}
    for name in found:
        print(f"{name:10} {100 * means[name]:.2f} ± {100 * spread[name]:.2f} % test accuracy over {seeds} seeds")
    return {"settings": words, "test_accuracy": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12, help="pairs of blocks")
    parser.add_argument("--tune", type=float, default=90.0, help="seconds that each recipe is tuned for")
    parser.add_argument("--only", default="", help="some of cifar, resnet, bert, buckets; default: all")
    parser.add_argument("--accuracy", action="store_true", help="compare the accuracy of short runs instead")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of the short runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fastest.json")
    options = parser.parse_args()
    if not options.accuracy:
        torch.set_num_threads(1)
    result = json.loads(options.out.read_text()) if options.out.exists() else {}
    if options.accuracy:
        words = next(row["settings"] for row in result["rows"] if row["row"].startswith("ResNet-32x4"))
        result["accuracy"] = accuracy(words, options.seeds, options.root)
    else:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            os.environ["DISTILL_CACHE"] = str(folder / "cache")
            write_images(folder)
            every = cases(folder)
            chosen = options.only.split(",") if options.only else list(every)
            result["rows"] = [row for key in chosen for row in measure(every[key], options.pairs, options.tune)]
        result |= {"threads": 1, "load": os.getloadavg()}
    result |= {"machine": machine(), "versions": versions()}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
