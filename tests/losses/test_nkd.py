import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses import NKD
from distill.losses.logits.nkd import nontarget_part, target_part

TEACHER = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
STUDENT = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64).log()
FIRST = torch.tensor([0])


def loss_of(loss: NKD, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    return loss(student, teacher, Batch(student, labels, torch.arange(len(student))))


def test_value_of_the_two_parts() -> None:
    # −1/2 ln (1/4) = ln 2; the others (1/2, 1/2) against (2/3, 1/3): −1/2 ln (2/3) − 1/2 ln (1/3) = 1/2 ln (9/2).
    value = loss_of(NKD(), STUDENT, TEACHER, FIRST).item()
    assert value == pytest.approx(math.log(2) + 1.5 * math.log(4.5) / 2)


def test_the_temperature_softens_the_other_classes_alone() -> None:
    # Logits twice as large at T = 2: the others are as before and count four times. In the first part, p_t and p_s are
    # the squares over their sums: (4, 1, 1) / 6 and (1, 4, 1) / 6, so −4/6 ln (1/6).
    value = loss_of(NKD(temperature=2.0, weight=1.0), 2 * STUDENT, 2 * TEACHER, FIRST).item()
    assert value == pytest.approx(2 / 3 * math.log(6) + 4 * math.log(4.5) / 2)


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 1.5), (3.0, 3.5)])
def test_it_equals_the_plain_formula(temperature: float, weight: float) -> None:
    torch.manual_seed(0)
    student, teacher = 3 * torch.randn(2, 8, 6, dtype=torch.float64)
    labels = torch.arange(8) % 6
    label = F.one_hot(labels, 6).bool()

    def others(logits: Tensor) -> Tensor:
        p = (logits / temperature).exp()[~label].view(8, 5)
        return p / p.sum(1, keepdim=True)

    target = -teacher.softmax(1)[label] * student.softmax(1)[label].log()
    rest = -(others(teacher) * others(student).log()).sum(1)
    expected = target + weight * temperature**2 * rest
    torch.testing.assert_close(loss_of(NKD(temperature, weight), student, teacher, labels), expected)


def test_the_target_class_is_not_among_the_others() -> None:
    moved = STUDENT + torch.tensor([[7.0, 0.0, 0.0]])
    torch.testing.assert_close(
        nontarget_part(moved, TEACHER, FIRST, temperature=1.0), nontarget_part(STUDENT, TEACHER, FIRST, temperature=1.0)
    )


def test_a_student_surer_of_the_target_than_the_teacher_is_not_held_back() -> None:
    surer = TEACHER + torch.tensor([[7.0, 0.0, 0.0]])
    assert target_part(surer, TEACHER, FIRST).item() < target_part(TEACHER, TEACHER, FIRST).item()


def test_opposite_saturated_logits_stay_finite() -> None:
    # p_t(y) = 1 and log p_s(y) = −ln 2 − 160; the others agree on (1/2, 1/2), whose entropy is ln 2.
    student = torch.tensor([[-80.0, 80.0, 80.0]], requires_grad=True)
    loss = loss_of(NKD(), student, torch.tensor([[80.0, -80.0, -80.0]]), FIRST)
    loss.sum().backward()
    assert loss.item() == pytest.approx(160 + math.log(2) + 1.5 * math.log(2))
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.tensor([[-1.0, 0.5, 0.5]]))


def test_of_two_classes_the_target_part_is_left() -> None:
    student, teacher = torch.randn(2, 4, 2, dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0])
    torch.testing.assert_close(loss_of(NKD(), student, teacher, labels), target_part(student, teacher, labels))


def test_soft_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^NKD takes one class for each example, labels int \(B,\), got labels"):
        loss_of(NKD(), torch.zeros(4, 3), torch.zeros(4, 3), torch.ones(4, 3) / 3)
