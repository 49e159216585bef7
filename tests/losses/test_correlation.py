import math

import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import CorrelationCongruence


def shares(loss: CorrelationCongruence, student: Tensor, teacher: Tensor) -> Tensor:
    size = len(student)
    return loss(student, teacher, Batch(torch.zeros(size), torch.zeros(size).long(), torch.arange(size)))


def test_value_of_two_examples() -> None:
    # Cosines 1 in the student and 0 in the teacher; γ = 0.4 and P = 2 give the kernel e^−0.8 (1 + 0.8 x + 0.32 x²), so
    # 2.12 e^−0.8 against e^−0.8. The diagonal is equal; each share is (1.12 e^−0.8)² / 2.
    student, teacher = torch.tensor([[1.0, 1.0], [3.0, 3.0]]), torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    expected = (1.12 * math.exp(-0.8)) ** 2 / 2
    torch.testing.assert_close(shares(CorrelationCongruence(), student, teacher), torch.full((2,), expected))


@pytest.mark.parametrize("gamma", [0.1, 0.4, 2.0, 20.0])
def test_a_high_order_is_the_gaussian_kernel(gamma: float) -> None:
    student, teacher = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)

    def gaussian(x: Tensor) -> Tensor:
        units = x / x.norm(dim=1, keepdim=True)
        return (-gamma * (units[:, None] - units).square().sum(2)).exp()

    expected = (gaussian(student) - gaussian(teacher)).square().mean(1)
    loss = CorrelationCongruence(gamma=gamma, order=200)
    torch.testing.assert_close(shares(loss, student, teacher), expected, atol=1e-12, rtol=1e-9)


def test_the_norms_of_embeddings_do_not_count() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 4)
    scaled = student * torch.tensor([[0.1], [1.0], [3.0], [7.0], [50.0]])
    loss = CorrelationCongruence()
    torch.testing.assert_close(shares(loss, scaled, 0.3 * teacher), shares(loss, student, teacher))


def test_a_dead_example_has_no_gradient() -> None:
    student = torch.tensor([[0.0, 0.0], [1.0, 2.0]], requires_grad=True)
    shares(CorrelationCongruence(), student, torch.randn(2, 3)).sum().backward()
    assert student.grad is not None
    assert student.grad[0].abs().max() == 0


def test_a_kernel_of_a_large_gamma_and_order_stays_finite() -> None:
    # (2γ)^p / p! alone would be 800^400 / 400!, beyond float64's range.
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    assert shares(CorrelationCongruence(gamma=400.0, order=400), student, teacher).isfinite().all()
