"""Comparisons at their edges: names that look like markup, gains that nobody knows, folders named from elsewhere."""

import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from distill.ablate import leave_out
from distill.answers import Answers
from distill.cli import run_command
from distill.compare import ClassGain, Comparison, analyse, compared, from_json, show, to_json
from distill.compare.differing import differing
from distill.evaluate import Predictions
from distill.finished import Finished, read_run
from distill.report.statistics import Interval
from distill.run import Options, train
from distill.weighting import GradNorm
from tests.tiny import pair_recipe, plain_recipe

ALLOW = ("tests",)
TWO = {name: pair_recipe().plan[name] for name in ("task", "kd")}


def run_of(root: Path, **changes: object) -> Finished:
    recipe = pair_recipe(controls=("plain",), repeats=2, allow_chance_teacher=True, plan=TWO, **changes)
    train(recipe, Options(root), Console(quiet=True))
    return read_run(root / recipe.name, ALLOW)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_of(tmp_path_factory.mktemp("runs"))


def shown(comparison: Comparison, width: int = 120) -> str:
    file = io.StringIO()
    show(comparison, Console(file=file, width=width))
    return file.getvalue()


def test_names_that_look_like_markup_are_shown_as_they_are(run: Finished) -> None:
    found = replace(analyse(run), run="[/red][bold]x")
    assert "[/red][bold]x: 12 test examples" in shown(found)


def test_a_gain_that_is_not_known_does_not_upset_the_order_of_the_others(run: Finished) -> None:
    def gain(name: str, by: float, p_value: float) -> ClassGain:
        return ClassGain(name, 4, 0.5, 0.5 + by, Interval(by, by - 0.1, by + 0.1, 0.05), p_value)

    found = replace(
        analyse(run),
        classes=(gain("low", -0.2, 0.1), gain("nothing", math.nan, math.nan), gain("high", 0.3, 0.1)),
    )
    for one in (found, from_json(to_json(found))):
        told = shown(one)
        assert "Gains by finding" in told and "1 can't be told" in told
        assert re.findall(r"│ (low|nothing|high) ", told) == ["high", "low"]


def test_labels_that_are_not_known_are_no_examples_on_which_models_differ() -> None:
    labels = torch.tensor([[math.nan, 1.0], [math.nan, math.nan], [0.0, math.nan]])
    apart = Predictions(torch.tensor([[9.0, 0.0], [9.0, 9.0], [1.0, 9.0]]), labels)
    teacher = Predictions(torch.tensor([[-9.0, 1.0], [-9.0, -9.0], [-1.0, -9.0]]), labels)
    models = {"teacher": [Answers(teacher, teacher)], "transferred": [Answers(apart, apart)]}
    found = differing(models, ("dot", "bar"), "transferred")
    # Of example 0 the bar alone is known, of 2 the dot, of 1 nothing.
    assert [(one.index, one.answers[0].said) for one in found] == [(2, "dot"), (0, "bar")]


def test_a_run_in_a_folder_below_runs_is_compared_layer_by_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = compared(run_of(Path("runs/mine")))
    assert found.cka is not None and found.notes == ()


def test_a_run_is_found_from_inside_its_folder(run: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.folder)
    assert read_run(".", ALLOW).root == run.root.resolve()


def test_a_run_named_twice_in_two_ways_is_refused(
    run: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.root)
    assert run_command(["compare", "pair", str(run.folder), "--allow-import", "tests"]) == 2
    assert "is named twice" in capsys.readouterr().err


def test_what_can_not_be_ablated_is_refused_before_anything_is_trained(
    run: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    train(plain_recipe(data=run.recipe.data), Options(run.root), Console(quiet=True))
    words = ["compare", str(run.folder), str(run.root / "plain"), "--ablate", "--no-layers", "--allow-import", "tests"]
    assert run_command(words) == 2
    out, error = capsys.readouterr()
    assert out == "" and "plain has no teacher" in error
    assert not (run.root / "pair-without-task").exists()


def test_the_verdict_comes_first_and_ablations_train_silently(
    run: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["compare", str(run.folder), "--ablate", "--no-layers", "--allow-import", "tests"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("The transfer ") and out.index("Without task:") > out.index("Answers equal to the teacher")
    assert out.count("What each term is worth") == 1 and "before training" not in out and "Report:" not in out


def test_a_balance_of_terms_is_left_out_with_the_second_last() -> None:
    without = leave_out(pair_recipe(plan=TWO, balance=GradNorm()), "task")
    assert not isinstance(without, str) and without.balance is None
    kept = leave_out(pair_recipe(balance=GradNorm()), "task")
    assert not isinstance(kept, str) and kept.balance == GradNorm()


def test_a_run_that_can_not_be_trained_without_a_term_is_told_and_does_not_end_the_others() -> None:
    assert "the rest is no recipe: name is the run's folder" in str(leave_out(pair_recipe(name="x" * 195), "kd"))
