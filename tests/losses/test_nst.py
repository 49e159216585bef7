import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import NST
from distill.losses.hints.nst import selectivity_discrepancy

BATCH = Batch(torch.zeros(1), torch.zeros(1).long(), torch.arange(1))


def loss_of(student: list[object], teacher: list[object]) -> float:
    """Of maps (C, H, W)."""
    maps: list[Tensor] = [torch.tensor([x], dtype=torch.float64) for x in (student, teacher)]
    return NST()(maps[0], maps[1], BATCH).item()


def kernel_mean(one: Tensor, other: Tensor) -> Tensor:
    """Mean of (a · b)² over all pairs of channels (C, N), pair by pair."""
    return torch.stack([(a @ b) ** 2 for a in one for b in other]).mean()


def test_value_of_one_channel_each() -> None:
    # (0.6, 0.8) against (1, 0): 1 + 1 − 2 · 0.6².
    assert loss_of([[[3.0, 4.0]]], [[[2.0, 0.0]]]) == pytest.approx(1.28)


def test_value_of_two_channels_each() -> None:
    # Student (0.6, 0.8) twice: its own mean is 1. Teacher (1, 0) and (0, 1): its own mean is (1 + 0 + 0 + 1) / 4.
    # Across: (0.36 + 0.64) / 2. So 1 + 0.5 − 2 · 0.5.
    assert loss_of([[[3.0, 4.0]], [[6.0, 8.0]]], [[[1.0, 0.0]], [[0.0, 1.0]]]) == pytest.approx(0.5)


@pytest.mark.parametrize("positions", [2, 3, 4, 9])  # with fewer positions than channels and with more
def test_both_ways_to_compute_it_equal_the_sum_over_pairs(positions: int) -> None:
    student, teacher = (torch.randn(2, channels, positions, dtype=torch.float64) for channels in (3, 2))
    expected = [
        kernel_mean(s, s) + kernel_mean(t, t) - 2 * kernel_mean(s, t) for s, t in zip(student, teacher, strict=True)
    ]
    torch.testing.assert_close(selectivity_discrepancy(student, teacher), torch.stack(expected))


def test_the_order_the_scale_and_the_sign_of_channels_do_not_count() -> None:
    student, teacher = torch.randn(1, 3, 2, 2), torch.randn(1, 5, 2, 2)
    scale = torch.tensor([2.0, -1.0, 0.1]).reshape(3, 1, 1)
    changed = (scale * student)[:, [2, 0, 1]]
    torch.testing.assert_close(NST()(changed, teacher, BATCH), NST()(student, teacher, BATCH))


def test_each_channel_twice_costs_nothing() -> None:
    teacher = torch.randn(1, 3, 3, 3, dtype=torch.float64)
    assert NST()(torch.cat([teacher, teacher], 1), teacher, BATCH).item() == pytest.approx(0, abs=1e-12)


def test_the_larger_map_is_averaged_down_whichever_it_is() -> None:
    # Columns of [[1, 3], [5, 9]] average to (3, 6), which is (1, 2) normalised.
    large, small = [[[1.0, 3.0], [5.0, 9.0]]], [[[1.0, 2.0]]]
    assert loss_of(large, small) == pytest.approx(0)
    assert loss_of(small, large) == pytest.approx(0)


@pytest.mark.parametrize("side", [1, 3])
def test_a_dead_channel_has_zero_gradient(side: int) -> None:
    student = torch.randn(1, 2, side, side)
    student[:, 0] = 0
    NST()(student.requires_grad_(), torch.randn(1, 2, side, side), BATCH).sum().backward()
    assert student.grad is not None
    assert not student.grad[:, 0].any()
    assert student.grad.isfinite().all()
