"""AUROC, average precision, likelihood and divergence of several labels: by hand, and as scikit-learn has them."""

import math

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from distill.metrics import (
    auroc,
    average_precision,
    label_counts,
    label_divergence,
    label_quality,
    mean_defined,
)

NAN = math.nan


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def drawn(examples: int, labels: int, *, unknown: float = 0.0) -> tuple[Tensor, Tensor]:
    """Logits in tenths, so that many are tied, and labels."""
    truth = (torch.rand(examples, labels) < 0.2).float()
    logits = (10 * torch.randn(examples, labels) + 8 * truth).round() / 10
    return logits, truth.masked_fill(torch.rand(examples, labels) < unknown, NAN)


def test_auroc_by_hand_counts_ties_by_half() -> None:
    # Positives 3 and 1, negatives 2, 1 and 0: 3 is above all three, 1 above one and tied with one: 4.5 of 6 pairs.
    assert auroc(column(3, 1, 2, 1, 0), column(1, 1, 0, 0, 0)).tolist() == pytest.approx([4.5 / 6])


def test_average_precision_by_hand() -> None:
    # At 3: 1 of 1 right, half of the positives; at 1: 2 of 4 right, the other half.
    assert average_precision(column(3, 1, 2, 1, 0), column(1, 1, 0, 0, 0)).tolist() == pytest.approx([0.75])


def test_unknown_labels_do_not_count() -> None:
    logits, labels = column(3, 9, 1, 2, 1, -9, 0), column(1, NAN, 1, 0, 0, NAN, 0)
    assert auroc(logits, labels).tolist() == pytest.approx([4.5 / 6])
    assert average_precision(logits, labels).tolist() == pytest.approx([0.75])


def test_they_are_those_of_scikit_learn_on_ties_and_with_unknown_labels() -> None:
    torch.manual_seed(0)
    logits, labels = drawn(600, 5, unknown=0.3)
    assert len(logits.unique()) < 100
    for ours, theirs in ((auroc, roc_auc_score), (average_precision, average_precision_score)):
        values = ours(logits, labels)
        assert values.dtype == torch.float64
        for label, value in enumerate(values.tolist()):
            known = ~labels[:, label].isnan()
            assert value == pytest.approx(theirs(labels[known, label], logits[known, label]), abs=1e-6)


def test_they_are_those_of_scikit_learn_over_many_examples() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(30_000, 1), (torch.rand(30_000, 1) < 0.05).float()
    assert auroc(logits, labels).item() == pytest.approx(roc_auc_score(labels, logits), abs=1e-6)
    assert average_precision(logits, labels).item() == pytest.approx(average_precision_score(labels, logits), abs=1e-6)


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0, -7.0, 30.0])
def test_constant_scores_know_nothing(score: float) -> None:
    labels = column(1, 0, 0, 1, 0)
    assert auroc(torch.full((5, 1), score), labels).item() == pytest.approx(0.5, abs=1e-6)
    assert average_precision(torch.full((5, 1), score), labels).item() == pytest.approx(0.4, abs=1e-6)


def test_logits_so_large_that_their_probabilities_are_equal_are_told_apart() -> None:
    # In float32 the sigmoid of 20 and of 25 is 1.
    assert torch.equal(column(20, 25).sigmoid(), column(1, 1))
    assert auroc(column(20, 25, 30), column(0, 1, 1)).item() == 1.0
    assert auroc(column(-200, -150), column(0, 1)).item() == 1.0
    assert average_precision(column(20, 25), column(1, 0)).item() == pytest.approx(0.5)


