import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import HiddenState
from tests.losses.masked import assert_padding_has_no_influence
from tests.losses.rows_tokens import tokens


def loss_of(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    size = len(student)
    return HiddenState()(student, teacher, Batch(torch.zeros(size), torch.zeros(size), torch.arange(size), mask))


def test_value_with_and_without_a_mask() -> None:
    # Differences (1, 3), (2, 0), (9, 9). With the last token masked: (1 + 9 + 4 + 0) / (2 tokens · 2) = 3.5; without a
    # mask: (14 + 162) / 6.
    student = torch.tensor([[[1.0, 3.0], [2.0, 0.0], [9.0, 9.0]]])
    assert loss_of(student, torch.zeros(1, 3, 2), torch.tensor([[True, True, False]])).item() == pytest.approx(3.5)
    assert loss_of(student, torch.zeros(1, 3, 2)).item() == pytest.approx(176 / 6)


def test_padding_has_no_influence() -> None:
    assert_padding_has_no_influence(HiddenState(), tokens(6))


def test_an_example_without_any_token_has_loss_and_gradient_zero() -> None:
    student = torch.randn(2, 3, 4).requires_grad_()
    loss = loss_of(student, torch.randn(2, 3, 4), torch.tensor([[True] * 3, [False] * 3]))
    loss.sum().backward()
    assert loss[0] > 0
    assert loss[1] == 0
    assert student.grad is not None
    assert student.grad[1].abs().max() == 0


def test_widths_that_differ_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match="HiddenState") as error:
        loss_of(torch.zeros(2, 3, 4), torch.zeros(2, 3, 8))
    assert str(error.value) == (
        "HiddenState compares tokens (B, T, D) of equal shape, got student (2, 3, 4) and teacher (2, 3, 8). "
        "Add head=Linear(), and tap tokens of the same text."
    )


def test_a_mask_of_other_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"HiddenState takes a mask \(B, T\) of the tokens, \(2, 3\), got \(2, 5\)\. "):
        loss_of(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), torch.ones(2, 5, dtype=torch.bool))
