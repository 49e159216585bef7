import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import DIST
from distill.losses.logits.dist import decorrelation

# Rows and columns are (1/2, 1/4, 1/4) in some order. Centred these are as (2, −1, −1) and (−1, 2, −1), of correlation
# (−2 − 2 + 1) / 6 = −1/2 where the large value lies elsewhere.
TEACHER = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]], dtype=torch.float64).log()
STUDENT = TEACHER.roll(1, 1)


def loss_of(loss: DIST, student: Tensor, teacher: Tensor) -> Tensor:
    return loss(student, teacher, Batch(student, torch.zeros(len(student)).long(), torch.arange(len(student))))


def correlations(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each row of a with that of b, by torch."""
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a, b, strict=True)])


def test_value_of_the_two_parts() -> None:
    assert loss_of(DIST(), STUDENT, TEACHER).tolist() == pytest.approx([1.5 + 1.5] * 3)
    assert loss_of(DIST(inter_weight=2.0, intra_weight=0.0), STUDENT, TEACHER).tolist() == pytest.approx([3.0] * 3)
    assert loss_of(DIST(inter_weight=0.0, intra_weight=3.0), STUDENT, TEACHER).tolist() == pytest.approx([4.5] * 3)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_equals_the_plain_formula_without_the_square_of_the_temperature(temperature: float) -> None:
    torch.manual_seed(0)
    student, teacher = 3 * torch.randn(2, 9, 6, dtype=torch.float64)
    y_s, y_t = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    inter, intra = 1 - correlations(y_s, y_t), 1 - correlations(y_s.T, y_t.T).mean()
    loss = DIST(temperature, inter_weight=2.0, intra_weight=0.5)
    torch.testing.assert_close(loss_of(loss, student, teacher), 2 * inter + 0.5 * intra)


def test_scale_and_shift_of_either_side_do_not_count_and_the_opposite_costs_two() -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 6, dtype=torch.float64)
    torch.testing.assert_close(decorrelation(3 * x + 1, x, 1), torch.zeros(4).double())
    torch.testing.assert_close(decorrelation(1 - 0.1 * x, x, 1), torch.full((4,), 2.0).double())


def test_classes_that_all_examples_find_unlikely_count_as_much_as_others() -> None:
    # Probabilities of the last class near 1e-7: 1e-8 added to the product of norms would hide its correlation of −1.
    rare = torch.tensor([[1e-7], [2e-7]])
    assert decorrelation(rare, rare.flip(0), 0).item() == pytest.approx(2)


def test_in_a_batch_of_one_the_classes_are_all_that_counts() -> None:
    student = STUDENT[:1].clone().requires_grad_()
    loss = loss_of(DIST(), student, TEACHER[:1])
    assert loss.item() == pytest.approx(1.5)
    alone = loss_of(DIST(intra_weight=0.0), student, TEACHER[:1])
    gradients = [torch.autograd.grad(x.sum(), student)[0] for x in (loss, alone)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0.1


@pytest.mark.parametrize("constant", [0.0, 0.1, 80.0])
@pytest.mark.parametrize("classes", [3, 7, 100])
def test_a_constant_row_has_no_correlation_and_no_gradient(constant: float, classes: int) -> None:
    # In float32 the mean of 1/7 is not 1/7: centred naively, its rounding error would be blown up to unit norm.
    torch.manual_seed(0)
    student = torch.full((1, classes), constant, requires_grad=True)
    loss = loss_of(DIST(), student, torch.randn(1, classes))
    assert loss.item() == pytest.approx(0.5)
    loss.sum().backward()
    assert student.grad is not None
    assert student.grad.abs().max() == 0
    assert loss_of(DIST(), student, torch.zeros(1, classes)).item() == 0


def test_equal_examples_have_no_correlation_over_the_batch() -> None:
    torch.manual_seed(0)
    student = torch.randn(1, 7).expand(6, 7).clone().requires_grad_()
    loss = loss_of(DIST(inter_weight=0.0), student, torch.randn(1, 7).expand(6, 7))
    loss.sum().backward()
    assert loss.tolist() == [0.0] * 6
    assert student.grad is not None
    assert student.grad.abs().max() == 0


def test_logits_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"DIST compares logits .*, got student \(4, 10\) and teacher \(4, 100\)\. "):
        loss_of(DIST(), torch.zeros(4, 10), torch.zeros(4, 100))
