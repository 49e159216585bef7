import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses import TokenCosine
from tests.losses.masked import assert_padding_has_no_influence
from tests.losses.rows_tokens import tokens


def loss_of(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    size = len(student)
    return TokenCosine()(student, teacher, Batch(torch.zeros(size), torch.zeros(size), torch.arange(size), mask))


def test_value_of_three_tokens() -> None:
    # Against (1, 0): (5, 0) has cosine 1, (1, 1) has 1/√2, (−2, 0) has −1. Mean of 1 − cosine of the first two, and of
    # all three.
    student = torch.tensor([[[5.0, 0.0], [1.0, 1.0], [-2.0, 0.0]]], dtype=torch.float64)
    teacher = torch.tensor([[[1.0, 0.0]] * 3], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    assert loss_of(student, teacher, mask).item() == pytest.approx((1 - 1 / math.sqrt(2)) / 2)
    assert loss_of(student, teacher).item() == pytest.approx((3 - 1 / math.sqrt(2)) / 3)


def test_it_is_torchs_cosine_averaged_over_tokens() -> None:
    student, teacher = torch.randn(4, 5, 6).double(), torch.randn(4, 5, 6).double()
    torch.testing.assert_close(loss_of(student, teacher), (1 - F.cosine_similarity(student, teacher, dim=2)).mean(1))


def test_the_length_of_a_vector_does_not_matter() -> None:
    student, teacher = torch.randn(4, 5, 6).double(), torch.randn(4, 5, 6).double()
    lengths = torch.rand(4, 5, 1).double() + 0.1
    torch.testing.assert_close(loss_of(lengths * student, 3 * teacher), loss_of(student, teacher))


def test_a_zero_vector_costs_one_without_gradient() -> None:
    student = torch.zeros(1, 2, 3).requires_grad_()
    loss = loss_of(student, torch.randn(1, 2, 3))
    loss.sum().backward()
    assert loss.item() == 1
    assert student.grad is not None
    assert student.grad.abs().max() == 0


def test_padding_has_no_influence() -> None:
    assert_padding_has_no_influence(TokenCosine(), tokens(6))


def test_an_example_without_any_token_has_loss_zero() -> None:
    assert loss_of(torch.randn(1, 3, 4), torch.randn(1, 3, 4), torch.zeros(1, 3, dtype=torch.bool)).item() == 0