def test_logits_between_zero_and_one_give_what_others_in_the_same_order_give() -> None:
    labels = column(0, 1, 0, 1)
    near, far = column(0.1, 0.2, 0.3, 0.4), column(-5, 1, 2, 80)
    assert torch.equal(auroc(near, labels), auroc(far, labels))
    assert torch.equal(average_precision(near, labels), average_precision(far, labels))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_narrow_and_wide_floats_are_judged_alike(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits, labels = drawn(50, 3)
    logits = logits.to(dtype)
    assert torch.equal(auroc(logits, labels), auroc(logits.double(), labels))
    assert label_quality(logits, labels) == pytest.approx(label_quality(logits.double(), labels))
    assert label_divergence(logits, logits.flip(0)) == label_divergence(logits.double(), logits.double().flip(0))


def test_a_label_of_one_class_is_nan_and_counted_without_a_warning() -> None:
    labels = torch.tensor([[1.0, 0.0, NAN, 1.0], [1.0, 0.0, NAN, 0.0], [NAN, 0.0, NAN, 0.0]])
    logits = torch.randn(3, 4)
    for measure in (auroc, average_precision):
        assert measure(logits, labels).isnan().tolist() == [True, True, True, False]
    counts = label_counts(labels)
    assert counts.positives.tolist() == [2, 0, 0, 1]
    assert counts.negatives.tolist() == [0, 3, 0, 2]


def test_mean_defined_leaves_out_what_is_nan() -> None:
    assert mean_defined(torch.tensor([NAN, 0.5, 1.0])) == 0.75
    assert math.isnan(mean_defined(torch.tensor([NAN, NAN])))


def test_quality_by_hand() -> None:
    # Label 0: σ(ln 3) = 3/4 holds, σ(0) = 1/2 does not: ranked right, and 1/4 and 1/2 off. Label 1: one known example,
    # of probability 1/2, that holds: no AUROC, and 1/2 off.
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 9.0]])
    quality = label_quality(logits, torch.tensor([[1.0, 1.0], [0.0, NAN]]))
    assert quality == {
        "auroc": 1.0,
        "average_precision": 1.0,
        "nll": pytest.approx((math.log(4 / 3) + 2 * math.log(2)) / 3),
        "calibration_error": pytest.approx((0.375 + 0.5) / 2),
    }
    assert {type(value) for value in quality.values()} == {float}


def test_a_model_that_diverged_has_no_quality_and_does_not_stop_the_run() -> None:
    quality = label_quality(torch.tensor([[NAN], [1.0]]), column(1, 0))
    assert math.isnan(quality["nll"]) and math.isnan(quality["auroc"]) and math.isnan(quality["average_precision"])


def test_divergence_by_hand_is_from_teacher_to_student() -> None:
    # KL((3/4, 1/4) ‖ (1/2, 1/2)) of one label in two.
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])
    assert label_divergence(student, teacher) == pytest.approx(expected / 2, rel=1e-6)
    assert label_divergence(teacher, student) == pytest.approx(0.5 * math.log(4 / 3) / 2, rel=1e-6)


def test_divergence_is_zero_of_equals_and_finite_of_saturated_opposites() -> None:
    logits = torch.randn(20, 7)
    assert label_divergence(logits, logits) == 0.0
    assert label_divergence(column(-800), column(800)) == pytest.approx(800)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: auroc(torch.empty(0, 3), torch.empty(0, 3)), "no examples to judge"),
        (lambda: auroc(torch.empty(3, 0), torch.empty(3, 0)), "no examples to judge"),
        (lambda: auroc(torch.zeros(3), torch.zeros(3)), r"got \(3,\) and \(3,\)"),
        (lambda: auroc(torch.zeros(3, 2), torch.zeros(3)), r"got \(3, 2\) and \(3,\)"),
        (lambda: average_precision(torch.zeros(3, 2), torch.zeros(2, 2)), r"got \(3, 2\) and \(2, 2\)"),
        (
            lambda: label_quality(torch.zeros(2, 2), torch.zeros(2, 2).long()),
            "are floats, got torch.float32 and torch.int",
        ),
        (lambda: auroc(torch.zeros(2, 2).long(), torch.zeros(2, 2)), "are floats, got torch.int64 and torch.float32"),
        (lambda: auroc(torch.zeros(2, 1), column(0.5, 1)), "Labels are 1, 0 or NaN where unknown, got 0.5"),
        (lambda: label_counts(column(2, 1)), "got 2"),
        (lambda: label_divergence(torch.zeros(2, 1), torch.zeros(2, 2)), r"student \(2, 1\) and teacher \(2, 2\)"),
        (lambda: label_divergence(torch.empty(0, 1), torch.empty(0, 1)), "no examples to compare"),
        (lambda: label_divergence(column(NAN), column(1)), "The student's logits must be finite numbers, got nan"),
        (lambda: label_divergence(column(1), column(math.inf)), "The teacher's logits must be finite numbers, got inf"),
    ],
)
def test_what_cannot_be_judged_is_said(attempt, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        attempt()
    assert "\n" not in str(error.value)
