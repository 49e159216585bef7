import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import SingularVectors
from distill.losses.relations.layers.singular_vectors import right_singular_vectors

Maps = tuple[Tensor, ...]


def loss_of(student: Maps, teacher: Maps, rank: int = 1) -> Tensor:
    size = len(student[0])
    batch = Batch(torch.zeros(size), torch.zeros(size).long(), torch.arange(size))
    return SingularVectors(rank=rank)(student, teacher, batch)


def rank_one(*directions: list[float]) -> Maps:
    """Maps (1, C, 1, 1) of one position each: their only right singular vector is the direction."""
    return tuple(torch.tensor(direction, dtype=torch.float64).view(1, -1, 1, 1) for direction in directions)


def some_maps(size: int = 3) -> Maps:
    return tuple(torch.randn(size, *shape).double() for shape in [(3, 4, 4), (5, 2, 2), (4, 3, 3)])


def reference(student: Maps, teacher: Maps, rank: int) -> Tensor:
    """The formula, example by example, from the library's SVD."""
    losses = []
    for example in range(len(student[0])):
        layers = []
        for one, other in zip(student, teacher, strict=True):
            vectors, targets = (torch.linalg.svd(x[example].flatten(1).T, full_matrices=False) for x in (one, other))
            values = targets.S[:rank] / targets.S[:rank].norm()
            aligned, turned = [], []
            for target in targets.Vh[:rank]:
                target = -target if target.sum() < 0 else target
                nearest = max(vectors.Vh[: rank + 3], key=lambda v: abs(v @ target).item())
                aligned.append(nearest * torch.sign(nearest @ target))
                turned.append(target)
            layers.append((torch.stack(aligned) * values[:, None], torch.stack(turned) * values[:, None]))
        total = torch.zeros(()).double()
        for (student_1, teacher_1), (student_2, teacher_2) in pairwise(layers):
            for a, b, c, d in zip(student_1, student_2, teacher_1, teacher_2, strict=True):
                off = (-((b[:, None] - a) ** 2) / 8).exp() - (-((d[:, None] - c) ** 2) / 8).exp()
                total = total + off.square().sum()
        losses.append(total)
    return torch.stack(losses)


def test_value_of_maps_of_one_position() -> None:
    # Teacher: v = (1, 0) and v' = (1). R = exp(−(1 − 1)²/8), exp(−(1 − 0)²/8) = 1, e^(−1/8).
    # Student: v = (0, 1) turned by the sign of its cosine with the teacher's, which is 0: it counts as zero.
    # R = exp(−1/8) twice: only the first entry differs.
    value = loss_of(rank_one([0.0, 1.0], [1.0]), rank_one([1.0, 0.0], [1.0])).item()
    assert value == pytest.approx((1 - math.exp(-1 / 8)) ** 2)
    # Student: v = (−3, −4) / 5 is turned to (0.6, 0.8): R = e^(−0.4²/8), e^(−0.2²/8).
    value = loss_of(rank_one([-3.0, -4.0], [2.0]), rank_one([1.0, 0.0], [1.0])).item()
    assert value == pytest.approx((1 - math.exp(-0.02)) ** 2 + (math.exp(-1 / 8) - math.exp(-0.005)) ** 2)


