import math

import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import AttentionTransfer

BATCH = Batch(torch.zeros(1), torch.zeros(1).long(), torch.arange(1))


def loss_of(student: list[object], teacher: list[object], *, power: float) -> float:
    """Of maps (C, H, W)."""
    maps: list[Tensor] = [torch.tensor([x], dtype=torch.float64) for x in (student, teacher)]
    return AttentionTransfer(power=power)(maps[0], maps[1], BATCH).item()


def test_value_with_power_one_over_two_channels() -> None:
    # Mean of |f| over the student's channels (3, 4), normalised (0.6, 0.8); the teacher's (0.8, 0.6): 0.2² in both.
    assert loss_of([[[-3.0, 4.0]], [[3.0, -4.0]]], [[[8.0, 6.0]]], power=1) == pytest.approx(0.04)


def test_value_with_power_two() -> None:
    # Squares (3, 4) and (4, 3), the same attention as above.
    assert loss_of([[[math.sqrt(3), 2.0]]], [[[2.0, math.sqrt(3)]]], power=2) == pytest.approx(0.04)


def test_the_larger_map_is_averaged_down_whichever_it_is() -> None:
    # Columns of [[1, 3], [5, 9]] average to (3, 6), the attention of (1, 2).
    large, small = [[[1.0, 3.0], [5.0, 9.0]]], [[[1.0, 2.0]]]
    assert loss_of(large, small, power=1) == pytest.approx(0)
    assert loss_of(small, large, power=1) == pytest.approx(0)
    # Higher against wider: both come to one row and one column.
    assert loss_of([[[1.0], [2.0]]], small, power=2) == pytest.approx(0)


def test_the_scale_of_a_map_does_not_count() -> None:
    student, teacher = torch.randn(1, 2, 3, 3), torch.randn(1, 4, 3, 3)
    loss = AttentionTransfer()
    torch.testing.assert_close(loss(7 * student, 0.1 * teacher, BATCH), loss(student, teacher, BATCH))


def test_a_dead_map_costs_the_teachers_whole_attention_with_zero_gradient() -> None:
    # Q_s = 0 and ‖Q_t‖ = 1 over 9 positions.
    student = torch.zeros(1, 2, 3, 3, requires_grad=True)
    loss = AttentionTransfer()(student, torch.randn(1, 4, 3, 3), BATCH)
    loss.sum().backward()
    assert loss.item() == pytest.approx(1 / 9)
    assert student.grad is not None
    assert not student.grad.any()
