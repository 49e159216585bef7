"""Where an example may have several labels: what is refused, what is worked out, and what one run is worth."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distill.answers import Answers, at_chance, compare, read_answers, save_answers
from distill.arms import arm_recipe
from distill.data import Mix, Part, make_splits
from distill.data.mix import Blend, blended_labels
from distill.data.split import check_several
from distill.evaluate import Predictions
from distill.losses import DIST, DKD, KD, BinaryCrossEntropy, CrossEntropy, LogitMSE
from distill.losses.kinds import Loss
from distill.plan import Term
from distill.prepare.positives import positive_weights
from distill.recipe import Recipe, from_json, to_json
from distill.view import View
from tests.tiny import Blobs, parts_of, plain_recipe
from tests.tiny_labels import LABELS, Marks, labels_recipe

NAN = math.nan


@pytest.mark.parametrize("loss", [KD(), DKD(), DIST()])
def test_soft_targets_over_classes_are_refused(loss: Loss) -> None:
    recipe = labels_recipe(plan={"task": Term(BinaryCrossEntropy()), "kd": Term(loss)})
    with pytest.raises(ValueError, match=rf"Term 'kd': {type(loss).__name__} takes .* of Marks .* MultiLabelKD\(\)"):
        parts_of(recipe)


def test_cross_entropy_is_refused_for_several_labels_and_binary_for_one() -> None:
    with pytest.raises(ValueError, match=r"Term 'task': CrossEntropy takes .* Write BinaryCrossEntropy\(\)"):
        parts_of(labels_recipe(plan={"task": Term(CrossEntropy())}, teacher=None))
    with pytest.raises(ValueError, match=r"Term 'task': BinaryCrossEntropy is .* Blobs has one class"):
        parts_of(plain_recipe(data=Blobs(), plan={"task": Term(BinaryCrossEntropy())}))


def test_losses_that_know_nothing_of_classes_are_kept() -> None:
    parts_of(labels_recipe(plan={"task": Term(BinaryCrossEntropy()), "match": Term(LogitMSE())}))


def test_a_positive_weighs_as_negatives_are_to_positives() -> None:
    # Label 0: 1 positive, 3 negatives. Label 1: 2 and 1, one unknown. Label 2: no positive, so nothing to weigh.
    labels = torch.tensor([[1, 1, 0], [0, 1, 0], [0, NAN, 0], [0, 0, 0]])
    assert positive_weights(labels) == (3.0, 0.5, 1.0)


def test_balanced_weights_become_numbers_in_the_run_and_stay_a_word_in_the_recipe() -> None:
    recipe = labels_recipe(plan={"task": Term(BinaryCrossEntropy(positive_weight="balanced"))}, teacher=None)
    parts = parts_of(recipe)
    loss = parts.recipe.plan["task"].loss
    assert isinstance(loss, BinaryCrossEntropy)
    assert loss.positive_weight == positive_weights(parts.splits.train.labels)  # type: ignore[union-attr]
    assert any(note.startswith("A positive label weighs") and "dot" in note for note in parts.notes)
    assert from_json(to_json(recipe), ("tests",)) == recipe
    batch = parts.splits.collate([parts.splits.train[(0, 0)]])
    with pytest.raises(ValueError, match="worked out from a recipe's training examples"):
        BinaryCrossEntropy(positive_weight="balanced")(torch.zeros(1, 3), None, batch)
    with pytest.raises(ValueError, match=r"expected .* or 'balanced' or none, got 'equal'"):
        labels_recipe(plan={"task": Term(BinaryCrossEntropy(positive_weight="equal"))})  # type: ignore[arg-type]


def test_a_control_without_label_terms_learns_binary_cross_entropy() -> None:
    recipe = labels_recipe(plan={"match": Term(LogitMSE())})
    assert dict(arm_recipe(recipe, "plain", several=True).plan) == {"task": Term(BinaryCrossEntropy())}


def test_epochs_are_chosen_by_auroc() -> None:
    assert parts_of(labels_recipe()).headline == "auroc"
    assert parts_of(plain_recipe()).headline == "accuracy"


def test_mixing_keeps_the_shares_and_what_is_not_known() -> None:
    own, other = torch.tensor([[1.0, 0.0, NAN, 1.0]]), torch.tensor([[0.0, NAN, 1.0, 1.0]])
    mixed = blended_labels([Blend(1, 0.75)], own, other, 4)
    assert torch.equal(mixed.nan_to_num(-1), torch.tensor([[0.75, -1.0, -1.0, 1.0]]))
    assert torch.equal(blended_labels([Blend(1, 1.0)], own, other, 4).nan_to_num(-1), own.nan_to_num(-1))
    example = Marks().load(0, Mix(mixup=1.0)).train[(0, 3)]
    assert example.label.shape == (3,)


def test_labels_of_one_side_are_named_and_labels_of_none_refused() -> None:
    labels = torch.tensor([[1, 0, 1], [0, 0, 1.0]])
    assert check_several(labels, LABELS, "test") == (
        "In the test split these labels have examples of one side only and can't be judged: bar (0 positive), rim (2 "
        "positive).",
    )
    assert check_several(labels[:, :1], ("dot",), "test") == ()
    with pytest.raises(ValueError, match="In the validation split no label has both"):
        check_several(labels[:, 1:], LABELS[1:], "validation")
    with pytest.raises(ValueError, match="neither 1, 0 nor NaN"):
        check_several(labels - 1, LABELS, "train")
    with pytest.raises(ValueError, match=r"labels \(2, 3\) for 1 names"):
        check_several(labels, ("dot",), "train")
    with pytest.raises(ValueError, match="The train split has no examples"):
        check_several(labels[:0], LABELS, "train")
    image = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    part = Part(image, labels)
    splits = make_splits(train=part, validation=part, test=part, classes=LABELS, view=View(), seed=0)
    assert len(splits.notes) == 3 and "can't be learned" in splits.notes[0]


def answers(logits: list[list[float]], labels: list[list[float]]) -> Answers:
    one = Predictions(torch.tensor(logits), torch.tensor(labels))
    return Answers(one, Predictions(one.logits.clone(), one.labels))


def test_models_agree_where_both_are_on_the_same_side_of_their_own_thresholds() -> None:
    # One label. The negatives of the teacher score 0 and 1, so 90 % specificity needs a threshold above 1: only the
    # score 5 is found. The student's scores are the same plus 10, with one positive more below its threshold.
    labels = [[0.0], [0.0], [1.0], [1.0]]
    teacher = answers([[0.0], [1.0], [5.0], [6.0]], labels)
    student = answers([[10.0], [11.0], [15.0], [9.0]], labels)
    assert compare(student, teacher)[0] == 0.75
    assert compare(teacher, teacher) == (1.0, 0.0)


def test_a_teacher_that_guesses_is_at_chance() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = (torch.rand(200, 3, generator=draw) < 0.4).float()
    guesses = torch.randn(200, 3, generator=draw)
    assert at_chance(Predictions(guesses, labels), None)
    assert not at_chance(Predictions(guesses + 2 * labels, labels), None)


def test_answers_come_back_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    given = answers([[0.5], [1.0]], [[0.0], [1.0]])
    save_answers(tmp_path, given)
    labels = given.test.labels
    read = read_answers(tmp_path, labels, labels)
    assert torch.equal(read.test.logits, given.test.logits) and torch.equal(read.validation.labels, labels)
    with pytest.raises(ValueError, match=r"answers.safetensors is of other test examples than the data's 1"):
        read_answers(tmp_path, labels, labels[:1])
    (tmp_path / "answers.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"answers.safetensors can't be read"):
        read_answers(tmp_path, labels, labels)


def test_a_recipe_of_several_labels_is_plain_data() -> None:
    recipe: Recipe = replace(labels_recipe(), repeats=2, controls=("plain",))
    assert from_json(to_json(recipe), ("tests",)) == recipe
