"""A run's folder made by hand, with all that a page can show, in words that would do harm unescaped."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distill.compare import Ablated, Cka, Comparison
from distill.compare import to_json as comparison_to_json
from distill.compare.comparison import Against, Answer, ClassGain, Differing, Judged, Likeness
from distill.finished import Finished
from distill.initialize import Coverage
from distill.initialize.coverage import TensorCoverage
from distill.metrics import Bin
from distill.recipe import Recipe, to_json
from distill.report import Interval, Report
from tests.report.made import HELPED, report
from tests.tiny import Blobs, pair_recipe

HOSTILE = '<img src=x onerror="window.harmed=1"></script><script>window.harmed=1</script>'
CLASSES = (HOSTILE, "bee", "cat")
MODELS = ("teacher", "plain", "transferred")


def run_of(folder: Path, *, recipe: Recipe | None = None, terms: Sequence[str] = (), **changes: Any) -> Finished:
    """A complete run in its folder, three seeds of two arms; with logs, without a comparison."""
    recipe = recipe or pair_recipe(repeats=3, controls=("plain",), data=Blobs(classes=CLASSES))
    made = report(HELPED, name=recipe.name, recipe=json.loads(to_json(recipe)), **changes)
    folder.mkdir(parents=True)
    run = Finished(folder, recipe, made)
    terms = terms or tuple(recipe.plan)
    for arm in made.arms:
        for seed in made.seeds:
            write_log(run.place(arm, seed), ("task",) if arm == "plain" else terms, 30)
    return run


def write_log(folder: Path, terms: Sequence[str], lines: int) -> None:
    """A log whose values fall; of term number t they begin at t + 1."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("w") as file:
        start = {"accuracy": 0.1, "nll": 2.5}
        file.write(json.dumps({"step": 0, "epoch": 0, "start": start}) + "\n")
        for step in range(1, lines + 1):
            raw = {name: (number + 1) * math.exp(-step / lines) for number, name in enumerate(terms)}
            values = {
                "raw": raw, "weighted": {name: value / 2 for name, value in raw.items()},
                "gradient_norm": 1.0, "learning_rate": 0.1, "examples_per_second": 100.0, "stage": "train",
            }  # fmt: skip
            file.write(json.dumps({"step": step, "epoch": step / 10, **values}) + "\n")
            if step % 10 == 0:
                found = {"accuracy": 0.2 + 0.7 * step / lines, "nll": 2 - step / lines}
                file.write(json.dumps({"step": step, "epoch": step / 10, "validation": found}) + "\n")


def interval(difference: float) -> Interval:
    return Interval(difference, difference - 0.02, difference + 0.02, 0.01)


def comparison_of(made: Report, *, classes: Sequence[str] = CLASSES, **changes: Any) -> Comparison:
    """A comparison of that report, with something in each of its parts."""
    bins = tuple(Bin(n / 5, (n + 1) / 5, 4 * n, n / 5 + 0.1, n / 5) for n in range(5))
    test = dict(made.outcomes[0].test)
    found = Comparison(
        run=made.name,
        headline=made.headline,
        seeds=made.seeds,
        examples=12,
        word="helped",
        sentence="The transfer helped.",
        reasons=(f"A reason with {HOSTILE}.",),
        control="plain",
        models=tuple(Judged(name, test, {}, bins, 0.1) for name in MODELS),
        against=tuple(Against(name, interval(0.03), (0.01, 0.2, 0.5), 0.1, 0.05, 0.8, 0.05) for name in MODELS[:2]),
        classes=tuple(
            ClassGain(name, 10 * number, 0.8, 0.8 + 0.05 * number, interval(0.05 * number - 0.05))
            for number, name in enumerate(classes)
        ),
        likeness=tuple(Likeness(name, 0.9, 0.05, 0.95, math.nan) for name in MODELS[1:]),
        differing=tuple(
            Differing(number, name, tuple(Answer(model, name, 0.9) for model in MODELS))
            for number, name in enumerate(classes[:6])
        ),
        cka=Cka(("layer1", HOSTILE), ("layer1", "layer2"), ((0.9, 0.1), (0.2, 0.3)), ((1.0, 0.5), (0.6, 0.7)), 64),
        ablated=(Ablated("kd", (0.9, 0.91), interval(0.04)), Ablated("hint", (), None, "nothing would be left")),
        notes=("A note.",),
    )
    return replace(found, **changes)


def coverage() -> dict[str, Any]:
    """Of two tensors, one from the teacher."""
    given = TensorCoverage("layer1.weight", "parameter", (4, 1, 3, 3), "selected", HOSTILE, (8, 1, 3, 3))
    left = TensorCoverage("fc.bias", "parameter", (3,), "left", reason="the teacher has none")
    return Coverage((given, left)).to_json()


def full_run(folder: Path) -> Finished:
    """A run with everything on its page, hostile wherever text comes from outside."""
    changes = {"notes": (HOSTILE,), "origin": f"Made up {HOSTILE}", "machine": {"cpu": HOSTILE, "cores": 2}}
    parts = {"teacher": 2.0, "forward": 1.0, "backward": 2.0, "wait": 0.5}
    run = run_of(folder, coverage=coverage(), pictures=((HOSTILE, f"{HOSTILE}.png"),), **changes)
    outcomes = tuple(replace(one, spent=parts) for one in run.report.outcomes)
    made = replace(run.report, outcomes=outcomes, recipe={**run.report.recipe, "data": {"folder": HOSTILE}})
    (folder / "compare.json").write_text(comparison_to_json(comparison_of(made)))
    (folder / "plan.txt").write_text(f"The plan\n  {HOSTILE}\n")
    return replace(run, report=made)


def splits_of(run: Finished) -> Any:
    """The run's data; its test split has twelve images."""
    torch.manual_seed(0)
    return run.recipe.data.load(0, None)
