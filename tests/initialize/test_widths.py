import pytest
import torch
from torch.nn import functional as F

from distill.initialize.widths import Draws, Width, shared


def draws(noise: float = 0.0) -> Draws:
    return Draws(noise, torch.Generator().manual_seed(0))


def test_copies_and_their_shares_by_hand():
    width = Width(2, 5)
    assert width.positions.tolist() == [0, 1, 0, 1, 0]
    assert width.write(torch.tensor([6.0, 8.0]), 0).tolist() == [6, 8, 6, 8, 6]
    assert width.read(torch.tensor([[6.0, 8.0]]).double(), 1, draws()).tolist() == [[2, 4, 2, 4, 2]]


def test_a_remainder_that_layer_norm_reads_is_the_mean_and_the_variance_stays():
    # Three channels to four: a scale of sqrt(4 / 3), and the mean 2 as the fourth. Deviations -1, 0, 1, 0 have the
    # variance 2 / 4, times 4 / 3 that of -1, 0, 1, which is 2 / 3.
    width, values = Width(3, 4, averaged=True), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    grown = width.write(values, 0)
    torch.testing.assert_close(grown, (4 / 3) ** 0.5 * torch.tensor([1.0, 2.0, 3.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(grown.var(correction=0), values.var(correction=0))


@pytest.mark.parametrize(("size", "grown"), [(3, 4), (3, 8), (4, 8), (5, 7), (7, 13)])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_layer_norm_gives_copies_and_zeros_whatever_its_epsilon(size, grown, eps):
    generator = torch.Generator().manual_seed(0)
    stream, weight, bias = (torch.randn(4, size, generator=generator, dtype=torch.float64) for _ in range(3))
    width = Width(size, grown, averaged=grown % size != 0)
    parameters = width.normalize(weight[0], "weight"), width.normalize(bias[0], "bias")
    small = F.layer_norm(stream, (size,), weight[0], bias[0], eps)
    large = F.layer_norm(width.write(stream, 1), (grown,), *parameters, eps)
    torch.testing.assert_close(large, width.behind_norm(small, 1))
    reader = torch.randn(3, size, generator=generator, dtype=torch.float64)
    for noise in (0.0, 0.7):
        torch.testing.assert_close(large @ width.read(reader, 1, draws(noise)).T, small @ reader.T)


def test_uneven_shares_sum_to_the_whole():
    weight = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    positions = torch.tensor([0, 1, 2, 0, 0, 2])
    grown = shared(weight, 1, positions, draws(0.5))
    torch.testing.assert_close(torch.zeros_like(weight).index_add(1, positions, grown), weight)
    assert torch.equal(grown[:, 1], weight[:, 1])  # an only copy has it all
    assert not torch.equal(grown[:, 0], grown[:, 3])
