import math

import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import InterChannel


def batch(size: int) -> Batch:
    return Batch(torch.zeros(size), torch.zeros(size).long(), torch.arange(size))


def loss_of(student: Tensor, teacher: Tensor) -> Tensor:
    return InterChannel()(student, teacher, batch(len(student)))


def map_of(*channels: list[float]) -> Tensor:
    """A map (1, C, 1, W) from one row of values a channel."""
    return torch.tensor([[[channel] for channel in channels]], dtype=torch.float64)


def test_value_of_two_channels() -> None:
    # Student (1, 0) and (0, 1): F Fᵀ = I. Teacher (1, 0) and (1, 1): F Fᵀ = [[1, 1], [1, 2]], its rows over √2 and √5.
    # Squared differences: (1 − 1/√2)² + 1/2 + 1/5 + (1 − 2/√5)² = 2 − √2 + 2 − 4/√5; over C = 2.
    value = loss_of(map_of([1, 0], [0, 1]), map_of([1, 0], [1, 1])).item()
    assert value == pytest.approx((4 - math.sqrt(2) - 4 / math.sqrt(5)) / 2)


def test_the_larger_map_is_averaged_down() -> None:
    # The student's (3, 1) averages to 2 and its (−1, 5) to 2, as in the teacher. Not averaged, F Fᵀ = [[10, 2], ...].
    student, teacher = map_of([3, 1], [-1, 5]), map_of([2], [2])
    assert loss_of(student, teacher).item() == pytest.approx(0, abs=1e-15)
    assert loss_of(teacher, student).item() == pytest.approx(0, abs=1e-15)


def test_the_scale_of_a_model_does_not_matter() -> None:
    student, teacher = torch.randn(3, 4, 5, 5).double(), torch.randn(3, 4, 5, 5).double()
    torch.testing.assert_close(loss_of(7 * student, 0.1 * teacher), loss_of(student, teacher))


def test_it_is_the_formula_channel_by_channel() -> None:
    student, teacher = torch.randn(3, 4, 2, 3).double(), torch.randn(3, 4, 2, 3).double()

    def row(features: Tensor, channel: int) -> Tensor:
        products = torch.stack([(features[channel] * other).sum() for other in features])
        return products / products.norm()

    expected = [
        sum((row(one, c) - row(other, c)).square().sum() for c in range(4)) / 4
        for one, other in zip(student, teacher, strict=True)
    ]
    torch.testing.assert_close(loss_of(student, teacher), torch.stack(expected))


def test_a_dead_channel_has_a_zero_row_and_no_gradient() -> None:
    # Student: channel 2 is dead, G = [[1, 0], [0, 0]]. Teacher: G = I. Only the entry (2, 2) differs: 1 / 2.
    student = map_of([1, 0], [0, 0]).requires_grad_()
    loss = loss_of(student, map_of([1, 0], [0, 1]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.5)
    assert student.grad is not None
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_channels_that_differ_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match="InterChannel") as error:
        loss_of(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4, 4))
    assert str(error.value) == (
        "InterChannel compares maps (B, C, H, W) of equal channels, got student (2, 3, 4, 4) and teacher "
        "(2, 5, 4, 4). Add head=Conv1x1()."
    )
