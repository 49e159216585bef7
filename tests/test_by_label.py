"""From answers to what each label, group and error is worth."""

import math

import pytest
import torch

from distill.answers import Answers
from distill.by_label import by_label
from distill.data import Cases
from distill.evaluate import Predictions
from distill.report import ByLabel

NAN = math.nan
LABELS = ("dot", "bar")


def answers(test: torch.Tensor, labels: torch.Tensor) -> Answers:
    return Answers(Predictions(test, labels), Predictions(test, labels))


def example() -> tuple[torch.Tensor, dict[str, list[Answers]]]:
    """Six examples; the second label has one side only.

    AUROC of the first label: the teacher's scores order all 2 x 3 known pairs right, 1. The plain student of seed 0 has
    one positive (score 2) below two negatives (3, 4) of three and the other above all: 4 of 6 pairs, of seed 1 5 of 6.
    """
    first = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, NAN])
    truth = torch.stack([first, torch.zeros(6)], 1)

    def scored(values: list[float]) -> Answers:
        return answers(torch.stack([torch.tensor(values), torch.zeros(6)], 1), truth)

    models = {
        "teacher": [scored([5, 6, 1, 2, 3, 9])],
        "plain": [scored([2, 5, 1, 3, 4, 9]), scored([2, 5, 1, 0, 4, 9])],
        "transferred": [scored([5, 6, 1, 2, 3, 9]), scored([5, 6, 1, 2, 3, 9])],
    }
    return truth, models


def found() -> ByLabel:
    _, models = example()
    return by_label(LABELS, models, None, resamples=200)


def test_an_arm_is_the_mean_over_its_seeds() -> None:
    of = found()
    assert of.models["plain"][0].auroc.value == pytest.approx((4 / 6 + 5 / 6) / 2)
    assert of.models["teacher"][0].auroc.value == 1.0
    assert of.means["plain"].value == pytest.approx(0.75)
    assert (of.known, of.positives, of.patients) == ((5, 6), (2, 0), 6)


def test_a_label_of_one_side_is_not_known_and_not_in_the_mean() -> None:
    quality = found().models["teacher"][1]
    assert math.isnan(quality.auroc.value) and math.isnan(quality.auroc.low) and math.isnan(quality.sensitivity)
    assert found().means["teacher"].value == 1.0


def test_a_gain_is_the_difference_and_its_interval_that_of_both_on_the_same_patients() -> None:
    gain = found().gains["plain"]
    assert gain.mean.difference == pytest.approx(0.25)
    assert gain.labels[0].difference == pytest.approx(0.25) and math.isnan(gain.labels[1].difference)
    assert gain.mean.low <= 0.25 <= gain.mean.high
    # Equal answers differ in no resample, so the interval has no width.
    equal = found().gains["teacher"]
    assert (equal.mean.difference, equal.mean.low, equal.mean.high) == (0.0, 0.0, 0.0)
    assert equal.p_values[0] == 1.0 and math.isnan(equal.p_values[1])


def test_the_share_of_the_teachers_errors_is_that_of_its_wrong_decisions() -> None:
    # 90 % specificity on three negatives needs all of them below: the teacher's threshold is above 3, so it is never
    # wrong, and nothing can be shared.
    assert found().wrong["plain"].count == 0 and math.isnan(found().wrong["plain"].share)


def test_groups_are_judged_on_the_labels_that_all_of_them_have() -> None:
    draw = torch.Generator().manual_seed(0)
    truth = (torch.rand(90, 2, generator=draw) < 0.5).float()
    sex = tuple("FM"[row % 2] for row in range(80)) + ("X",) * 5 + ("",) * 5
    truth[[row for row in range(90) if sex[row] == "M"], 1] = 0.0  # no man has the second label
    scores = torch.randn(90, 2, generator=draw) + truth
    models = {"teacher": [answers(scores, truth)], "transferred": [answers(scores.round(), truth)]}
    groups = by_label(LABELS, models, Cases(torch.arange(90), {"sex": sex}), resamples=100).groups
    assert [(one.attribute, one.value, one.examples, one.labels) for one in groups] == [
        ("sex", "F", 40, 1),
        ("sex", "M", 40, 1),
        ("sex", "X", 5, 1),
    ]
    assert groups[2].auroc == {} and groups[2].gain is None
    of_women = torch.tensor([row for row in range(90) if sex[row] == "F"])
    alone = {
        name: [answers(one[0].test.logits[of_women][:, :1], truth[of_women][:, :1])] for name, one in models.items()
    }
    expected = by_label(LABELS[:1], alone, None, resamples=100)
    assert groups[0].auroc["teacher"].value == expected.means["teacher"].value
    assert groups[0].gain is not None
    assert groups[0].gain.difference == pytest.approx(expected.gains["teacher"].mean.difference)


def test_images_of_one_patient_are_drawn_together() -> None:
    """With each patient's images alike, ten copies of everything are worth no more than one."""
    draw = torch.Generator().manual_seed(1)
    truth = (torch.rand(30, 1, generator=draw) < 0.5).float()
    scores = torch.randn(30, 1, generator=draw) + truth
    once = by_label(LABELS[:1], {"plain": [answers(scores, truth)]}, None, resamples=200)
    many, patient = answers(scores.repeat(10, 1), truth.repeat(10, 1)), torch.arange(30).repeat(10)
    copied = by_label(LABELS[:1], {"plain": [many]}, Cases(patient), resamples=200)
    assert copied.means["plain"].low == pytest.approx(once.means["plain"].low, abs=1e-12)
    independent = by_label(LABELS[:1], {"plain": [many]}, None, resamples=200)
    assert independent.means["plain"].low > once.means["plain"].low + 0.05
