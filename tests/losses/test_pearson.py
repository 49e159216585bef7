import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import PearsonHint


def loss_of(student: Tensor, teacher: Tensor) -> Tensor:
    size = len(student)
    return PearsonHint()(student, teacher, Batch(torch.zeros(size), torch.zeros(size).long(), torch.arange(size)))


def test_shares_of_one_channel_over_three_examples() -> None:
    # (1, 2, 3) and (2, 0, 1) have deviation 1: (−1, 0, 1) and (1, −1, 0). Half the squares of (−2, 1, 1). Their mean is
    # 1, as it should be with r = (−1 + 0 + 0) / 2 and 2/3 · (1 − r).
    student, teacher = torch.tensor([[1.0], [2.0], [3.0]]).double(), torch.tensor([[2.0], [0.0], [1.0]]).double()
    expected = torch.tensor([2.0, 0.5, 0.5], dtype=torch.float64)
    torch.testing.assert_close(loss_of(student, teacher), expected, rtol=1e-5, atol=0)


def test_it_is_one_minus_the_correlation_of_each_channel_over_examples_and_positions() -> None:
    student, teacher = torch.randn(3, 4, 2, 5, dtype=torch.float64), torch.randn(3, 4, 2, 5, dtype=torch.float64)
    rows = [x.transpose(0, 1).reshape(4, 30) for x in (student, teacher)]
    correlations = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*rows, strict=True)]
    expected = 29 / 30 * (1 - torch.stack(correlations).mean())
    torch.testing.assert_close(loss_of(student, teacher).mean(), expected, rtol=1e-5, atol=0)


def test_the_scale_and_the_offset_of_each_channel_do_not_count() -> None:
    student, teacher = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    changed = torch.tensor([2.0, 0.5, 9.0]) * student + torch.tensor([1.0, -4.0, 0.0])
    torch.testing.assert_close(loss_of(changed, 3 * teacher - 1), loss_of(student, teacher), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 0.3, 80.3])  # the mean of equal float32 numbers may differ from them
def test_a_constant_channel_has_only_the_teachers_part_and_zero_gradient(constant: float) -> None:
    # Half the mean square of the teacher's standardised channel: ½ · (n − 1) / n.
    student = torch.full((12, 1, 7, 7), constant, requires_grad=True)
    loss = loss_of(student, torch.randn(12, 1, 7, 7)).mean()
    loss.backward()
    assert loss.item() == pytest.approx(587 / 588 / 2, rel=1e-4)
    assert student.grad is not None
    assert not student.grad.any()


def test_one_map_has_relations_between_its_positions_and_one_embedding_has_none() -> None:
    assert loss_of(torch.randn(1, 3, 2, 2), torch.randn(1, 3, 2, 2)).item() > 0
    assert loss_of(torch.randn(1, 3), torch.randn(1, 3)).item() == 0


def test_other_shapes_are_refused_with_both() -> None:
    with pytest.raises(ValueError, match=r"got student \(2, 3, 4\) and teacher \(2, 3, 4\)\. "):
        loss_of(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"got student \(2, 3\) and teacher \(2, 4\)\. "):
        loss_of(torch.zeros(2, 3), torch.zeros(2, 4))
