import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import CosineHint

BATCH = Batch(torch.zeros(1), torch.zeros(1).long(), torch.arange(1))


def loss_of(student: object, teacher: object) -> float:
    """Of one example, as nested lists."""
    tensors: list[Tensor] = [torch.tensor([x], dtype=torch.float64) for x in (student, teacher)]
    return CosineHint()(tensors[0], tensors[1], BATCH).item()


def test_value_of_two_vectors() -> None:
    # (3, 4) · (4, 3) = 24, over 5 · 5: 1 − 0.96.
    assert loss_of([3.0, 4.0], [4.0, 3.0]) == pytest.approx(0.04)


def test_opposite_vectors_cost_two_and_orthogonal_ones_cost_one() -> None:
    assert loss_of([1.0, 2.0], [-2.0, -4.0]) == pytest.approx(2)
    assert loss_of([1.0, 0.0], [0.0, 5.0]) == pytest.approx(1)


def test_maps_are_compared_over_their_channels() -> None:
    # Two channels at two positions: (3, 4) against (4, 3) costs 0.04, (1, 0) against (0, 1) costs 1.
    student, teacher = [[[3.0, 1.0]], [[4.0, 0.0]]], [[[4.0, 0.0]], [[3.0, 1.0]]]
    assert loss_of(student, teacher) == pytest.approx(0.52)


def test_tokens_are_compared_over_the_last_dimension() -> None:
    assert loss_of([[3.0, 4.0], [1.0, 0.0]], [[4.0, 3.0], [0.0, 1.0]]) == pytest.approx(0.52)


def test_the_length_of_a_vector_does_not_count() -> None:
    student, teacher = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    loss = CosineHint()
    torch.testing.assert_close(loss(7 * student, 0.1 * teacher, BATCH), loss(student, teacher, BATCH))


def test_a_zero_vector_costs_one_with_zero_gradient() -> None:
    student = torch.zeros(1, 4, requires_grad=True)
    loss = CosineHint()(student, torch.randn(1, 4), BATCH)
    loss.sum().backward()
    assert loss.item() == 1
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize(("student", "teacher"), [((1, 4), (1, 5)), ((1, 4, 2, 2), (1, 4, 1, 1)), ((1,), (1,))])
def test_other_shapes_are_refused_with_both(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="CosineHint compares equal shapes") as error:
        CosineHint()(torch.zeros(student), torch.zeros(teacher), BATCH)
    assert f"got student {student} and teacher {teacher}. " in str(error.value)
