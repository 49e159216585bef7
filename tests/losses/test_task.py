import math

import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import CrossEntropy

# softmax(0, ln 3) = (1/4, 3/4).
LOGITS = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)
FIRST, SECOND = math.log(4), math.log(4 / 3)


def loss_of(loss: CrossEntropy, logits: Tensor, labels: Tensor) -> Tensor:
    return loss(logits, None, Batch(logits, labels, torch.arange(len(logits))))


@pytest.mark.parametrize(("label", "expected"), [(0, FIRST), (1, SECOND)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_hard_label_costs_minus_the_log_of_its_probability(label: int, expected: float, dtype: torch.dtype) -> None:
    assert loss_of(CrossEntropy(), LOGITS, torch.tensor([label], dtype=dtype)).item() == pytest.approx(expected)


def test_label_smoothing_spreads_its_share_over_all_classes() -> None:
    # ε = 0.2 over two classes: target (0.1, 0.9).
    value = loss_of(CrossEntropy(label_smoothing=0.2), LOGITS, torch.tensor([1])).item()
    assert value == pytest.approx(0.1 * FIRST + 0.9 * SECOND)


def test_soft_label_costs_the_mean_over_its_classes_and_can_be_smoothed_too() -> None:
    # (0.3, 0.7), smoothed by 0.2: 0.8 · (0.3, 0.7) + 0.1 = (0.34, 0.66).
    labels = torch.tensor([[0.3, 0.7]])
    assert loss_of(CrossEntropy(), LOGITS, labels).item() == pytest.approx(0.3 * FIRST + 0.7 * SECOND)
    value = loss_of(CrossEntropy(label_smoothing=0.2), LOGITS, labels).item()
    assert value == pytest.approx(0.34 * FIRST + 0.66 * SECOND)


def test_a_saturated_wrong_answer_costs_the_distance_of_the_logits() -> None:
    # −log softmax(80, −80)[1] = log(1 + e^160) = 160.
    assert loss_of(CrossEntropy(), torch.tensor([[80.0, -80.0]]), torch.tensor([1])).item() == pytest.approx(160)


@pytest.mark.parametrize("labels", [torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1), torch.zeros(1, 3)])
def test_labels_that_do_not_meet_the_logits_are_refused(labels: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"^CrossEntropy takes logits \(B, K\) .* got logits \(1, 2\) and labels torch"
    ):
        loss_of(CrossEntropy(), LOGITS, labels)
