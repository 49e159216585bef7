import math

import pytest
import torch
from sklearn.metrics import roc_curve
from torch import Tensor

from distill.metrics import (
    WrongAgreement,
    label_agreement,
    rates,
    sensitivity_at,
    thresholds,
    wrong_agreement,
)

NAN = math.nan


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_threshold_by_hand_is_just_above_the_negatives_that_must_be_left_out() -> None:
    # Negatives 1, 2, 3, 4: three of four must lie below, so 3 as well.
    logits, labels = column(1, 2, 3, 4, 3, 9), column(0, 0, 0, 0, 1, 1)
    (threshold,) = thresholds(logits, labels, specificity=0.75)
    assert 3 < threshold < 3.000001
    found = rates(logits, labels, threshold[None])
    assert (found.sensitivity.item(), found.specificity.item()) == (0.5, 0.75)


def test_negatives_tied_at_the_threshold_are_left_out_together() -> None:
    # Half of the negatives lie below 3 already without the tie; any threshold up to 3 takes both threes.
    logits, labels = column(1, 3, 3, 4), column(0, 0, 0, 0)
    threshold = thresholds(logits, labels, specificity=0.5)
    assert threshold.item() > 3
    assert rates(logits, labels, threshold).specificity.item() == 0.75


def test_as_many_negatives_as_the_share_asks_for_are_enough() -> None:
    # 0.55 · 100 is 55.00000000000001 in floating point.
    for specificity, examples in ((0.55, 100), (0.55, 220), (0.9, 30), (0.9, 110)):
        logits, labels = torch.arange(examples).float()[:, None], torch.zeros(examples, 1)
        threshold = thresholds(logits, labels, specificity=specificity)
        assert rates(logits, labels, threshold).specificity.item() == specificity


@pytest.mark.parametrize("specificity", [0.0, 0.3, 0.9, 1.0])
def test_it_is_the_lowest_threshold_of_that_specificity(specificity: float) -> None:
    torch.manual_seed(0)
    truth = (torch.rand(200, 3) < 0.4).float().masked_fill(torch.rand(200, 3) < 0.2, NAN)
    logits = (5 * torch.randn(200, 3) + 2 * truth.nan_to_num()).round() / 5
    chosen = thresholds(logits, truth, specificity=specificity)
    assert (rates(logits, truth, chosen).specificity >= specificity).all()
    lower = chosen.nextafter(torch.full_like(chosen, -math.inf))
    assert specificity == 0 or (rates(logits, truth, lower).specificity < specificity).all()


def test_sensitivity_at_a_specificity_is_the_best_of_the_roc_curve() -> None:
    torch.manual_seed(0)
    truth = (torch.rand(300, 2) < 0.3).float()
    logits = (3 * torch.randn(300, 2) + 3 * truth).round() / 3
    for specificity in (0.5, 0.9, 0.95):
        for label, value in enumerate(sensitivity_at(logits, truth, specificity).tolist()):
            wrong, right, _ = roc_curve(truth[:, label], logits[:, label], drop_intermediate=False)
            assert value == pytest.approx(right[1 - wrong >= specificity - 1e-12].max())


def test_thresholds_of_validation_serve_other_examples() -> None:
    threshold = thresholds(column(0, 1, 2, 3), column(0, 0, 0, 1), specificity=1.0)
    found = rates(column(5, 1, 2.5, 0), column(1, 1, 0, 0), threshold)
    assert (found.sensitivity.item(), found.specificity.item()) == (0.5, 0.5)


def test_missing_classes_are_nan() -> None:
    logits, labels = torch.zeros(2, 3), torch.tensor([[1.0, 0.0, NAN], [1.0, 0.0, NAN]])
    chosen = thresholds(logits, labels)
    assert chosen.isnan().tolist() == [True, False, True]
    found = rates(logits, labels, torch.zeros(3))
    assert found.sensitivity.tolist() == pytest.approx([1.0, NAN, NAN], nan_ok=True)
    assert found.specificity.tolist() == pytest.approx([NAN, 0.0, NAN], nan_ok=True)
    assert rates(logits, labels, torch.full((3,), NAN)).sensitivity.isnan().all()
    assert sensitivity_at(logits, labels, 0.9).isnan().all()


def test_agreement_by_hand_counts_decisions_and_not_labels_without_a_threshold() -> None:
    # Against 0 and 1: the student says yes yes, no yes; the teacher, against 5 and 5, yes no, yes yes.
    student, teacher = torch.tensor([[0.0, 2.0], [-1.0, 1.0]]), torch.tensor([[5.0, 4.0], [6.0, 7.0]])
    of_student, of_teacher = torch.tensor([0.0, 1.0]), torch.tensor([5.0, 5.0])
    assert label_agreement(student, teacher, of_student, of_teacher) == 0.5
    assert label_agreement(student[:1], teacher[:1], of_student, torch.tensor([5.0, NAN])) == 1.0
    assert math.isnan(label_agreement(student, teacher, torch.tensor([NAN, 0.0]), torch.tensor([5.0, NAN])))


def test_wrong_agreement_by_hand() -> None:
    # The teacher says yes, yes, no, no, yes, no; known to be wrong are the second, third and fifth, of which the
    # student gets the second and third as wrong. Those of the last two are not known.
    teacher, student = column(1, 1, -1, -1, 1, -1, 1), column(1, 1, -1, 1, -1, -1, 1)
    labels = column(1, 0, 1, 0, 0, NAN, NAN)
    none = torch.zeros(1)
    assert wrong_agreement(student, teacher, labels, none, none) == WrongAgreement(3, 2 / 3)
    assert wrong_agreement(teacher, teacher, labels, none, none) == WrongAgreement(3, 1.0)
    assert wrong_agreement(-teacher, teacher, labels, none, none) == WrongAgreement(3, 0.0)


def test_a_teacher_without_mistakes_has_none_to_repeat() -> None:
    labels, zero = column(1, 0), torch.zeros(1)
    found = wrong_agreement(column(1, 1), column(1, -1), labels, zero, zero)
    assert found.count == 0 and math.isnan(found.share)
    undecided = wrong_agreement(column(1, 1), column(-1, 1), labels, zero, torch.tensor([NAN]))
    assert undecided.count == 0


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: thresholds(column(1, 2), column(0, 1), specificity=1.5), "specificity must be a share from 0 to 1"),
        (lambda: thresholds(column(NAN, 2), column(0, 1)), "The logits must be finite numbers, got nan"),
        (lambda: thresholds(torch.empty(0, 1), torch.empty(0, 1)), "no examples to judge"),
        (lambda: rates(column(1, 2), column(0, 1), torch.zeros(2)), r"each of 1 labels, got shape \(2,\)"),
        (
            lambda: label_agreement(column(1), column(1), torch.zeros(2), torch.zeros(1)),
            r"each of 1 labels, got shape \(2,\)",
        ),
        (
            lambda: wrong_agreement(column(1), column(1, 2), column(1, 0), torch.zeros(1), torch.zeros(1)),
            r"student \(1, 1\) and teacher \(2, 1\)",
        ),
        (
            lambda: wrong_agreement(column(1, 2), column(1, 2), column(1), torch.zeros(1), torch.zeros(1)),
            r"got \(2, 1\) and \(1, 1\)",
        ),
    ],
)
def test_what_does_not_fit_is_said(attempt, message) -> None:
    with pytest.raises(ValueError, match=message):
        attempt()
