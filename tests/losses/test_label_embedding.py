import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses import LabelEmbedding


def shares(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    return LabelEmbedding()(student, teacher, Batch(torch.zeros(len(labels)), labels, torch.arange(len(labels))))


def naive(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """The formula as it stands, group by group and pair by pair."""
    size, count = labels.shape
    by_label = [[(i, c) for i in range(size) if labels[i, c] == 1] for c in range(count)]
    by_example = [[(i, c) for c in range(count) if labels[i, c] == 1] for i in range(size)]
    total = torch.zeros((), dtype=student.dtype)
    for groups in (by_label, by_example):
        costs = []
        for group in groups:
            pairs = [(a, b) for a in group for b in group if a != b]
            lengths = [torch.stack([(x[a] - x[b]).norm() for a, b in pairs]) for x in (student, teacher) if pairs]
            if pairs:
                costs.append(F.smooth_l1_loss(*(x / x.mean() for x in lengths), reduction="none"))
        total = total + (torch.cat(costs).mean() if costs else 0)
    return total


def test_embeddings_of_one_label_over_three_examples() -> None:
    # Student at 0, 1, 3: distances 1, 3, 2 over their mean 2: 1/2, 3/2, 1. Teacher at 0, 1, 2: 1, 2, 1 over 4/3: 3/4,
    # 3/2, 3/4. The differences −1/4, 0, 1/4 cost 1/32, 0, 1/32: the mean over pairs is 1/48. Half of each cost is each
    # end's share, times 3 examples over 3 pairs. The example without the label does not count, nor does its distance.
    student, teacher = (
        torch.tensor([[[x]] for x in values]) for values in ([0.0, 1.0, 3.0, 9.0], [0.0, 1.0, 2.0, 7.0])
    )
    loss = shares(student, teacher, torch.tensor([[1.0], [1.0], [1.0], [0.0]]))
    torch.testing.assert_close(loss, 4 / 3 * torch.tensor([1 / 64, 2 / 64, 1 / 64, 0.0]))
    torch.testing.assert_close(loss.mean(), torch.tensor(1 / 48))


def test_embeddings_of_one_example_over_three_labels() -> None:
    # The same points, as labels of the first of two examples; the second has one label, in no pair of that label.
    student = torch.tensor([[[0.0], [1.0], [3.0], [8.0]], [[5.0], [5.0], [5.0], [5.0]]])
    teacher = torch.tensor([[[0.0], [1.0], [2.0], [4.0]], [[5.0], [5.0], [5.0], [5.0]]])
    loss = shares(student, teacher, torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]))
    torch.testing.assert_close(loss, torch.tensor([2 / 48, 0.0]))


def test_the_mean_of_the_shares_is_the_formula() -> None:
    torch.manual_seed(0)
    labels = (torch.rand(7, 5) < 0.5).double()
    student, teacher = torch.randn(7, 5, 3, dtype=torch.float64), torch.randn(7, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(shares(student, teacher, labels).mean(), naive(student, teacher, labels))


def test_an_unknown_label_is_not_positive() -> None:
    student, teacher = torch.randn(6, 3, 4), torch.randn(6, 3, 4)
    labels = (torch.rand(6, 3) < 0.7).float()
    unknown = torch.where(labels == 0, math.nan, labels)
    torch.testing.assert_close(shares(student, teacher, unknown), shares(student, teacher, labels))


@pytest.mark.parametrize("labels", [torch.zeros(3, 2), torch.full((3, 2), math.nan), torch.eye(3)[:, :2]])
def test_without_two_related_embeddings_value_and_gradient_are_zero(labels: Tensor) -> None:
    student = torch.randn(3, 2, 4, requires_grad=True)
    loss = shares(student, torch.randn(3, 2, 4), labels)
    loss.sum().backward()
    assert loss.abs().max() == 0
    assert student.grad is not None and student.grad.abs().max() == 0


def test_scale_and_place_of_each_model_do_not_count() -> None:
    student, teacher = torch.randn(6, 3, 4).double(), torch.randn(6, 3, 5).double()
    labels = (torch.rand(6, 3) < 0.8).double()
    moved = shares(3 * student + 2, 0.1 * teacher - 1, labels)
    torch.testing.assert_close(moved, shares(student, teacher, labels))


def test_embeddings_of_absent_labels_get_no_gradient() -> None:
    student = torch.randn(6, 3, 4, requires_grad=True)
    labels = (torch.rand(6, 3) < 0.6).float()
    shares(student, torch.randn(6, 3, 4), labels).sum().backward()
    assert student.grad is not None
    assert student.grad[labels == 0].abs().max() == 0


@pytest.mark.parametrize("labels", [torch.zeros(4).long(), torch.zeros(4, 2)])
def test_labels_of_another_shape_are_refused(labels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^LabelEmbedding compares .* in place of \(4,"):
        shares(torch.zeros(4, 3, 2), torch.zeros(4, 3, 2), labels)
