import math

import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import KD


def loss_of(loss: KD, student: list[float] | Tensor, teacher: list[float] | Tensor) -> Tensor:
    rows = [x if isinstance(x, Tensor) else torch.tensor([x], dtype=torch.float64) for x in (student, teacher)]
    size = len(rows[0])
    return loss(rows[0], rows[1], Batch(torch.zeros(size), torch.zeros(size).long(), torch.arange(size)))


def test_value_at_temperature_two() -> None:
    # p_t = softmax((0, 2 ln 3) / 2) = (1/4, 3/4) and p_s = (1/2, 1/2), so
    # T² KL = 4 · (1/4 ln (1/2) + 3/4 ln (3/2)) = ln (1/2) + 3 ln (3/2) = 0.523248.
    value = loss_of(KD(temperature=2.0), [0.0, 0.0], [0.0, 2 * math.log(3)]).item()
    assert value == pytest.approx(math.log(0.5) + 3 * math.log(1.5))


def test_high_temperature_is_half_the_mean_square_of_centred_logits() -> None:
    # Hinton et al., section 2.1: for T far above the logits the gradient is (z_s − z_t) / K for logits of mean zero,
    # which is that of (1 / 2K) Σ (z_s − z_t)². Here (2, −2) against (−1, 1): (9 + 9) / 4.
    assert loss_of(KD(temperature=1e4), [2.0, -2.0], [-1.0, 1.0]).item() == pytest.approx(4.5, rel=1e-4)


def test_opposite_saturated_logits_cost_their_distance() -> None:
    # p_t = (0, 1) up to e^−160; log p_s(1) = −160.
    student = torch.tensor([[80.0, -80.0]], requires_grad=True)
    loss = loss_of(KD(temperature=1.0), student, torch.tensor([[-80.0, 80.0]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(160)
    torch.testing.assert_close(student.grad, torch.tensor([[1.0, -1.0]]))


def test_standardized_value_of_two_classes() -> None:
    # With the unbiased deviation |b − a| / √2, (0, 5) becomes (−1, 1) / √2 and (3, −1) becomes (1, −1) / √2. With
    # p = sigmoid(√2): KL = p √2 − (1 − p) √2 = √2 (2p − 1) = √2 tanh(1/√2) = 0.861.
    value = loss_of(KD(temperature=1.0, standardize=True), [3.0, -1.0], [0.0, 5.0]).item()
    assert value == pytest.approx(math.sqrt(2) * math.tanh(1 / math.sqrt(2)), rel=1e-6)


def test_standardized_ignores_shift_and_scale_of_each_model() -> None:
    student, teacher = torch.randn(4, 7, dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64)
    loss = KD(standardize=True)
    moved = loss_of(loss, 3 * student - 5, 0.5 * teacher + 2)
    torch.testing.assert_close(moved, loss_of(loss, student, teacher), rtol=1e-5, atol=1e-9)
    assert not torch.allclose(loss_of(KD(), 3 * student, teacher), loss_of(KD(), student, teacher))


@pytest.mark.parametrize(("student", "teacher"), [((4, 10), (4, 100)), ((4, 1), (4, 1)), ((4, 10, 2), (4, 10, 2))])
def test_logits_of_other_classes_are_refused_with_both_shapes(
    student: tuple[int, ...], teacher: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="KD compares logits") as error:
        loss_of(KD(), torch.zeros(student), torch.zeros(teacher))
    assert f"got student {student} and teacher {teacher}. " in str(error.value)
