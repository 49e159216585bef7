"""The verdict on transfers whose worth is known: it must not praise chance, and must name harm."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from distill import KD, SGD, Cosine, CrossEntropy, Digits, Model, Recipe, Term
from distill.data import Mix, Splits
from distill.recipe import read_recipe
from distill.report import Report, judge
from distill.run import Options, train
from tests.commands import ROOT

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class ShuffledDigits(Digits):
    """Digits whose training labels were dealt out anew."""

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits."""
        splits = super().load(seed, mix)
        labels = splits.train.labels
        labels.copy_(labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))])
        return splits


SMALL = Digits(validation=0.3, test=0.5)
WIDE = Model("distill.models.cifar:resnet8x4")
NARROW = Model("distill.models.cifar:resnet8", arguments={"width": 8})
TRAINING: dict[str, Any] = {
    "optimizer": SGD(lr=0.1, momentum=0.9, weight_decay=5e-4),
    "schedule": Cosine(warmup_epochs=0.5),
    "batch_size": 64,
}


def trained(recipe: Recipe, root: Path) -> Report:
    return train(recipe, Options(root), Console(file=io.StringIO()))


def teacher(name: str, data: Digits, root: Path, epochs: int) -> Model:
    plan = {"task": Term(CrossEntropy())}
    trained(Recipe(name=name, data=data, student=WIDE, plan=plan, epochs=epochs, **TRAINING), root)
    return Model(WIDE.source, weights=f"runs/{name}")


def transfer(name: str, source: Model, root: Path, seeds: Sequence[int], *, weight: float, **changes: Any) -> Report:
    recipe = Recipe(
        name=name,
        data=SMALL,
        teacher=source,
        student=NARROW,
        plan={"task": Term(CrossEntropy(), weight=1 - weight), "kd": Term(KD(temperature=4.0), weight=weight)},
        epochs=8,
        seed=seeds[0],
        repeats=len(seeds),
        controls=("plain",),
        allow_chance_teacher=True,
        **TRAINING,
    )
    return trained(replace(recipe, **changes), root)


def word(report: Report) -> str:
    verdict = judge(report)
    assert verdict is not None
    return verdict.word


def test_a_random_teacher_never_helped(tmp_path: Path) -> None:
    """Ten seeds, as one run over all of them and as every run that three of them in a row make."""
    report = transfer("random", WIDE, tmp_path, range(10), weight=0.5)
    assert word(report) != "helped"
    for first in range(10):
        seeds = tuple((first + more) % 10 for more in range(3))
        some = tuple(one for one in report.outcomes if one.seed in seeds)
        assert word(replace(report, seeds=tuple(sorted(seeds)), outcomes=some)) != "helped", seeds


def test_a_teacher_of_shuffled_labels_hurts_where_it_weighs_much(tmp_path: Path) -> None:
    source = teacher("shuffled", ShuffledDigits(validation=0.3, test=0.5), tmp_path, 12)
    assert word(transfer("from-shuffled", source, tmp_path, range(3), weight=0.95)) == "hurt"


@pytest.mark.timeout(900)
def test_the_demo_helped(tmp_path: Path) -> None:
    recipes = [read_recipe(ROOT / "recipes" / "image" / f"{name}.py") for name in ("digits_teacher", "digits")]
    assert word([trained(recipe, tmp_path) for recipe in recipes][-1]) == "helped"


def test_equal_runs_make_no_difference(tmp_path: Path) -> None:
    report = transfer("equal", WIDE, tmp_path, range(3), weight=0.0)
    assert word(report) == "no difference"
    for seed in range(3):
        plain, transferred = (one for one in report.outcomes if one.seed == seed)
        assert plain.test == transferred.test
