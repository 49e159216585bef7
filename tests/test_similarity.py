"""CKA is 1 for what differs by rotation and scale, near 0 for independence, and sums over batches and processes."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from distill.similarity import CkaSums, gram_vector, linear_cka
from tests.processes import run_processes


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(width: int) -> Tensor:
    return torch.linalg.qr(features(width, width, seed=9))[0]


def naive_hsic(x: Tensor, y: Tensor) -> Tensor:
    """HSIC₁ as it is written in Nguyen et al., 2021, eq. 3."""
    n = len(x)
    k, m = x.flatten(1) @ x.flatten(1).T, y.flatten(1) @ y.flatten(1).T
    k, m, one = k - k.diag().diag(), m - m.diag().diag(), torch.ones(n, dtype=x.dtype)
    trace, middle = (k @ m).trace(), one @ k @ m @ one
    return (trace + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * middle) / (n * (n - 3))


def estimate(x: Tensor, y: Tensor, size: int) -> float:
    pairs = zip(x.split(size), y.split(size), strict=True)
    sums = sum((CkaSums.of_batch([a], [b]) for a, b in pairs if len(a) >= 4), CkaSums.zeros(1, 1))
    return sums.cka().item()


@pytest.mark.parametrize("width", [1, 5])
def test_the_whole_value_by_hand(width: int) -> None:
    """Centred, x = (1, 0, −1) and y = (2, −1, −1)/3: (x·y)² / (x·x · y·y) = 1 / (2 · 2/3) = 3/4, the squared
    correlation. Columns of zeros change nothing, and make it go through products of examples.
    """
    x, y = torch.zeros(3, width), torch.zeros(3, width)
    x[:, 0], y[:, 0] = torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])
    assert linear_cka(x, y).item() == pytest.approx(0.75, abs=1e-6)


def test_the_estimate_of_one_batch_by_hand() -> None:
    """x = (1, 1, 0, 0): K̃ has one pair of ones, so HSIC₁ with itself is (2 + 4/6 − 2)/4 = 1/6. y = (1, 0, 1, 0): the
    same; and with x it is (0 + 4/6 − 1)/4 = −1/12. So CKA = −1/2.
    """
    x, y = torch.tensor([[1.0], [1.0], [0.0], [0.0]]), torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    sums = CkaSums.of_batch([x], [y])
    assert sums.student.item() == pytest.approx(1 / 6)
    assert sums.teacher.item() == pytest.approx(1 / 6)
    assert sums.cross.item() == pytest.approx(-1 / 12)
    assert sums.cka().item() == pytest.approx(-1 / 2)


@pytest.mark.parametrize("n", [4, 5, 17])
def test_products_of_gram_vectors_are_the_naive_formula(n: int) -> None:
    x, y = features(n, 3, 2) + 5, features(n, 4, seed=1)
    for one, other in ((x, y), (x, x), (y, y)):
        torch.testing.assert_close(gram_vector(one) @ gram_vector(other), naive_hsic(one, other), rtol=1e-9, atol=1e-9)


def test_equal_rotated_scaled_and_shifted_features_have_cka_1() -> None:
    x = features(40, 6)
    for y in (x, x @ rotation(6), 1e3 * x, x + 7, -0.1 * x @ rotation(6) - 3):
        assert linear_cka(x, y).item() == pytest.approx(1)
        assert estimate(x, y, 10) == pytest.approx(1)


def test_the_shape_of_an_example_does_not_matter() -> None:
    x, y = features(12, 2, 3, 4), features(12, 5, seed=1)
    torch.testing.assert_close(linear_cka(x, y), linear_cka(x.flatten(1), y))
    torch.testing.assert_close(gram_vector(x), gram_vector(x.flatten(1)))


def test_wide_features_go_through_products_of_examples_to_the_same_value() -> None:
    x, y = features(5, 9), features(5, 2, seed=1)
    x_c, y_c = x - x.mean(0), y - y.mean(0)
    cross, own, other = (x_c.T @ y_c).square().sum(), (x_c.T @ x_c).norm(), (y_c.T @ y_c).norm()
    torch.testing.assert_close(linear_cka(x, y), cross / (own * other))


def test_the_whole_value_of_independent_features_is_small_only_with_many_examples() -> None:
    """Its expectation is about the square root of both widths over N; the estimate has none of this bias."""
    x, y = features(4000, 8), features(4000, 8, seed=1)
    assert linear_cka(x, y).item() < 0.01
    assert linear_cka(x[:16], y[:16]).item() > 0.2
    assert abs(estimate(x, y, 16)) < 0.03


def test_the_estimate_is_near_the_whole_value_whatever_the_batch_size() -> None:
    x = features(4000, 8)
    y = x @ features(8, 6, seed=1) + 2 * features(4000, 6, seed=2)
    whole = linear_cka(x, y).item()
    assert 0.2 < whole < 0.9
    for size in (8, 50, 400):
        assert estimate(x, y, size) == pytest.approx(whole, abs=0.02)


def test_the_estimate_is_symmetric_and_bounded() -> None:
    layers = [features(20, width, seed=width) for width in (1, 2, 3, 30)]
    cka = CkaSums.of_batch(layers, layers).cka()
    torch.testing.assert_close(cka, cka.T)
    torch.testing.assert_close(cka.diagonal(), torch.ones(4, dtype=torch.float64))
    assert cka.abs().max() <= 1 + 1e-12


def test_sums_are_additive_over_batches() -> None:
    x, y = [features(23, 3), features(23, 5, seed=1)], [features(23, 2, seed=2)]
    cut = [slice(0, 10), slice(10, 16), slice(16, 23)]
    parts = [CkaSums.of_batch([one[rows] for one in x], [one[rows] for one in y]) for rows in cut]
    one_way, other_way = parts[0] + (parts[1] + parts[2]), CkaSums.zeros(2, 1) + parts[2] + parts[0] + parts[1]
    torch.testing.assert_close(one_way.cka(), other_way.cka())
    by_hand = sum(naive_hsic(x[1][rows], y[0][rows]) for rows in cut)
    torch.testing.assert_close(one_way.cross[1, 0], by_hand)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_a_layer_that_is_the_same_for_all_examples_has_cka_0(value: float) -> None:
    """0.1 has no exact mean, so what is left after centring is rounding."""
    same, other = torch.full((10, 3), value), features(10, 3).float()
    assert linear_cka(same, other).item() == 0
    assert CkaSums.of_batch([same], [other]).cka().item() == 0


def test_what_is_not_finite_is_not_made_a_number() -> None:
    broken, other = features(10, 3), features(10, 3, seed=1)
    broken[2, 1] = float("inf")
    assert linear_cka(broken, other).isnan()
    assert CkaSums.of_batch([broken], [other]).cka().isnan().all()


def test_half_precision_is_widened() -> None:
    x = features(30, 50).to(torch.bfloat16)
    torch.testing.assert_close(gram_vector(x), gram_vector(x.float()))
    assert gram_vector(x).dtype == torch.float64


def test_other_numbers_of_examples_and_too_small_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="the same three or more examples, got 5 and 4"):
        linear_cka(features(5, 2), features(4, 2))
    with pytest.raises(ValueError, match="three or more examples, got 2 and 2"):
        linear_cka(features(2, 2), features(2, 2))
    with pytest.raises(ValueError, match="needs 4 examples or more in each, got 3"):
        gram_vector(features(3, 2))


UNEVEN = ((0, 4), (4, 15), (15, 23))


def sums_of(cuts: tuple[tuple[int, int], ...]) -> CkaSums:
    layers, others = [features(23, 3), features(23, 5, seed=1)], [features(23, 2, seed=2), features(23, 9, seed=3)]
    parts = (CkaSums.of_batch([x[a:b] for x in layers], [y[a:b] for y in others]) for a, b in cuts)
    return sum(parts, CkaSums.zeros(2, 2))


def cka_of_a_process() -> tuple[Tensor, Tensor]:
    """Over three batches shared by the processes, and where the second process has all of them."""
    rank = Accelerator(cpu=True).process_index
    return tuple(sums_of(mine).over_ranks().cka() for mine in (UNEVEN[rank::2], UNEVEN[: 3 * rank]))


@pytest.mark.slow
def test_two_processes_with_uneven_batches_find_what_one_finds(tmp_path: Path) -> None:
    expected = sums_of(UNEVEN).cka()
    for shared, one_has_none in run_processes(cka_of_a_process, 2, tmp_path):
        torch.testing.assert_close(shared, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(one_has_none, expected, rtol=1e-12, atol=1e-12)