def test_vectors_are_weighed_by_the_teachers_values() -> None:
    # Channels (3, 0, 0) and (0, 4, 0) over three positions: σ = 4, 3 with vectors (0, 1), (1, 0); σ / ‖σ‖ = 0.8, 0.6.
    map_BCHW = torch.tensor([[[[3.0, 0.0, 0.0]], [[0.0, 4.0, 0.0]]]], dtype=torch.float64)
    values, vectors = right_singular_vectors(map_BCHW, 2)
    torch.testing.assert_close(values, torch.tensor([[0.8, 0.6]], dtype=torch.float64))
    torch.testing.assert_close(vectors.abs(), torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_it_is_the_formula_from_another_svd(rank: int) -> None:
    torch.manual_seed(rank)
    student, teacher = some_maps(), some_maps()
    torch.testing.assert_close(loss_of(student, teacher, rank), reference(student, teacher, rank))


@pytest.mark.parametrize("rank", [1, 3])
def test_scale_sign_and_order_of_positions_of_each_model_do_not_matter(rank: int) -> None:
    student, teacher = some_maps(), some_maps()
    expected = loss_of(student, teacher, rank)
    moved = tuple(-3 * x.flip(2, 3) for x in student)
    torch.testing.assert_close(loss_of(moved, tuple(1e-3 * x for x in teacher), rank), expected)
    torch.testing.assert_close(loss_of(tuple(-x for x in student), tuple(-x for x in teacher), rank), expected)


def test_sizes_may_differ() -> None:
    student, teacher = some_maps(), some_maps()
    repeated = tuple(torch.cat([x, x], 3) for x in teacher)
    torch.testing.assert_close(loss_of(student, repeated), loss_of(student, teacher))


def test_the_students_fourth_vector_can_be_the_teachers_first() -> None:
    # The student's values fall from channel 1 to 5, the teacher's largest is at channel 4: the vector is there, not
    # the first, so the loss is 0. At channel 5 it is beyond rank + 3.
    other = rank_one([1.0])
    student = (torch.diag_embed(torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]]).double())[:, :, None, :], *other)
    for channel, expected in ((3, 0.0), (4, (1 - math.exp(-1 / 8)) ** 2)):
        teacher = (torch.eye(5).double()[channel].view(1, 5, 1, 1), *other)
        assert loss_of(student, teacher).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rank", [1, 4])
def test_equal_singular_values_have_a_finite_gradient(rank: int) -> None:
    student = (torch.eye(4).view(1, 4, 2, 2).requires_grad_(), torch.ones(1, 4, 3, 3).requires_grad_())
    loss_of(student, (torch.eye(4).flip(0).view(1, 4, 2, 2), torch.randn(1, 4, 3, 3)), rank).sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in student)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearly_equal_singular_values_have_a_bounded_gradient(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    near = torch.eye(4).view(1, 4, 2, 2) + 1e-7 * torch.randn(1, 4, 2, 2)
    student = (near.to(dtype).requires_grad_(), torch.randn(1, 4, 3, 3, dtype=dtype).requires_grad_())
    loss_of(student, tuple(torch.randn(1, 4, 3, 3, dtype=dtype) for _ in range(2))).sum().backward()
    assert all(x.grad is not None and x.grad.abs().max() < 1e5 for x in student)


def test_a_dead_map_has_no_gradient() -> None:
    student = (torch.zeros(2, 3, 4, 4).requires_grad_(), torch.randn(2, 2, 2, 2))
    loss = loss_of(student, (torch.randn(2, 3, 4, 4), torch.randn(2, 2, 2, 2)))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert student[0].grad is not None
    assert torch.equal(student[0].grad, torch.zeros_like(student[0]))


def test_a_rank_beyond_the_map_adds_nothing() -> None:
    # Two positions have two singular vectors.
    student, teacher = (tuple(torch.randn(2, 3, 1, 2).double() for _ in range(2)) for _ in range(2))
    torch.testing.assert_close(loss_of(student, teacher, 5), loss_of(student, teacher, 2))


def test_channels_that_differ_are_refused_with_both_shapes() -> None:
    student = torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 2, 2)
    teacher = torch.zeros(1, 2, 4, 4), torch.zeros(1, 6, 2, 2)
    with pytest.raises(ValueError, match="SingularVectors") as error:
        loss_of(student, teacher)
    assert str(error.value) == (
        "SingularVectors compares maps of equal channels, got student [(1, 2, 4, 4), (1, 3, 2, 2)] "
        "and teacher [(1, 2, 4, 4), (1, 6, 2, 2)]. Add head=Conv1x1()."
    )
