import math

import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import KD, Loss, MultiLabelKD

# At temperature 2: σ(2 ln 3 / 2) = 3/4 and σ(0) = 1/2, against 1/2 and 1/2.
TEACHER = torch.tensor([[2 * math.log(3), 0.0]], dtype=torch.float64)
STUDENT = torch.zeros(1, 2, dtype=torch.float64)
# KL((3/4, 1/4) ‖ (1/2, 1/2)).
FIRST = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
NAN = math.nan


def loss_of(loss: Loss, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
    labels = torch.zeros(len(student)).long() if labels is None else labels
    return loss(student, teacher, Batch(student, labels, torch.arange(len(student))))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([[0.0, 1.0]], 2 * FIRST), ([[1.0, NAN]], 4 * FIRST), ([[NAN, 1.0]], 0.0), ([[NAN, NAN]], 0.0)],
)
def test_value_is_the_mean_over_the_known_labels_times_the_square_of_the_temperature(
    labels: list[list[float]], expected: float
) -> None:
    value = loss_of(MultiLabelKD(temperature=2.0), STUDENT, TEACHER, torch.tensor(labels)).item()
    assert value == pytest.approx(expected)


@pytest.mark.parametrize("labels", [torch.tensor([1]), torch.tensor([[0, 1]]), torch.tensor([[False, True]])])
def test_with_labels_of_integers_all_count(labels: Tensor) -> None:
    assert loss_of(MultiLabelKD(temperature=2.0), STUDENT, TEACHER, labels).item() == pytest.approx(2 * FIRST)


def test_without_labels_all_count() -> None:
    batch = Batch(STUDENT, None, torch.arange(1))  # type: ignore[arg-type]
    assert MultiLabelKD(temperature=2.0)(STUDENT, TEACHER, batch).item() == pytest.approx(2 * FIRST)


def test_it_equals_the_plain_formula() -> None:
    torch.manual_seed(0)
    student, teacher = 3 * torch.randn(2, 8, 6, dtype=torch.float64)
    labels = torch.where(torch.rand(8, 6) < 0.4, NAN, 1.0)
    p_s, p_t = (student / 2).sigmoid(), (teacher / 2).sigmoid()
    divergence = p_t * (p_t / p_s).log() + (1 - p_t) * ((1 - p_t) / (1 - p_s)).log()
    expected = torch.stack([4 * row[~label.isnan()].mean() for row, label in zip(divergence, labels, strict=True)])
    torch.testing.assert_close(loss_of(MultiLabelKD(temperature=2.0), student, teacher, labels), expected)


def test_it_is_zero_only_where_logits_agree() -> None:
    # A shift of all logits leaves softmax, but no label's probability. In float32 σ(30) and σ(40) are both 1; yet with
    # log σ(z) = −e^−z and log σ(−z) = −z there, KL = (e^−40 − e^−30) + e^−30 (40 − 30).
    torch.manual_seed(0)
    teacher = torch.randn(4, 5)
    assert loss_of(KD(), teacher + 3, teacher).abs().max() < 1e-5
    assert loss_of(MultiLabelKD(), teacher + 3, teacher).min() > 0.1
    assert loss_of(MultiLabelKD(), teacher, teacher).tolist() == [0.0] * 4
    sure, surer = torch.tensor([[30.0]]), torch.tensor([[40.0]])
    expected = math.exp(-30) * 9 + math.exp(-40)
    assert loss_of(MultiLabelKD(), surer, sure).item() == pytest.approx(expected, rel=1e-4)
    assert loss_of(MultiLabelKD(), torch.tensor([[90.0]]), torch.tensor([[80.0]])).item() > 0


def test_opposite_saturated_logits_cost_their_distance() -> None:
    # Teacher sure of yes, log σ(−80) = −80; sure of no the same.
    value = loss_of(MultiLabelKD(), torch.tensor([[-80.0, 80.0]]), torch.tensor([[80.0, -80.0]])).item()
    assert value == pytest.approx(80)


def test_unknown_labels_give_no_gradient_and_no_nan() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3)
    labels = torch.tensor([[1.0, NAN, 0.0], [NAN, NAN, NAN]])
    loss = loss_of(MultiLabelKD(), student, teacher, labels)
    loss.sum().backward()
    assert loss[1].item() == 0
    assert student.grad is not None
    assert student.grad.ne(0).tolist() == [[True, False, True], [False, False, False]]
    assert student.grad.isfinite().all()


def test_a_cut_batch_gives_each_example_the_same() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 7, 4, dtype=torch.float64)
    labels = torch.where(torch.rand(7, 4) < 0.6, NAN, 1.0)
    whole = loss_of(MultiLabelKD(), student, teacher, labels)
    rows = [loss_of(MultiLabelKD(), student[i : i + 1], teacher[i : i + 1], labels[i : i + 1]) for i in range(7)]
    torch.testing.assert_close(torch.cat(rows), whole)


@pytest.mark.parametrize("labels", [torch.zeros(1), torch.zeros(1, 3)])
def test_float_labels_of_another_shape_are_refused(labels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^MultiLabelKD takes labels float \(B, K\) like the logits, got labels \(1,"):
        loss_of(MultiLabelKD(), STUDENT, TEACHER, labels)
