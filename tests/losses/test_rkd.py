import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from distill.batch import Batch
from distill.losses import RKDAngle, RKDDistance
from distill.losses.relations.samples.rkd import angle_shares


def batch_of(size: int) -> Batch:
    return Batch(torch.zeros(size), torch.zeros(size).long(), torch.arange(size))


def naive_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """The formula as it stands, with all differences (B, B, D) at once."""

    def relative(x: Tensor) -> Tensor:
        distances = (x[:, None] - x[None]).square().sum(2).clamp(min=1e-24).sqrt()
        others = ~torch.eye(len(x), dtype=torch.bool)
        return distances * others / distances[others].mean()

    return F.smooth_l1_loss(relative(student), relative(teacher))


def naive_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """The formula as it stands, with all unit differences (B, B, D) and all cosines (B, B, B) at once."""

    def cosines(x: Tensor) -> Tensor:
        units = F.normalize(x[None] - x[:, None], dim=2)
        return units @ units.mT

    return F.smooth_l1_loss(cosines(student), cosines(teacher))


def test_distance_of_three_points_on_a_line() -> None:
    # Student 0, 1, 3: distances 1, 3, 2 over their mean 2: 1/2, 3/2, 1. Teacher 0, 1, 2: distances 1, 2, 1 over their
    # mean 4/3: 3/4, 3/2, 3/4. The differences −1/4, 0, 1/4 cost 1/32, 0, 1/32; each share is the mean over three.
    student, teacher = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    loss = RKDDistance()(student, teacher, batch_of(3))
    torch.testing.assert_close(loss, torch.tensor([1 / 96, 2 / 96, 1 / 96]))


def test_angle_of_a_right_and_an_equilateral_triangle() -> None:
    # Cosines 0, √½, √½ against ½ each; at each corner two of nine entries differ: (j, k) and (k, j).
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    right, sharp = 2 / 9 * 0.5**2 / 2, 2 / 9 * (math.sqrt(0.5) - 0.5) ** 2 / 2
    loss = RKDAngle()(student, teacher, batch_of(3))
    torch.testing.assert_close(loss, torch.tensor([right, sharp, sharp]))


@pytest.mark.parametrize("loss", [RKDDistance(), RKDAngle()], ids=str)
def test_moving_turning_and_scaling_the_examples_changes_nothing(loss: RKDDistance | RKDAngle) -> None:
    student, teacher = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 6, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    moved = 3 * student @ turn + torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(loss(moved, teacher, batch_of(9)), loss(student, teacher, batch_of(9)))


@pytest.mark.parametrize("size", [2, 4, 40])
@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("alike", [False, True], ids=["distinct", "duplicates"])
@pytest.mark.parametrize(("loss", "naive"), [(RKDDistance(), naive_distance), (RKDAngle(), naive_angle)])
def test_equals_the_naive_form_in_float32(size: int, offset: float, alike: bool, loss: Any, naive: Any) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(size, 16) + offset, torch.randn(size, 24) + offset
    if alike:  # a pair in both models, whose triplets are degenerate, and another in the teacher alone
        student[1], teacher[1], teacher[-1] = student[0], teacher[0], teacher[0]
    student.requires_grad_()
    value = loss(student, teacher, batch_of(size)).mean()
    (gradient,) = torch.autograd.grad(value, student)
    exact = student.detach().double().requires_grad_()
    expected = naive(exact, teacher.double())
    (expected_gradient,) = torch.autograd.grad(expected, exact)
    torch.testing.assert_close(value.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, atol=1e-5, rtol=1e-5)


def test_angle_is_exact_for_tight_clusters() -> None:
    # Groups a thousand times tighter than their distance: the form |a|² + |b|² − 2ab has lost the angles inside them.
    torch.manual_seed(0)
    student = (torch.randn(4, 1, 8) + 1e-3 * torch.randn(4, 6, 8)).flatten(0, 1)
    teacher = torch.randn(24, 8)
    value = RKDAngle()(student, teacher, batch_of(24)).mean()
    torch.testing.assert_close(value.double(), naive_angle(student.double(), teacher.double()), atol=1e-5, rtol=0)


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else [result]:
            if isinstance(x, Tensor) and x._base is None:
                self.elements = max(self.elements, x.numel())
        return result


@pytest.mark.parametrize(("loss", "limit"), [(RKDDistance(), 160**2), (RKDAngle(), 2**17)], ids=str)
def test_value_and_gradient_never_hold_all_triplets_or_differences(loss: Any, limit: int) -> None:
    student, teacher = torch.randn(160, 64, requires_grad=True), torch.randn(160, 64)
    with LargestTensor() as largest:
        loss(student, teacher, batch_of(160)).mean().backward()
    assert 160**2 <= largest.elements <= limit  # against 160 · 160 · 64 = 1.6 million and 160³ = 4.1 million


def test_upstream_gradients_of_each_example_are_kept_apart() -> None:
    # More anchors than one part of the hand-written gradient holds.
    torch.manual_seed(0)
    student, teacher = torch.randn(96, 8, dtype=torch.float64, requires_grad=True), torch.randn(96, 8).double()
    weights = torch.rand(96, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((RKDAngle()(student, teacher, batch_of(96)) * weights).sum(), student)

    def cosines(x: Tensor) -> Tensor:
        units = F.normalize(x[None] - x[:, None], dim=2)
        return units @ units.mT

    shares = F.smooth_l1_loss(cosines(student), cosines(teacher), reduction="none").mean((1, 2))
    (expected,) = torch.autograd.grad((shares * weights).sum(), student)
    torch.testing.assert_close(gradient, expected)


def test_coinciding_examples_stay_in_the_mean_distance() -> None:
    # Student 0, 0, 3: distances 0, 3, 3, mean 2, relative 0, 3/2, 3/2. Teacher 0, 1, 2: 3/4, 3/2, 3/4 as above.
    # The differences −3/4, 0, 3/4 cost 9/32, 0, 9/32; without the coinciding pair the mean would be 3.
    student, teacher = torch.tensor([[0.0], [0.0], [3.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    loss = RKDDistance()(student, teacher, batch_of(3))
    torch.testing.assert_close(loss, torch.tensor([9 / 96, 18 / 96, 9 / 96]))


@pytest.mark.parametrize("apart", [1e-3, 1e-5])
def test_the_angles_gradient_holds_where_two_examples_nearly_coincide(apart: float) -> None:
    """The law of cosines takes the difference of nearly equal squares there; in float32 it was off by 1e-2 at 1e-5."""
    torch.manual_seed(0)
    student, teacher = torch.rand(11, 8), torch.rand(11, 8)
    student[1] = student[0] + apart * torch.randn(8)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        features = student.to(dtype, copy=True).requires_grad_()
        angle_shares(features, teacher.to(dtype), slice(0, 11)).mean().backward()
        assert features.grad is not None
        gradients.append(features.grad.double())
    assert (gradients[0] - gradients[1]).norm() < 1e-6 * gradients[1].norm()
