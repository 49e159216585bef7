"""A term that leaves its layers to match: chosen once, recorded, followed by every seed and by a run that goes on."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from rich.console import Console

from distill import matched
from distill.arms import arm_recipe
from distill.heads import Conv1x1
from distill.losses import CrossEntropy, HiddenState, Hint
from distill.matched import choose_layers, expand, to_text
from distill.matching import Matching
from distill.plan import Term, connect, student_taps, teacher_taps
from distill.prepare import sample_batch
from distill.recipe import SGD, Recipe, Stage, apply_overrides, from_json, override_names, to_json
from distill.run import Options, train
from distill.run import plan as plan_command
from distill.weighting import Ramp, Uncertainty
from tests.processes import run_processes
from tests.tiny import on_cpu, pair_recipe, parts_of

OPEN = Term(Hint(), weight=0.5, match=Matching(arrows=2))


def open_recipe(term: Term = OPEN, **changes: Any) -> Recipe:
    return pair_recipe(plan={"task": Term(CrossEntropy()), "hints": term}, **changes)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def test_each_pair_becomes_a_term_with_its_head_and_its_share_of_the_weight() -> None:
    parts, found = choose_layers(parts_of(open_recipe()), on_cpu())
    plan = parts.recipe.plan
    assert list(plan) == ["task", "hints_1", "hints_2"] and list(found) == ["plan.hints"]
    for number, pair in enumerate(found["plan.hints"].pairs, 1):
        term = plan[f"hints_{number}"]
        assert (term.student, term.teacher, term.head) == (pair.student.tap, pair.teacher.tap, pair.joining.head)
        assert term.weight == 0.25 and term.loss == Hint() and term.match is None
    views = {"teacher_view": parts.teacher_view.module(), "student_view": parts.student_view.module()}
    _, learner = connect(parts.teacher, parts.student, plan, sample_batch(parts.splits), **views)
    assert set(learner.heads) == {name for name, term in plan.items() if term.head is not None}


def test_the_name_of_a_rule_stands_for_its_settings() -> None:
    short, long = (open_recipe(Term(Hint(), match=how)) for how in ("uniform", Matching(rule="uniform")))
    ours, theirs = (choose_layers(parts_of(recipe), on_cpu())[0].recipe for recipe in (short, long))
    assert ours == theirs and len(ours.plan) == 5


def test_the_schedule_goes_to_every_arrow() -> None:
    recipe = open_recipe(replace(OPEN, schedule=Ramp(1.0)))
    plan = choose_layers(parts_of(recipe), on_cpu())[0].recipe.plan
    assert plan["hints_1"].schedule == plan["hints_2"].schedule == Ramp(1.0)


def test_a_recipe_that_names_its_layers_is_left_alone() -> None:
    parts = parts_of(pair_recipe())
    assert choose_layers(parts, on_cpu()) == (parts, {})


def test_each_stage_matches_its_own_terms() -> None:
    stages = (
        Stage("first", {"hints": OPEN}, 1, SGD(lr=0.1)),
        Stage("second", {"task": Term(CrossEntropy()), "hints": replace(OPEN, match="last")}, 1, SGD(lr=0.1)),
    )
    recipe = pair_recipe(plan={}, optimizer=None, epochs=None, stages=stages)
    parts, found = choose_layers(parts_of(recipe), on_cpu())
    assert list(found) == ["stages.first.plan.hints", "stages.second.plan.hints"]
    assert [list(stage.plan) for stage in parts.recipe.stages] == [
        ["hints_1", "hints_2"],
        ["task", "hints_1", "hints_2", "hints_3", "hints_4"],
    ]


def test_controls_have_no_arrows() -> None:
    recipe = choose_layers(parts_of(open_recipe(controls=("plain",))), on_cpu())[0].recipe
    assert list(arm_recipe(recipe, "plain").plan) == list(arm_recipe(open_recipe(), "plain").plan) == ["task"]


def test_an_open_term_has_no_taps_yet_and_cannot_be_connected() -> None:
    recipe = open_recipe()
    assert student_taps(recipe.plan) == ("logits",) and teacher_taps(recipe.plan) == ()
    parts = parts_of(recipe)
    with pytest.raises(ValueError, match=r"Term 'hints' leaves its taps open with match="):
        connect(parts.teacher, parts.student, recipe.plan, sample_batch(parts.splits))


def test_matching_leaves_models_and_random_numbers_as_they_were() -> None:
    parts = parts_of(open_recipe())
    before, state = {k: v.clone() for k, v in parts.student.state_dict().items()}, torch.get_rng_state()
    choose_layers(parts, on_cpu())
    assert all(torch.equal(before[name], tensor) for name, tensor in parts.student.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert parts.student.training


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Term(CrossEntropy(), match="auto"), r"plan\.hints compares with the labels, so no layers match for it"),
        (Term(Hint(), student="layer1", match="auto"), r"plan\.hints\.student has no effect beside match="),
        (Term(Hint(), teacher="layer1", match="auto"), r"plan\.hints\.teacher has no effect beside match="),
        (Term(Hint(), head=Conv1x1(), match="auto"), r"plan\.hints\.head has no effect beside match="),
    ],
)
def test_what_match_chooses_is_not_given_too(term: Term, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_recipe(term)


def test_a_term_named_like_an_arrow_is_refused() -> None:
    taken = {"task": Term(CrossEntropy()), "hints": OPEN, "hints_2": Term(Hint(), student="layer1", teacher="layer1")}
    with pytest.raises(ValueError, match=r"plan\.hints_2 is named like an arrow of plan\.hints"):
        pair_recipe(plan=taken)


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="arrows is a number of pairs of at least 1, or none for four, got 0"):
        Matching(arrows=0)
    with pytest.raises(ValueError, match="batches is at least 1, got 0"):
        Matching(batches=0)


def test_too_many_arrows_and_too_few_examples_name_the_term() -> None:
    with pytest.raises(ValueError, match=r"plan\.hints: arrows=99 does not fit"):
        choose_layers(parts_of(open_recipe(Term(Hint(), match=Matching(arrows=99)))), on_cpu())
    with pytest.raises(ValueError, match="36 training examples do not fill 10 batches"):
        choose_layers(parts_of(open_recipe(Term(Hint(), match=Matching(batches=10)))), on_cpu())


def test_a_loss_that_no_layers_suit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"plan\.hints: no layers can be joined: HiddenState compares tokens"):
        choose_layers(parts_of(open_recipe(Term(HiddenState(), match="auto"))), on_cpu())


def test_one_open_term_may_be_several_that_are_weighed() -> None:
    recipe = pair_recipe(plan={"hints": OPEN}, balance=Uncertainty())
    assert len(choose_layers(parts_of(recipe), on_cpu())[0].recipe.plan) == 2


def test_an_open_term_goes_through_json_and_the_command_line() -> None:
    recipe = open_recipe(Term(Hint(), match="auto"))
    assert from_json(to_json(recipe), allow_import=("tests",)) == recipe
    settings = {setting.name for setting in override_names(open_recipe())}
    assert {"plan.hints.match.rule", "plan.hints.match.arrows", "plan.hints.match.batches"} <= settings
    words = ("--plan.hints.match.rule", "skip", "--plan.hints.match.arrows", "1")
    assert apply_overrides(open_recipe(), words).plan["hints"].match == Matching("skip", arrows=1)
    assert apply_overrides(recipe, ("--plan.hints.match", "last")).plan["hints"].match == "last"


def test_a_run_keeps_the_users_recipe_and_records_what_was_chosen(tmp_path: Path) -> None:
    recipe = open_recipe(epochs=1, repeats=2, controls=("plain",), allow_chance_teacher=True)
    console = quiet()
    train(recipe, Options(root=tmp_path), console)
    folder = tmp_path / "pair"
    assert from_json((folder / "recipe.json").read_text(), allow_import=("tests",)) == recipe
    record = json.loads((folder / "match.json").read_text())["plan.hints"]
    text, report = (folder / "plan.txt").read_text(), json.loads((folder / "report.json").read_text())
    assert report["recipe"] == json.loads(to_json(recipe))
    note = next(
        note for note in report["notes"] if note.startswith("plan.hints was matched by rule auto, for all seeds")
    )
    assert "The layers of plan.hints:" in text and "CKA" in text
    for pair in record["pairs"]:
        chosen = f"{pair['student']} from {pair['teacher']} (CKA {pair['cka']:.3f})"
        assert chosen in note and chosen in (folder / "report.md").read_text()
    for arm in (folder, folder / "arms" / "transferred-1"):
        lines = [json.loads(line) for line in (arm / "metrics.jsonl").read_text().splitlines()]
        assert any({"task", "hints_1", "hints_2"} == set(line.get("raw", ())) for line in lines)


def test_a_run_that_goes_on_follows_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = open_recipe(epochs=1, allow_chance_teacher=True)
    train(recipe, Options(root=tmp_path), quiet())
    folder = tmp_path / "pair"
    straight, result = (folder / "plan.txt").read_text(), (folder / "result.json").read_text()
    for name in ("report.json", "result.json"):
        (folder / name).unlink()

    def never(*args: Any, **settings: Any) -> None:
        raise AssertionError("nothing is chosen again")

    monkeypatch.setattr(matched, "match", never)
    train(recipe, Options(root=tmp_path, resume=True), quiet())
    assert (folder / "plan.txt").read_text() == straight
    assert json.loads((folder / "result.json").read_text())["test"] == json.loads(result)["test"]

    (folder / "report.json").unlink()
    values = json.loads((folder / "match.json").read_text())
    for damaged in ("{", json.dumps({}), json.dumps({"plan.hints": {**values["plan.hints"], "pairs": [{}]}})):
        (folder / "match.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"match\.json does not tell the layers of plan\.hints .*--overwrite"):
            train(recipe, Options(root=tmp_path, resume=True), quiet())


def test_plan_shows_the_arrows_and_writes_nothing(tmp_path: Path) -> None:
    console = quiet()
    plan_command(open_recipe(), Options(root=tmp_path), console)
    assert isinstance(console.file, io.StringIO)
    out = console.file.getvalue()
    assert "hints_1" in out and "hints_2" in out and "plan.hints was matched by rule auto" in out
    assert list(tmp_path.iterdir()) == []


def choice_of_a_process() -> str:
    accelerator = Accelerator(cpu=True)
    return to_text(choose_layers(parts_of(open_recipe()), accelerator)[1])


@pytest.mark.slow
def test_two_processes_choose_the_same_as_one(tmp_path: Path) -> None:
    expected = choose_layers(parts_of(open_recipe()), on_cpu())[1]["plan.hints"].pairs
    first, second = run_processes(choice_of_a_process, 2, tmp_path)
    assert first == second
    found = json.loads(first)["plan.hints"]["pairs"]
    assert [(one["student"], one["teacher"]) for one in found] == [(p.student.tap, p.teacher.tap) for p in expected]


def test_what_cannot_be_joined_is_left_out_and_the_rest_share_the_weight() -> None:
    parts = parts_of(open_recipe(Term(Hint(), match="last")))
    chosen = choose_layers(parts, on_cpu())[1]["plan.hints"]
    pair = replace(chosen.pairs[0], joining=replace(chosen.pairs[0].joining, reason="no head"))
    found = {"plan.hints": replace(chosen, pairs=(pair, *chosen.pairs[1:]))}
    plan = expand(parts.recipe, found).plan
    assert len(plan) == len(chosen.pairs) and plan["hints_1"].student == chosen.pairs[1].student.tap
    assert sum(term.weight for name, term in plan.items() if name != "task") == pytest.approx(1)
