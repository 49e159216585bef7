import math

import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from distill.metrics import Bin, label_calibration_errors, reliability

NAN = math.nan


def logits_of(*probabilities: float) -> torch.Tensor:
    p = torch.tensor(probabilities, dtype=torch.float64)
    return (p / (1 - p)).log()


def test_bins_by_hand() -> None:
    # Halves: 0.2 and 0.4 (one holds) below, 0.5 (holds) and 0.9 (does not) from 0.5 on; the unknown one nowhere.
    low, high = reliability(logits_of(0.2, 0.4, 0.5, 0.9, 0.7), torch.tensor([0.0, 1.0, 1.0, 0.0, NAN]), bins=2)
    assert low == Bin(0.0, 0.5, 2, pytest.approx(0.3), 0.5)
    assert high == Bin(0.5, 1.0, 2, pytest.approx(0.7), 0.5)


def test_an_empty_bin_has_no_confidence_and_a_probability_of_one_is_in_the_last() -> None:
    bins = reliability(torch.tensor([800.0, -800.0]), torch.tensor([0.0, 0.0]), bins=3)
    assert [one.count for one in bins] == [1, 0, 1]
    assert math.isnan(bins[1].confidence) and math.isnan(bins[1].frequency)
    assert (bins[2].confidence, bins[2].frequency) == (1.0, 0.0)


def test_error_by_hand_weighs_bins_by_their_examples() -> None:
    # In fifteenths 0.7 and 0.71 share a bin, of mean 0.705, and one of them holds; 0.2 in its own does not:
    # 2/3 · 0.205 + 1/3 · 0.2. Of the second label only 0.9 is known, and holds.
    logits = torch.stack([logits_of(0.7, 0.71, 0.2), logits_of(0.9, 0.3, 0.3)], 1)
    labels = torch.tensor([[1.0, 1.0], [0.0, NAN], [0.0, NAN]])
    assert label_calibration_errors(logits, labels).tolist() == pytest.approx([2 / 3 * 0.205 + 0.2 / 3, 0.1])


def test_error_is_that_of_torchmetrics() -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(500, 2, dtype=torch.float64), torch.rand(500, 2).round()
    expected = [
        binary_calibration_error(logits[:, label].sigmoid(), labels[:, label].long(), n_bins=15).item()
        for label in range(2)
    ]
    assert label_calibration_errors(logits, labels).tolist() == pytest.approx(expected, abs=1e-6)


def test_logits_between_zero_and_one_are_not_taken_for_probabilities() -> None:
    error = label_calibration_errors(torch.tensor([[0.9]]), torch.tensor([[1.0]])).item()
    assert error == pytest.approx(1 - 1 / (1 + math.exp(-0.9)), abs=1e-6)


def test_a_label_without_known_examples_has_no_error() -> None:
    assert label_calibration_errors(torch.zeros(2, 1), torch.full((2, 1), NAN)).isnan().all()


def test_all_labels_can_be_pooled() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(20, 3), torch.rand(20, 3).round()
    assert reliability(logits, labels, bins=4) == reliability(logits.flatten(), labels.flatten(), bins=4)
    assert sum(one.count for one in reliability(logits, labels)) == 60


def test_no_bins_and_no_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one bin, got 0"):
        reliability(torch.zeros(2), torch.zeros(2), bins=0)
    with pytest.raises(ValueError, match="no examples to judge"):
        reliability(torch.zeros(0), torch.zeros(0))
