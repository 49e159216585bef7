import pytest
import torch
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses import FactorTransfer

BATCH = Batch(torch.zeros(1), torch.zeros(1).long(), torch.arange(1))


def test_value_of_two_factors() -> None:
    # (0.6, 0.8) against (0.8, 0.6): 0.2 in both elements.
    student, teacher = torch.tensor([[[[3.0]], [[4.0]]]]), torch.tensor([[[[8.0]], [[6.0]]]])
    assert FactorTransfer()(student, teacher, BATCH).item() == pytest.approx(0.2)


def test_each_factor_is_normalised_as_a_whole_and_its_scale_does_not_count() -> None:
    student, teacher = torch.randn(1, 3, 2, 2), torch.randn(1, 3, 2, 2)
    expected = (F.normalize(student.reshape(1, 12)) - F.normalize(teacher.reshape(1, 12))).abs().mean()
    torch.testing.assert_close(FactorTransfer()(7 * student, 0.1 * teacher, BATCH).mean(), expected)


def test_one_element_that_differs_costs_its_distance_and_not_the_square() -> None:
    # Against (1, 0, 0, 0), (0, 1, 0, 0) differs by 1 in two of four elements.
    student, teacher = torch.eye(4)[None, 0], torch.eye(4)[None, 1]
    assert FactorTransfer()(student, teacher, BATCH).item() == pytest.approx(0.5)


def test_a_zero_factor_costs_the_teachers_mean_with_zero_gradient() -> None:
    student = torch.zeros(1, 4, requires_grad=True)
    loss = FactorTransfer()(student, torch.ones(1, 4), BATCH)  # the teacher's elements are 1/2
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.5)
    assert student.grad is not None
    assert not student.grad.any()


def test_factors_of_other_shape_are_refused_with_the_head() -> None:
    message = "FactorTransfer compares factors of equal shape, got student (1, 2, 4, 4) and teacher (1, 3, 4, 4). "
    with pytest.raises(ValueError, match="FactorTransfer") as error:
        FactorTransfer()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4), BATCH)
    assert str(error.value) == message + "Add head=Factors()."
