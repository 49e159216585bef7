"""Whole runs of each scenario: two and three processes with uneven shares make the steps, student and report of one."""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from rich.console import Console
from safetensors.torch import load_file

from distill.data import Mix
from distill.heads import Contrast, Conv1x1
from distill.losses import (
    CRD,
    KD,
    BinaryCrossEntropy,
    CrossEntropy,
    Hint,
    LabelEmbedding,
    MultiLabelKD,
    RKDAngle,
    RKDDistance,
    SimilarityPreserving,
)
from distill.plan import Term
from distill.recipe import SGD, AdamW, Recipe
from distill.report import Report
from distill.run import Options, train
from distill.terms import minilmv2_terms
from distill.weighting import Uncertainty
from tests.end_to_end.test_text import SOFT
from tests.end_to_end.test_text import recipe as text_recipe
from tests.every_loss import CONVOLUTIONS  # without BatchNorm, whose statistics each process takes from its own share
from tests.processes import run_processes
from tests.tiny import pair_recipe
from tests.tiny_labels import Marks, labels_recipe

STEPS = 20
PAIR: dict[str, Any] = {"teacher": CONVOLUTIONS[0], "student": CONVOLUTIONS[1], "allow_chance_teacher": True}
CUT: dict[str, Any] = {"micro_batch_size": 3, "log_every": 1, "ema": 0.9, "clip": 2.0, "precision": "float32"}


def samples(loss: Any, **settings: Any) -> Term:
    return Term(loss, student="embedding", teacher="embedding", **settings)


# 36 images make four steps of 11, 11, 11 and 3; 48 texts five of 11 and 4; 60 X-rays five of 13 and 8. So two and three
# processes have shares of 6 and 5, 4, 4 and 3, 2 and 1, 7 and 6, 5, 4 and 4, and most of them several micro-batches.
RECIPES: Mapping[str, Recipe] = {
    "image": pair_recipe(
        **PAIR,
        **CUT,
        plan={
            "task": Term(CrossEntropy(), weight=0.5),
            "kd": Term(KD(temperature=2.0)),
            "hint": Term(Hint(), student="layer1", teacher="layer1", head=Conv1x1(norm=False)),
            "distance": samples(RKDDistance()),
        },
        mix=Mix(mixup=0.5),
        batch_size=11,
        epochs=5,
    ),
    # RKDAngle stands here: two mixtures can be nearly one picture, at which the gradient of an angle has no bound.
    "image-memories": pair_recipe(
        **PAIR,
        **CUT,
        plan={
            "task": Term(CrossEntropy()),
            "bank": samples(CRD(), weight=0.1, head=Contrast(examples=36, width=4, negatives=5)),
            "queue": samples(CRD(), weight=0.1, head=Contrast(examples=None, width=4, negatives=9)),
            "angle": samples(RKDAngle()),
        },
        optimizer=SGD(lr=0.02),
        batch_size=11,
        epochs=5,
    ),
    "sentiment": text_recipe(
        **CUT,
        plan={**SOFT, **minilmv2_terms(4, 2, heads=2)},
        optimizer=AdamW(lr=3e-3, eps=1e-6),
        batch_size=11,
        epochs=4,
    ),
    "chest-x-ray": labels_recipe(
        **PAIR,
        **CUT,
        data=Marks(unknown=0.4),
        plan={
            "task": Term(BinaryCrossEntropy()),
            "kd": Term(MultiLabelKD(temperature=2.0)),
            "samples": samples(SimilarityPreserving()),
            "labels": Term(LabelEmbedding(), student="fc:contributions", teacher="fc:contributions"),
        },
        mix=Mix(cutmix=0.5),
        balance=Uncertainty(),
        compare_gradients_every=5,
        optimizer=SGD(lr=0.05),
        batch_size=13,
        epochs=4,
    ),
}
# What is counted or ranked is the same; what is averaged out of logits is as near as they are.
AVERAGED = ("nll", "calibration_error")


def folder_of(root: Path, processes: int) -> Path:
    return root / f"{processes}-processes"


def whole_runs(root: Path, micro_batch_size: int | None) -> dict[str, Report]:
    """Each recipe's report, with its folder below a folder for the number of processes."""
    place = folder_of(root, int(os.environ.get("WORLD_SIZE", "1")))
    reports = {}
    for name, recipe in RECIPES.items():
        one = replace(recipe, name=name, micro_batch_size=micro_batch_size)
        reports[name] = train(one, Options(place), Console(file=io.StringIO()))
    AcceleratorState._reset_state()
    return reports


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def alone(root: Path) -> dict[str, Report]:
    """The reports of one process, whose every step is one forward pass, on one thread as each of several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return whole_runs(root, None)
    finally:
        torch.set_num_threads(threads)


def lines(root: Path, processes: int, name: str) -> list[dict[str, Any]]:
    text = (folder_of(root, processes) / name / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def assert_same_quality(found: Mapping[str, float], expected: Mapping[str, float]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value, abs=1e-5) if name in AVERAGED else value), name


def gradient_products(line: Mapping[str, Any]) -> dict[str, float]:
    """The product of each two terms' gradients: where one of them is rounding, so is their cosine, or there is none."""
    cosines, norms = line.get("gradient_cosines", {}), line.get("gradient_norms", {})
    pairs = combinations(norms, 2)
    return {f"{one}/{other}": cosines.get(f"{one}/{other}", 0.0) * norms[one] * norms[other] for one, other in pairs}


def assert_same_log(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Raw losses, factors, gradients and learning rates of each step, and the quality behind each epoch."""
    assert [line["step"] for line in expected if "raw" in line] == list(range(1, STEPS + 1))
    for line, one in zip(found, expected, strict=True):
        where = f"step {one['step']}"
        assert line.keys() == one.keys(), where
        for kind in ("start", "validation"):
            assert_same_quality(line.get(kind, {}), one.get(kind, {}))
        assert line.get("raw") == pytest.approx(one.get("raw"), abs=1e-5), where
        # Learned factors make these up to a thousand times the losses.
        for kind in ("weighted", "balance", "gradient_norm", "gradient_norms"):
            assert line.get(kind, {}) == pytest.approx(one.get(kind, {}), rel=1e-5, abs=1e-5), where
        assert gradient_products(line) == pytest.approx(gradient_products(one), abs=1e-5), where
        assert line.get("learning_rate") == one.get("learning_rate"), where


def assert_same_report(found: Report, expected: Report) -> None:
    (one,), (other,) = expected.outcomes, found.outcomes
    assert_same_quality(other.test, one.test)
    assert_same_quality(other.validation, one.validation)
    assert (other.steps, other.epochs, other.best_epoch) == (one.steps, one.epochs, one.best_epoch)
    assert (other.correct, other.agreement) == (one.correct, one.agreement)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_run_each_scenario_as_one_does(
    processes: int, alone: dict[str, Report], root: Path, tmp_path: Path
) -> None:
    reports = run_processes(whole_runs, processes, tmp_path, root, 3)
    for name, expected in alone.items():
        for report in reports:
            assert_same_report(report[name], expected)
        assert f"over {processes} processes" in (folder_of(root, processes) / name / "plan.txt").read_text()
        assert_same_log(lines(root, processes, name), lines(root, 1, name))
        student, of_one = (
            load_file(folder_of(root, count) / name / "student" / "model.safetensors") for count in (processes, 1)
        )
        torch.testing.assert_close(student, of_one, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
