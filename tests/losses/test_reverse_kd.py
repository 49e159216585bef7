import math

import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import KD, Loss, ReverseKD


def loss_of(loss: Loss, student: list[float] | Tensor, teacher: list[float] | Tensor) -> Tensor:
    rows = [x if isinstance(x, Tensor) else torch.tensor([x], dtype=torch.float64) for x in (student, teacher)]
    size = len(rows[0])
    return loss(rows[0], rows[1], Batch(torch.zeros(size), torch.zeros(size).long(), torch.arange(size)))


def test_value_at_temperature_two() -> None:
    # p_t = softmax((0, 2 ln 3) / 2) = (1/4, 3/4) and p_s = (1/2, 1/2), so
    # T² KL = 4 · (1/2 ln 2 + 1/2 ln (2/3)) = 2 ln (4/3) = 0.575364; the forward divergence is 0.523248.
    value = loss_of(ReverseKD(temperature=2.0), [0.0, 0.0], [0.0, 2 * math.log(3)]).item()
    assert value == pytest.approx(2 * math.log(4 / 3))


def test_it_is_kd_with_the_models_exchanged_and_not_kd() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 7, dtype=torch.float64)
    reverse = loss_of(ReverseKD(temperature=3.0), student, teacher)
    torch.testing.assert_close(reverse, loss_of(KD(temperature=3.0), teacher, student))
    assert (reverse - loss_of(KD(temperature=3.0), student, teacher)).abs().min() > 1e-3


def test_it_equals_the_plain_formula() -> None:
    torch.manual_seed(0)
    student, teacher = 3 * torch.randn(2, 6, 5, dtype=torch.float64)
    p_s, p_t = (student / 2).softmax(1), (teacher / 2).softmax(1)
    torch.testing.assert_close(
        loss_of(ReverseKD(temperature=2.0), student, teacher), 4 * (p_s * (p_s / p_t).log()).sum(1)
    )


def test_leaving_out_one_of_two_likely_classes_costs_little_and_covering_unlikely_ones_much() -> None:
    # The teacher's logarithms: −ln 2 twice, and −ln 2 − 20. All on the first class: 0 + ln 2, where KD has
    # 1/2 (−ln 2) + 1/2 (20 − ln 2). Spread over all three: −ln 3 + ln 2 + 20/3, where KD has ln 3 − ln 2.
    teacher, one, all_three = [0.0, 0.0, -20.0], [0.0, -20.0, -20.0], [0.0, 0.0, 0.0]
    assert loss_of(ReverseKD(), one, teacher).item() == pytest.approx(math.log(2), abs=1e-6)
    assert loss_of(KD(temperature=1.0), one, teacher).item() == pytest.approx(10 - math.log(2), abs=1e-6)
    assert loss_of(ReverseKD(), all_three, teacher).item() == pytest.approx(20 / 3 - math.log(1.5), abs=1e-6)
    assert loss_of(KD(temperature=1.0), all_three, teacher).item() == pytest.approx(math.log(1.5), abs=1e-6)


def test_opposite_saturated_logits_cost_their_distance() -> None:
    # p_s = (1, 0) up to e^−160; log p_t(0) = −160.
    student = torch.tensor([[80.0, -80.0]], requires_grad=True)
    loss = loss_of(ReverseKD(), student, torch.tensor([[-80.0, 80.0]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(160)
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(("student", "teacher"), [((4, 10), (4, 100)), ((4, 1), (4, 1)), ((4, 10, 2), (4, 10, 2))])
def test_logits_of_other_classes_are_refused_with_both_shapes(
    student: tuple[int, ...], teacher: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"ReverseKD compares logits .* of the same classes") as error:
        loss_of(ReverseKD(), torch.zeros(student), torch.zeros(teacher))
    assert f"got student {student} and teacher {teacher}. " in str(error.value)
