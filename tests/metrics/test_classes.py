import math

import pytest
import torch

from distill.metrics import (
    above_chance,
    accuracy,
    agreement,
    calibration_error,
    chance,
    divergence,
    nll,
    quality,
)


def logits_of(*probabilities: list[float]) -> torch.Tensor:
    """Logits whose softmax is these rows, shifted so that they cannot be mistaken for probabilities."""
    return torch.tensor(probabilities).log() + 5.0


def test_accuracy_and_likelihood_by_hand():
    logits = logits_of([0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.25, 0.25], [0.2, 0.2, 0.6])
    labels = torch.tensor([0, 2, 0, 2])
    assert accuracy(logits, labels) == 0.75
    assert nll(logits, labels) == pytest.approx(-math.log(0.7 * 0.3 * 0.5 * 0.6) / 4, rel=1e-6)


def test_calibration_error_by_hand():
    # Bins of 1/15: 0.7 and 0.71 share [10/15, 11/15): accuracy 1/2, confidence 0.705; 0.5 in [7/15, 8/15): accuracy 1;
    # 0.9 in [13/15, 14/15): accuracy 0. Error = 2/4 * 0.205 + 1/4 * 0.5 + 1/4 * 0.9.
    logits = logits_of([0.7, 0.3], [0.71, 0.29], [0.5, 0.49999], [0.9, 0.1])
    labels = torch.tensor([0, 1, 0, 1])
    assert calibration_error(logits, labels) == pytest.approx(0.1025 + 0.125 + 0.225, abs=1e-5)


def test_calibration_of_the_surest_answers_falls_into_the_last_bin():
    # Confidences 0.95 (right) and exactly 1 (wrong) share the bin from 14/15 to 1: |0.5 - 0.975| = 0.475. In bins of
    # their own they would give (0.05 + 1) / 2.
    logits = torch.tensor([[math.log(19.0), 0.0], [200.0, 0.0]])
    assert calibration_error(logits, torch.tensor([0, 1])) == pytest.approx(0.475, abs=1e-6)


def test_logits_between_zero_and_one_are_not_taken_for_probabilities():
    logits = torch.tensor([[0.9, 0.1]])
    confidence = 1 / (1 + math.exp(-0.8))
    assert calibration_error(logits, torch.tensor([0])) == pytest.approx(1 - confidence, abs=1e-6)


def test_quality_has_top5_only_with_more_than_five_classes():
    logits = torch.arange(6.0).repeat(4, 1)  # classes 5, 4, 3, 2, 1 lead, class 0 is last
    labels = torch.tensor([5, 1, 0, 0])
    assert quality(logits, labels).keys() == {"accuracy", "top5", "nll", "calibration_error"}
    assert quality(logits, labels)["accuracy"] == 0.25
    assert quality(logits, labels)["top5"] == 0.5
    assert quality(logits[:, :5], labels.clamp(max=4)).keys() == {"accuracy", "nll", "calibration_error"}


def test_agreement_counts_equal_answers_right_or_wrong():
    student = torch.tensor([[2.0, 1.0], [0.0, 3.0], [0.0, 1.0], [1.0, 0.0]])
    teacher = torch.tensor([[9.0, 1.0], [1.0, 0.0], [5.0, 6.0], [4.0, 0.0]])
    assert agreement(student, teacher) == 0.75


def test_divergence_by_hand_is_from_teacher_to_student():
    student, teacher = logits_of([0.25, 0.75], [0.5, 0.5]), logits_of([0.5, 0.5], [0.5, 0.5])
    # KL(teacher || student) of the first row: 0.5 ln(0.5 / 0.25) + 0.5 ln(0.5 / 0.75); the second is zero.
    assert divergence(student, teacher) == pytest.approx((0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2, rel=1e-5)


def test_equal_answers_agree_and_do_not_diverge():
    logits = torch.randn(20, 7)
    assert agreement(logits, logits) == 1.0
    assert divergence(logits, logits) == 0.0
    assert divergence(logits + 3.0, logits) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_narrow_and_wide_floats_are_judged_alike(dtype):
    logits = torch.randn(50, 8).to(dtype)
    labels = torch.randint(8, (50,), dtype=torch.int32)
    assert quality(logits, labels) == pytest.approx(quality(logits.float(), labels.long()), abs=1e-6)
    assert divergence(logits, logits.flip(0)) == pytest.approx(
        divergence(logits.float(), logits.float().flip(0)), abs=1e-5
    )


def test_values_are_plain_floats():
    values = quality(torch.randn(3, 6), torch.tensor([0, 1, 2]))
    assert {type(value) for value in values.values()} == {float}


def test_chance_is_the_share_of_the_most_frequent_class():
    assert chance(torch.tensor([0, 1, 1, 1, 2]), 10) == 0.6
    assert chance(torch.arange(4), 4) == 0.25


def test_above_chance_by_hand():
    # 100 labels, majority share 0.5. At accuracy 0.6 two standard errors are 2 sqrt(0.24 / 100) = 0.098: 0.502 > 0.5.
    # At 0.59 they are 0.0984: 0.4916 < 0.5.
    labels = torch.arange(100) % 2
    assert above_chance(0.6, labels)
    assert not above_chance(0.59, labels)
    assert not above_chance(1.0, torch.zeros(5, dtype=torch.int64))


EMPTY = torch.empty(0, dtype=torch.int64)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: quality(torch.empty(0, 3), EMPTY), "no examples to judge"),
        (lambda: agreement(torch.empty(0, 3), torch.empty(0, 3)), "no examples to compare"),
        (lambda: divergence(torch.empty(0, 3), torch.empty(0, 3)), "no examples to compare"),
        (lambda: chance(EMPTY, 3), "no examples to judge"),
        (lambda: above_chance(0.5, EMPTY), "no examples to judge"),
        (lambda: quality(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64)), r"got \(2, 3\) and \(3,\)"),
        (lambda: quality(torch.zeros(3), EMPTY), r"got \(3,\) and \(0,\)"),
        (lambda: quality(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)), "at least two classes, got 1"),
        (lambda: nll(torch.zeros(2, 3), torch.tensor([0, 3])), "Labels from 0 to 3 are not class numbers of 3 classes"),
        (lambda: nll(torch.zeros(2, 3), torch.tensor([-1, 2])), "Labels from -1 to 2"),
        (lambda: chance(torch.tensor([0, 5]), 3), "Labels from 0 to 5"),
        (lambda: nll(torch.zeros(2, 3), torch.zeros(2)), r"got torch.float32 \(2,\)"),
        (lambda: accuracy(torch.zeros(2, 3), torch.tensor([0, 1]), top=4), "top=4 of 3 classes"),
        (lambda: agreement(torch.zeros(2, 3), torch.zeros(2, 4)), r"student \(2, 3\) and teacher \(2, 4\)"),
    ],
)
def test_what_cannot_be_judged_is_said(attempt, message):
    with pytest.raises(ValueError, match=message):
        attempt()
