"""A run's models compared: hand-made answers, a tiny run of each kind, and what can't be compared."""

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from distill.ablate import leave_out
from distill.answers import Answers
from distill.cli import run_command
from distill.compare import analyse, answers_of, from_json, layers, show, to_json
from distill.compare.analyse import _bins, _brier, _near
from distill.compare.differing import differing
from distill.evaluate import Predictions
from distill.finished import Finished, read_run
from distill.losses import KD, CrossEntropy
from distill.plan import Term
from distill.report import Report
from distill.report import to_json as report_to_json
from distill.run import Options, train
from tests.end_to_end.test_general_stage import SMALL, WORDS, corpus
from tests.tiny import pair_recipe, plain_recipe
from tests.tiny_labels import labels_recipe

ALLOW = ("tests",)
HANDS = torch.log(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))


def answered(logits: Tensor, labels: Tensor) -> Answers:
    of_both = Predictions(logits, labels)
    return Answers(of_both, of_both)


def run_of(root: Path, **changes: object) -> Finished:
    recipe = pair_recipe(controls=("plain",), repeats=2, allow_chance_teacher=True, **changes)
    trained(recipe, root)
    return read_run(root / recipe.name, ALLOW)


def trained(recipe: object, root: Path) -> Report:
    return train(recipe, Options(root), Console(file=io.StringIO()))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_of(tmp_path_factory.mktemp("runs"))


# By hand


def test_agreement_is_split_by_whether_the_teacher_is_right() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    teacher = answered(HANDS, labels)  # says 0, 0, 1, 0: right, right, wrong, wrong
    student = answered(HANDS[[0, 2, 2, 2]], labels)  # says 0, 1, 1, 1
    agreement, _, where_right, where_wrong = _near(student, teacher)
    assert (agreement, where_right, where_wrong) == (0.5, 0.5, 0.5)
    always = answered(HANDS[:2], labels[:2])
    assert math.isnan(_near(always, always)[3])


def test_brier_and_the_bins_are_of_the_probabilities() -> None:
    labels = torch.tensor([0, 1, 1, 0])
    # 2 (0.1² + 0.9² + 0.2² + 0.4²) / 4
    assert _brier(answered(HANDS, labels)) == pytest.approx(2 * (0.01 + 0.81 + 0.04 + 0.16) / 4)
    filled = {
        round(one.confidence, 6): (one.count, one.frequency) for one in _bins(answered(HANDS, labels)) if one.count
    }
    assert filled == {0.6: (1, 1.0), 0.8: (1, 1.0), 0.9: (2, 0.5)}


def test_examples_that_differ_are_those_of_the_surest_mistakes() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    models = {"teacher": [answered(HANDS, labels)], "transferred": [answered(HANDS[[2, 2, 0, 2]], labels)]}
    found = differing(models, ("cat", "dog"), "transferred")
    # The student says dog, dog, cat, dog: wrong where the teacher is right in 0 and 1, the reverse in 3 and 2.
    assert [one.index for one in found] == [0, 1, 2, 3]
    assert found[2].truth == "cat" and [(a.model, a.said) for a in found[2].answers] == [
        ("teacher", "dog"), ("transferred", "cat"),
    ]  # fmt: skip


# Runs


def test_a_run_is_compared_from_what_it_kept(run: Finished) -> None:
    found = analyse(run, cka=layers(run))
    assert [one.name for one in found.models] == ["teacher", "plain", "transferred"]
    assert [one.name for one in found.against] == ["teacher", "plain"]
    plain, transferred = run.report.values("plain"), run.report.values("transferred")
    over_plain = found.against[1]
    assert over_plain.gain.difference == pytest.approx((sum(transferred) - sum(plain)) / 2)
    assert over_plain.gained - over_plain.lost == pytest.approx(over_plain.gain.difference)
    assert over_plain.gained + over_plain.lost + over_plain.both_right + over_plain.both_wrong == pytest.approx(1)
    assert sum(one.count for one in found.classes) == found.examples == 12
    weighted = sum(one.count * one.gain.difference for one in found.classes) / 12
    assert weighted == pytest.approx(over_plain.gain.difference)
    agreement = {one.name: one.agreement for one in found.likeness}
    told = [outcome.agreement for outcome in run.report.of("transferred")]
    assert agreement["transferred"] == pytest.approx(sum(told) / 2)
    assert found.cka is not None and found.cka.before != found.cka.after
    assert len(found.cka.after) == len(found.cka.student) and len(found.cka.after[0]) == len(found.cka.teacher)


def test_the_answers_that_were_kept_are_those_that_were_reported(run: Finished) -> None:
    for name, of_model in answers_of(run).items():
        values = (
            [run.report.teacher["test"]["accuracy"]] if name == "teacher" and run.report.teacher
            else list(run.report.values(name))
        )  # fmt: skip
        assert [one.test.quality()["accuracy"] for one in of_model] == pytest.approx(values)


def test_a_comparison_goes_through_json(run: Finished) -> None:
    found = analyse(run, cka=layers(run), notes=("a note",))
    assert to_json(from_json(to_json(found))) == to_json(found)
    with pytest.raises(ValueError, match=r"Not JSON of a comparison: .*Run distill compare again"):
        from_json('{"run": 3}')


def test_labels_are_compared_by_finding(tmp_path: Path) -> None:
    recipe = labels_recipe(controls=("plain",), allow_chance_teacher=True)
    trained(recipe, tmp_path)
    run = read_run(tmp_path / recipe.name, ALLOW)
    found = analyse(run, cka=layers(run))
    assert run.report.by_label is not None
    assert [one.name for one in found.classes] == list(run.report.by_label.labels)
    assert all(one.p_value is not None for one in found.classes) and found.against[0].p_values is None
    assert found.differing and to_json(from_json(to_json(found))) == to_json(found)
    show(found, Console(file=io.StringIO(), width=80))


