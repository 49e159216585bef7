import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import LayerCKA
from distill.losses.relations.layers.layer_cka import layer_similarities


def loss_of(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    size = len(student[0])
    batch = Batch(torch.zeros(size), torch.zeros(size).long(), torch.arange(size))
    return LayerCKA()(tuple(student), tuple(teacher), batch)


def columns(*values: list[float]) -> list[Tensor]:
    """Layers (B, 1) of one column each."""
    return [torch.tensor(value, dtype=torch.float64)[:, None] for value in values]


def cka(one: Tensor, other: Tensor) -> Tensor:
    """Linear CKA of features (B, D), entry by entry from the centred Gram matrices."""
    size = len(one)
    centre = torch.eye(size).double() - 1 / size
    gram_1, gram_2 = centre @ one @ one.T @ centre, centre @ other @ other.T @ centre
    return (gram_1 * gram_2).sum() / (gram_1.norm() * gram_2.norm())


def test_one_column_each_is_the_squared_correlation() -> None:
    # Centred they are (−1, 0, 1) and (−1, 1, 0), with correlation 1 / (√2 √2) = 1/2, so CKA 1/4. Two equal layers have
    # CKA 1. Of the 2 x 2 entries the two off the diagonal differ by 3/4: 2 · (9/16) / 4 = 9/32.
    student, teacher = columns([1, 2, 3], [1, 3, 2]), columns([1, 2, 3], [1, 2, 3])
    torch.testing.assert_close(layer_similarities(student)[0, 1], torch.tensor(0.25).double())
    torch.testing.assert_close(loss_of(student, teacher), torch.full((3,), 9 / 32).double())


@pytest.mark.parametrize("widths", [(2, 3, 5), (40, 3, 17)])
def test_both_forms_are_the_formula(widths: tuple[int, ...]) -> None:
    # Seven examples: narrower layers go through products of columns, wider ones through products of examples.
    layers = [torch.randn(7, width).double() + 3 for width in widths]
    expected = torch.stack([torch.stack([cka(one, other) for other in layers]) for one in layers])
    torch.testing.assert_close(layer_similarities(layers), expected)


def test_shift_scale_and_rotation_of_a_layer_do_not_matter() -> None:
    layers = [torch.randn(9, width).double() for width in (4, 6)]
    rotation = torch.linalg.qr(torch.randn(4, 4).double()).Q
    moved = [5 * layers[0] @ rotation + 2, layers[1]]
    torch.testing.assert_close(layer_similarities(moved), layer_similarities(layers))
    assert loss_of(moved, layers).max().item() == pytest.approx(0, abs=1e-12)


def test_shapes_are_flattened_and_widths_are_free() -> None:
    student = [torch.randn(4, 2, 3, 3).double(), torch.randn(4, 5).double()]
    teacher = [torch.randn(4, 7).double(), torch.randn(4, 3, 2).double()]
    flattened = loss_of([x.flatten(1) for x in student], [x.flatten(1) for x in teacher])
    torch.testing.assert_close(loss_of(student, teacher), flattened)


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, 1e4 / 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [2, 20])
def test_a_layer_equal_for_all_examples_has_similarity_zero(constant: float, dtype: torch.dtype, width: int) -> None:
    still = torch.full((6, width), constant, dtype=dtype, requires_grad=True)
    similarities = layer_similarities([torch.randn(6, width, dtype=dtype), still])
    torch.testing.assert_close(similarities, torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=dtype))
    similarities.sum().backward()
    assert still.grad is not None
    assert torch.equal(still.grad, torch.zeros_like(still))


@pytest.mark.parametrize("size", [1, 2])
def test_one_and_two_examples_have_loss_zero(size: int) -> None:
    student, teacher = ([torch.randn(size, 4).double() for _ in range(3)] for _ in range(2))
    assert loss_of(student, teacher).abs().max() < 1e-12


def test_large_and_small_features_neither_overflow_nor_vanish() -> None:
    layers = [torch.randn(5, 30), torch.randn(5, 30)]
    expected = layer_similarities(layers)
    for scale in (1e12, 1e-12):
        torch.testing.assert_close(layer_similarities([scale * layer for layer in layers]), expected)
    assert not math.isclose(expected[0, 1].item(), 1, abs_tol=1e-3)


@pytest.mark.parametrize(("student", "teacher"), [(1, 1), (2, 3), (3, 2)])
def test_tuples_too_short_or_of_other_length_are_refused(student: int, teacher: int) -> None:
    with pytest.raises(ValueError, match="LayerCKA compares equally long tuples of two or more tensors"):
        loss_of([torch.zeros(2, 3)] * student, [torch.zeros(2, 3)] * teacher)
