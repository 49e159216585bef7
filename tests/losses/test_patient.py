import math

import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import PatientKD

Value = Tensor | tuple[Tensor, ...]


def loss_of(student: Value, teacher: Value) -> Tensor:
    size = len(student) if isinstance(student, Tensor) else len(student[0])
    return PatientKD()(student, teacher, Batch(torch.zeros(size), torch.zeros(size).long(), torch.arange(size)))


def test_value_of_one_vector() -> None:
    # (3, 4) / 5 against (1, 0): (0.6 − 1)² + 0.8² = 0.8, which is 2 − 2 · 0.6.
    assert loss_of(torch.tensor([[3.0, 4.0]]), torch.tensor([[7.0, 0.0]])).item() == pytest.approx(0.8)


def test_layers_add_and_their_widths_may_differ() -> None:
    # 0.8 as above, and (1, 1, 0) against (0, 0, 1) at a right angle: 2.
    student = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    teacher = torch.tensor([[7.0, 0.0]]), torch.tensor([[0.0, 0.0, 5.0]])
    assert loss_of(student, teacher).item() == pytest.approx(2.8)


def test_of_tokens_the_first_is_compared_and_no_other() -> None:
    student, teacher = torch.randn(3, 5, 4).double().requires_grad_(), torch.randn(3, 5, 4).double()
    loss = loss_of(student, teacher)
    torch.testing.assert_close(loss, loss_of(student[:, 0], teacher[:, 0]))
    loss.sum().backward()
    assert student.grad is not None
    assert student.grad[:, 0].abs().min() > 0
    assert student.grad[:, 1:].abs().max() == 0


def test_the_length_of_a_vector_does_not_matter() -> None:
    student, teacher = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    torch.testing.assert_close(loss_of(5 * student, 0.1 * teacher), loss_of(student, teacher))


def test_it_is_two_less_two_cosines_and_four_where_opposite() -> None:
    student, teacher = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    cosines = (student * teacher).sum(1) / (student.norm(dim=1) * teacher.norm(dim=1))
    torch.testing.assert_close(loss_of(student, teacher), 2 - 2 * cosines)
    assert loss_of(teacher, -teacher).max().item() == pytest.approx(4)


def test_a_zero_vector_costs_one_without_gradient() -> None:
    student = torch.zeros(2, 3).requires_grad_()
    loss = loss_of(student, torch.randn(2, 3))
    loss.sum().backward()
    assert all(math.isclose(value, 1, rel_tol=1e-6) for value in loss.tolist())
    assert student.grad is not None
    assert student.grad.abs().max() == 0


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4)),
        (torch.zeros(2, 3), (torch.zeros(2, 3),)),
        ((torch.zeros(2, 3),) * 2, (torch.zeros(2, 3),) * 3),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)),
        ((torch.zeros(2, 3), torch.zeros(3, 3)), (torch.zeros(2, 3), torch.zeros(3, 3))),
        ((), ()),
    ],
)
def test_other_forms_are_refused(student: Value, teacher: Value) -> None:
    batch = Batch(torch.zeros(2), torch.zeros(2).long(), torch.arange(2))
    with pytest.raises(ValueError, match=r"PatientKD compares \(B, D\) or \(B, T, D\) of equal shape, .*, got student"):
        PatientKD()(student, teacher, batch)