def test_a_run_without_a_teacher_is_judged_alone(tmp_path: Path) -> None:
    trained(plain_recipe(), tmp_path)
    found = analyse(read_run(tmp_path / "plain", ALLOW))
    assert [one.name for one in found.models] == ["plain"]
    assert (found.word, found.against, found.classes, found.likeness, found.differing) == (None, (), (), (), ())


# The command


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run_command([*words, "--allow-import", "tests"])
    out, error = capsys.readouterr()
    return code, out, error


def test_the_command_tells_the_verdict_first_and_writes_what_it_found(
    run: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said(["compare", str(run.folder)], capsys)
    assert code == 0 and out.startswith("The transfer ")
    assert "Gains by class over plain" in out and "(linear CKA)" in " ".join(out.split())
    assert from_json((run.folder / "compare.json").read_text()).run == "pair"


def test_several_runs_stand_side_by_side_and_one_that_hurt_is_said_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fine, bad = (run_of(tmp_path, name=name) for name in ("fine", "bad"))
    report = bad.folder / "report.json"
    # All students of one arm alike, so that the verdict is sure.
    changed = replace(
        bad.report, outcomes=tuple(_set(one, 0.2 if one.arm == "transferred" else 0.9) for one in bad.report.outcomes)
    )

    report.write_text(report_to_json(changed))
    code, out, _ = said(["compare", str(fine.folder), str(bad.folder), "--no-layers"], capsys)
    assert code == 0 and out.startswith("The transfer hurt: test accuracy -70.00 points")
    assert "2 runs, test accuracy" in out


def _set(outcome, value):  # type: ignore[no-untyped-def]
    return replace(outcome, test={**outcome.test, "accuracy": value})


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["{root}/nothing"], "{root}/nothing is not the folder of a run: it has no recipe.json."),
        (["{root}/pair", "{root}/pair"], "{root}/pair is named twice. Name each run once."),
        (["{root}/pair", "{root}/other"], "{root}/pair and {root}/other answer other test examples (12 and 9)"),
        (["{root}/half"], "{root}/half is not complete: it has no report.json. Go on with distill train"),
        (
            ["{root}/old"],
            "{root}/old/teacher/answers.safetensors can't be read, and without it models can't be compared",
        ),
        ([], "the following arguments are required: RUN"),
    ],
)
def test_what_can_not_be_compared_is_said_in_a_line(
    words: list[str], line: str, run: Finished, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = run.root
    if any("other" in word for word in words):
        other = pair_recipe(name="other", data=replace(pair_recipe().data, count=45), allow_chance_teacher=True)
        trained(other, root)
    if any("half" in word for word in words):
        (root / "half").mkdir()
        (root / "half" / "recipe.json").write_text((run.folder / "recipe.json").read_text())
    if any("old" in word for word in words):
        (root / "old").mkdir()
        for name in ("recipe.json", "report.json"):
            (root / "old" / name).write_text((run.folder / name).read_text())
    code, _, error = said(["compare", *(word.format(root=root) for word in words)], capsys)
    assert code == 2 and line.format(root=root) in error and error.count("\n") == 1


def test_hidden_words_have_no_classes_to_compare(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from distill.recipe import AdamW, Model, Recipe
    from distill.tokenize import WordPiece

    (tmp_path / "corpus").mkdir()
    lines = (f'{{"text": "the plot of film {number} is set in a town"}}' for number in range(60))
    (tmp_path / "corpus" / "part.jsonl").write_text("\n".join(lines))
    student = Model("transformers:bert", arguments=SMALL, tokenizer=WordPiece(size=60))
    recipe = Recipe(
        name="words", data=replace(corpus(tmp_path), validation=10, test=10), student=student, plan=WORDS,
        optimizer=AdamW(lr=0.01), epochs=1, batch_size=20,
    )  # fmt: skip
    trained(recipe, tmp_path)
    with pytest.raises(ValueError, match="guesses hidden words, and classes alone are compared"):
        analyse(read_run(tmp_path / "words"))


# Ablation


def test_each_term_is_left_out_under_the_same_budget() -> None:
    recipe = pair_recipe(controls=("plain",), repeats=3)
    without = leave_out(recipe, "kd")
    assert not isinstance(without, str)
    assert without == replace(
        recipe, name="pair-without-kd", plan={k: t for k, t in recipe.plan.items() if k != "kd"}, controls=()
    )
    both = pair_recipe(plan={"task": Term(CrossEntropy()), "kd": Term(KD())})
    assert leave_out(both, "kd") == "nothing else asks the teacher: the controls show it"
    assert leave_out(pair_recipe(plan={"kd": Term(KD())}), "kd") == "nothing would be left to train by"


def test_ablation_trains_a_run_for_each_term_and_keeps_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path, plan={name: pair_recipe().plan[name] for name in ("task", "kd", "samples")})
    code, out, _ = said(["compare", str(run.folder), "--ablate", "--no-layers"], capsys)
    assert code == 0 and "What each term is worth" in out
    found = from_json((run.folder / "compare.json").read_text())
    assert [one.term for one in found.ablated] == ["task", "kd", "samples"]
    for one in found.ablated:
        left = read_run(tmp_path / f"pair-without-{one.term}", ALLOW)
        assert left.report.values("transferred") == one.without and one.gain is not None
        assert left.recipe.epochs == run.recipe.epochs and one.term not in left.recipe.plan
    said(["compare", str(run.folder), "--no-layers"], capsys)
    assert from_json((run.folder / "compare.json").read_text()).ablated == found.ablated
