import math

import pytest
import torch
from torch.distributions import Normal

from distill.batch import Batch
from distill.losses import VID

BATCH = Batch(torch.zeros(2), torch.zeros(2).long(), torch.arange(2))


def test_value_of_one_element() -> None:
    # ½ [(1 − 3)² / 4 + ln 4].
    student = torch.tensor([[1.0]]), torch.tensor([4.0])
    assert VID()(student, torch.tensor([[3.0]]), BATCH).item() == pytest.approx(0.5 + math.log(2))


def test_it_is_the_negative_logarithm_of_a_normal_density_without_its_constant() -> None:
    mean, target = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    variance = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
    density = Normal(mean, variance.sqrt().reshape(3, 1, 1)).log_prob(target)
    expected = -density.mean((1, 2, 3)) - math.log(2 * math.pi) / 2
    for shape in ((3,), (3, 1, 1), (1, 3, 1, 1)):
        torch.testing.assert_close(VID()((mean, variance.reshape(shape)), target, BATCH), expected)
    torch.testing.assert_close(VID()((mean, variance.reshape(3, 1, 1).expand(2, 3, 1, 1)), target, BATCH), expected)


def test_the_best_variance_is_the_squared_error() -> None:
    target = torch.tensor([[0.1, -0.5, 1.0], [2.0, -3.0, 0.7]], dtype=torch.float64)
    variance = target.square().requires_grad_()
    VID()((torch.zeros_like(target), variance), target, BATCH).sum().backward()
    torch.testing.assert_close(variance.grad, torch.zeros_like(target))


def test_a_sure_and_right_mean_costs_less_than_nothing() -> None:
    mean = torch.randn(2, 3)
    loss = VID()((mean, torch.full((3,), 0.01)), mean, BATCH)
    torch.testing.assert_close(loss, torch.full((2,), math.log(0.01) / 2))


@pytest.mark.parametrize("variance", [(4,), (2, 3), (1, 1, 3, 1, 1), (3, 3, 1, 1)])
def test_a_variance_that_is_not_of_the_channels_is_refused_with_all_shapes(variance: tuple[int, ...]) -> None:
    student = torch.zeros(2, 3, 4, 4), torch.ones(variance)
    with pytest.raises(ValueError, match="VID compares features with a mean of their shape") as error:
        VID()(student, torch.zeros(2, 3, 4, 4), BATCH)
    assert f"got student [(2, 3, 4, 4), {variance}] and teacher (2, 3, 4, 4). " in str(error.value)


def test_a_mean_of_other_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="VID compares features with a mean of their shape"):
        VID()((torch.zeros(2, 3, 4, 4), torch.ones(3)), torch.zeros(2, 3, 2, 2), BATCH)
