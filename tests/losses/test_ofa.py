import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses import KD, OFA, Loss
from distill.losses.logits.ofa import enhanced_targets

TEACHER = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
STUDENT = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64).log()


def loss_of(loss: Loss, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    return loss(student, teacher, Batch(student, labels, torch.arange(len(student))))


@pytest.mark.parametrize(
    ("gamma", "label", "expected"),
    [
        # −1/2 ln (1/4) − 1/4 ln (1/2) − 1/4 ln (1/4) = (1 + 1/4 + 1/2) ln 2, whatever the label.
        (1.0, 0, 1.75),
        (1.0, 1, 1.75),
        # Weights (3/2)² − 1 = 5/4, 1/16, 1/16 with −log p_s of 2, 1, 2 times ln 2.
        (2.0, 0, 2.5 + 1 / 16 + 2 / 16),
        # The second class as label: weights 1/4, (5/4)² − 1 = 9/16, 1/16.
        (2.0, 1, 0.5 + 9 / 16 + 2 / 16),
    ],
)
def test_value(gamma: float, label: int, expected: float) -> None:
    value = loss_of(OFA(gamma), STUDENT, TEACHER, torch.tensor([label])).item()
    assert value == pytest.approx(expected * math.log(2))


@pytest.mark.parametrize("gamma", [1.0, 1.5])
def test_it_equals_the_plain_formula(gamma: float) -> None:
    torch.manual_seed(0)
    student, teacher = 3 * torch.randn(2, 8, 6, dtype=torch.float64)
    labels = torch.arange(8) % 6
    label = F.one_hot(labels, 6)
    weights = (teacher.softmax(1) + label) ** gamma - label
    expected = -(weights * student.softmax(1).log()).sum(1)
    torch.testing.assert_close(loss_of(OFA(gamma), student, teacher, labels), expected)


def test_with_gamma_one_it_is_kd_plus_the_teachers_entropy() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 8, 6, dtype=torch.float64)
    p, labels = teacher.softmax(1), torch.arange(8) % 6
    entropy = -(p * p.log()).sum(1)
    kd = loss_of(KD(temperature=1.0), student, teacher, labels)
    torch.testing.assert_close(loss_of(OFA(), student, teacher, labels), kd + entropy)


def test_a_higher_gamma_raises_the_label_and_lowers_the_others() -> None:
    targets = [enhanced_targets(TEACHER, torch.tensor([0]), gamma=gamma)[0] for gamma in (1.0, 1.5, 3.0)]
    for lower, higher in ((targets[0], targets[1]), (targets[1], targets[2])):
        assert higher[0] > lower[0]
        assert (higher[1:] < lower[1:]).all()


def test_a_label_that_the_teacher_finds_unlikely_keeps_its_small_weight() -> None:
    # In float32 1 + 1e-9 is 1, and the weight (1 + p)^γ − 1 would be 0 instead of γ p.
    teacher = torch.tensor([[1e-9, 1.0]]).log()
    weight = enhanced_targets(teacher, torch.tensor([0]), gamma=1.5)[0, 0].item()
    assert weight == pytest.approx(1.5e-9, rel=1e-5)


def test_opposite_saturated_logits_cost_their_distance() -> None:
    # Weights (0, 2^1.5 − 1) with −log p_s = (0, 160).
    student = torch.tensor([[80.0, -80.0]], requires_grad=True)
    loss = loss_of(OFA(1.5), student, torch.tensor([[-80.0, 80.0]]), torch.tensor([1]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(160 * (2**1.5 - 1))
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_soft_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^OFA takes one class for each example, labels int \(B,\), got labels"):
        loss_of(OFA(), torch.zeros(4, 3), torch.zeros(4, 3), torch.ones(4, 3) / 3)
