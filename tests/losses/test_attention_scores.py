import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import AttentionScores
from tests.losses.masked import assert_padding_has_no_influence
from tests.losses.rows_tokens import scores


def loss_of(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    size = len(student)
    return AttentionScores()(student, teacher, Batch(torch.zeros(size), torch.zeros(size), torch.arange(size), mask))


def of_heads(*heads: list[list[float]]) -> Tensor:
    return torch.tensor([heads], dtype=torch.float64)


def test_value_over_heads_and_own_pairs() -> None:
    # Differences 1, 2, 3, 4 in one head and 1, 0, 0, 0 in the other: 31 / 8. With the second token masked one pair is
    # left in each head: (1 + 1) / 2.
    student = of_heads([[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 0.0]])
    assert loss_of(student, torch.zeros_like(student)).item() == pytest.approx(31 / 8)
    assert loss_of(student, torch.zeros_like(student), torch.tensor([[True, False]])).item() == pytest.approx(1)


@pytest.mark.parametrize("masked", [-100.0, -1e4, -1e30, -float("inf")])
def test_scores_that_a_model_masked_count_as_zero_on_both_sides(masked: float) -> None:
    # Student (2, masked) against teacher (masked', −5): differences 2 − 0 and 0 + 5 of four pairs.
    student = of_heads([[2.0, masked], [0.0, 0.0]]).requires_grad_()
    loss = loss_of(student, of_heads([[-1e4, -5.0], [masked, 0.0]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(29 / 4)
    assert student.grad is not None
    assert student.grad[0, 0].tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_large_negative_scores_above_the_bound_count() -> None:
    assert loss_of(of_heads([[-99.0]]), of_heads([[-98.0]])).item() == pytest.approx(1)


def test_padding_has_no_influence() -> None:
    assert_padding_has_no_influence(AttentionScores(), scores(6))


def test_an_example_without_any_token_has_loss_zero() -> None:
    mask = torch.zeros(1, 3, dtype=torch.bool)
    assert loss_of(torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3), mask).item() == 0


@pytest.mark.parametrize(
    ("student", "teacher"), [((2, 4, 3, 3), (2, 12, 3, 3)), ((2, 4, 3, 5), (2, 4, 3, 5)), ((2, 3, 3), (2, 3, 3))]
)
def test_scores_of_other_shape_are_refused_with_both_shapes(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="AttentionScores compares scores") as error:
        loss_of(torch.zeros(student), torch.zeros(teacher))
    assert f"got student {student} and teacher {teacher}. Use AttentionRelation" in str(error.value)
