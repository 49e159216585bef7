import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses import DKD, KD, Loss
from distill.losses.logits.dkd import decoupled_divergences, nontarget_logits

# Probabilities whose label is the first class: target against rest (1/2, 1/2) and (1/4, 3/4), the others among
# themselves (1/2, 1/2) and (2/3, 1/3).
TEACHER = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
STUDENT = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64).log()
FIRST = torch.tensor([0])
# KL((1/2, 1/2) ‖ (1/4, 3/4)) = 1/2 ln 2 + 1/2 ln (2/3), and KL((1/2, 1/2) ‖ (2/3, 1/3)) = 1/2 ln (3/4) + 1/2 ln (3/2).
TARGET, NONTARGET = math.log(4 / 3) / 2, math.log(9 / 8) / 2


def loss_of(loss: Loss, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    return loss(student, teacher, Batch(student, labels, torch.arange(len(student))))


def some_logits() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return 3 * torch.randn(8, 6, dtype=torch.float64), 3 * torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 6


def test_value_of_the_two_parts() -> None:
    loss = DKD(temperature=1.0)
    assert loss_of(loss, STUDENT, TEACHER, FIRST).item() == pytest.approx(TARGET + 8 * NONTARGET)
    loss = DKD(temperature=1.0, target_weight=3.0, nontarget_weight=0.0)
    assert loss_of(loss, STUDENT, TEACHER, FIRST).item() == pytest.approx(3 * TARGET)


def test_the_temperature_divides_the_logits_and_its_square_multiplies_the_loss() -> None:
    value = loss_of(DKD(temperature=2.0), 2 * STUDENT, 2 * TEACHER, FIRST).item()
    assert value == pytest.approx(4 * (TARGET + 8 * NONTARGET))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_the_target_part_plus_the_other_times_the_teachers_doubt(temperature: float) -> None:
    student, teacher, labels = some_logits()
    target, nontarget = decoupled_divergences(student, teacher, labels, temperature=temperature)
    doubt = 1 - (teacher / temperature).softmax(1).gather(1, labels[:, None])[:, 0]
    kd = loss_of(KD(temperature=temperature), student, teacher, labels)
    torch.testing.assert_close(target + doubt * nontarget, kd)


def test_it_equals_the_plain_formula() -> None:
    student, teacher, labels = some_logits()
    label = F.one_hot(labels, 6).bool()

    def parts(logits: Tensor) -> tuple[Tensor, Tensor]:
        p = (logits / 4).softmax(1)
        target = p[label]
        others = p[~label].view(8, 5)
        return torch.stack([target, 1 - target], 1), others / others.sum(1, keepdim=True)

    (b_s, p_s), (b_t, p_t) = parts(student), parts(teacher)
    expected = 16 * ((b_t * (b_t / b_s).log()).sum(1) + 8 * (p_t * (p_t / p_s).log()).sum(1))
    torch.testing.assert_close(loss_of(DKD(), student, teacher, labels), expected)


def test_the_others_come_in_their_order_without_the_label() -> None:
    logits = torch.tensor([[10.0, 11.0, 12.0]]).expand(3, 3)
    expected = [[11.0, 12.0], [10.0, 12.0], [10.0, 11.0]]
    assert nontarget_logits(logits, torch.arange(3)).tolist() == expected


def test_a_sure_teacher_does_not_silence_the_other_classes() -> None:
    # Target logit 80: KD's weight 1 − p_t(y) is 0 in float32, the non-target part stays.
    teacher, student = torch.tensor([[80.0, 1.0, 0.0]]), torch.tensor([[80.0, 0.0, 1.0]])
    loss = DKD(temperature=1.0)
    # Among the others (σ(1), σ(−1)) against (σ(−1), σ(1)): KL = 2 σ(1) − 1 = tanh(1/2).
    assert loss_of(loss, student, teacher, FIRST).item() == pytest.approx(8 * math.tanh(0.5))
    assert loss_of(KD(temperature=1.0), student, teacher, FIRST).item() == pytest.approx(0, abs=1e-6)


def test_opposite_saturated_logits_cost_their_distance() -> None:
    # b_t = (0, 1) and log b_s(1) = ln 2 − 160; the others agree.
    student = torch.tensor([[80.0, -80.0, -80.0]], requires_grad=True)
    loss = loss_of(DKD(temperature=1.0), student, torch.tensor([[-80.0, 80.0, 80.0]]), FIRST)
    loss.sum().backward()
    assert loss.item() == pytest.approx(160 - math.log(2))
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.tensor([[1.0, -0.5, -0.5]]))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_of_any_integer_type(dtype: torch.dtype) -> None:
    student, teacher, labels = some_logits()
    torch.testing.assert_close(
        loss_of(DKD(), student, teacher, labels.to(dtype)), loss_of(DKD(), student, teacher, labels)
    )


def test_two_classes_are_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="DKD") as error:
        loss_of(DKD(), torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4).long())
    assert str(error.value) == (
        "DKD compares logits (B, K) of three or more classes, got student (4, 2) and teacher (4, 2). Of two classes "
        "only one is not the target, and nothing is left to compare: use KD()."
    )


@pytest.mark.parametrize("labels", [torch.ones(4, 3) / 3, torch.zeros(4), torch.zeros(4, 1).long()])
def test_soft_labels_are_refused_with_the_way_out(labels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^DKD takes one class for each example, labels int \(B,\), got labels") as e:
        loss_of(DKD(), torch.zeros(4, 3), torch.zeros(4, 3), labels)
    assert str(e.value).endswith("Soft labels (mixup, cutmix) have no target class: switch them off, or use KD().")
