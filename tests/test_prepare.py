"""What must fit before a run, beyond shapes: heads that count examples, and how the teacher's data were cut."""

from dataclasses import replace
from pathlib import Path

import pytest

from distill.data import Digits
from distill.heads import Contrast, Factors, Paraphraser
from distill.initialize import AverageLayers, CopyWeights, Initializer, SelectWeights, SkipLayers
from distill.losses import CRD, FactorTransfer, Hint
from distill.models import save_student
from distill.plan import Plan, Term
from distill.prepare import load_splits, prepare
from distill.recipe import SGD, Model, Recipe, Stage, to_json
from distill.result import student_config
from tests.tiny import STUDENT, Blobs, pair_recipe, parts_of

SMALL = Model("distill.models.cifar:resnet8", arguments={"width": 4})


def staged(*plans: Plan) -> Recipe:
    stages = tuple(Stage(f"stage{number}", plan, 1, SGD(lr=0.1)) for number, plan in enumerate(plans))
    return pair_recipe(plan={}, optimizer=None, epochs=None, stages=stages)


def contrasting(examples: int | None) -> Recipe:
    head = Contrast(examples=examples, width=4, negatives=3)
    return pair_recipe(plan={"crd": Term(CRD(), student="embedding", teacher="embedding", head=head)})


def test_a_bank_has_a_row_for_each_training_example() -> None:
    for fitting in (36, None):
        parts_of(contrasting(fitting))
    with pytest.raises(ValueError, match=r"Term 'crd': Contrast's bank has 50 rows and the training split has 36"):
        parts_of(contrasting(50))


def factor(rate: float) -> Plan:
    return {"factor": Term(FactorTransfer(), student="layer1", teacher="layer1", head=Factors(rate))}


def test_factors_need_the_paraphraser_of_the_stage_before() -> None:
    paraphrase: Plan = {"factor": Term(Hint(), student="layer1", teacher="layer1", head=Paraphraser(0.5))}
    parts_of(staged(paraphrase, factor(0.5)))
    parts_of(staged(paraphrase, factor(0.5), factor(0.5)))
    for recipe in (
        staged(factor(0.5)),
        staged(paraphrase, factor(0.25)),
        staged(paraphrase, {"other": HINT}, factor(0.5)),
    ):
        with pytest.raises(ValueError, match=r"Term 'factor': Factors takes its paraphraser from the stage before"):
            parts_of(recipe)


HINT = Term(Hint(), student="layer2", teacher="layer2", head=Paraphraser(0.5))


def digits(data: Digits, weights: str | None) -> Recipe:
    return replace(pair_recipe(), data=data, student=SMALL, teacher=replace(SMALL, weights=weights))


def test_a_teacher_whose_run_cut_the_data_otherwise_is_told(tmp_path: Path) -> None:
    first = digits(Digits(validation=0.3, test=0.5), None)
    parts = prepare(first, load_splits(first, 0, tmp_path), 0, tmp_path)
    save_student(tmp_path / "teacher" / "student", parts.student, student_config(parts))
    (tmp_path / "teacher" / "recipe.json").write_text(to_json(first))
    same = digits(Digits(validation=0.3, test=0.5, augment=True), "runs/teacher")
    assert not any("cut Digits" in note for note in prepare(same, load_splits(same, 0, tmp_path), 0, tmp_path).notes)
    other = digits(Digits(), "runs/teacher")
    notes = " ".join(prepare(other, load_splits(other, 0, tmp_path), 0, tmp_path).notes)
    assert "Warning: the teacher's run cut Digits otherwise (validation 0.3 for 0.2, test 0.5 for 0.2)" in notes


@pytest.mark.parametrize("start", [CopyWeights(), SkipLayers(), AverageLayers(), SelectWeights()])
def test_a_start_from_a_classifier_of_other_classes_is_refused(start: Initializer, tmp_path: Path) -> None:
    """As many classes under other names: the hint reads no logits, so nothing else would notice."""
    other = replace(pair_recipe(), data=Blobs(classes=("ant", "cat", "bee")), teacher=STUDENT)
    parts = parts_of(other)
    save_student(tmp_path / "teacher" / "student", parts.student, student_config(parts))
    hint = Term(Hint(), student="layer2", teacher="layer2")
    teacher = replace(STUDENT, weights="runs/teacher")
    recipe = pair_recipe(teacher=teacher, plan={"hint": hint}, initialize=start)
    with pytest.raises(ValueError, match=r"class 1 differently: 'cat' and 'bee'\. Write \w+\(keep_classifier=False\)"):
        prepare(recipe, load_splits(recipe, 0, tmp_path), 0, tmp_path)
    if isinstance(start, CopyWeights):
        apart = replace(recipe, initialize=CopyWeights(keep_classifier=False))
        assert prepare(apart, load_splits(apart, 0, tmp_path), 0, tmp_path).coverage is not None
