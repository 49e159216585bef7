import numpy as np
import torch
from scipy import stats

from distill.data.draws import drawn_from, generator, seed_of, uniforms


def test_a_seed_depends_on_every_part_of_the_key_and_on_nothing_else():
    keys = [("a", seed, epoch, index) for seed in range(3) for epoch in range(10) for index in range(100)]
    seeds = [seed_of(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert seeds == [seed_of(*key) for key in keys]
    # A fixed value: blake2b of "('a', 0, 1, 2)", so that a run can be repeated on another machine and version.
    assert seed_of("a", 0, 1, 2) == 4816943188926479112


def test_drawing_from_a_key_leaves_the_generator_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    got = [torch.rand(2)]
    with drawn_from("x", 1):
        inside = torch.rand(3)
    got.append(torch.rand(2))
    assert torch.equal(torch.cat(got), expected)
    with drawn_from("x", 1):
        assert torch.equal(torch.rand(3), inside)
    with drawn_from("x", 2):
        assert not torch.equal(torch.rand(3), inside)


def test_an_error_inside_leaves_the_generator_as_it_was_too():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    try:
        with drawn_from("x", 1):
            torch.rand(3)
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_a_generator_repeats_for_its_key():
    assert torch.equal(torch.randperm(50, generator=generator("p", 1)), torch.randperm(50, generator=generator("p", 1)))
    assert not torch.equal(
        torch.randperm(50, generator=generator("p", 1)), torch.randperm(50, generator=generator("p", 2))
    )


def keys(epochs: int, examples: int) -> list[tuple[int, int]]:
    return [(epoch, index) for epoch in range(epochs) for index in range(examples)]


def test_numbers_depend_on_purpose_and_key_alone_and_not_on_what_is_drawn_beside_them():
    together = uniforms(("a", 0), keys(3, 50), 5)
    alone = [uniforms(("a", 0), [key], 5)[0] for key in reversed(keys(3, 50))]
    assert np.array_equal(together, alone[::-1])
    assert np.array_equal(uniforms(("a", 0), keys(3, 50), 2), together[:, :2])
    assert not np.isin(uniforms(("a", 1), keys(3, 50), 5), together).any()
    assert len(np.unique(together)) == together.size
    # Fixed values, so that a run can be repeated on another machine and version: SplitMix64's definition by hand.
    word, mask = (seed_of("a", 0, 2) + 7 * 0x9E3779B97F4A7C15) % 2**64, 2**64 - 1

    def mixed(number: int) -> int:
        number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & mask
        number = (number ^ (number >> 27)) * 0x94D049BB133111EB & mask
        return number ^ (number >> 31)

    by_hand = [(mixed((mixed(word) + place * 0x9E3779B97F4A7C15) & mask) >> 11) / 2**53 for place in (1, 2)]
    assert uniforms(("a", 0), [(2, 7)], 2)[0].tolist() == by_hand


def test_numbers_are_uniform_and_neighbours_have_nothing_to_do_with_each_other():
    numbers = uniforms(("a", 3), keys(40, 500), 4).reshape(40, 500, 4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-3
    other_purpose = uniforms(("a", 4), keys(40, 500), 4).reshape(40, 500, 4)
    pairs = {
        "next example": (numbers[:, 1:], numbers[:, :-1]),
        "next epoch": (numbers[1:], numbers[:-1]),
        "next number": (numbers[..., 1:], numbers[..., :-1]),
        "next purpose": (numbers, other_purpose),
    }
    for name, (one, other) in pairs.items():
        # In a square of 8 x 8 fields as many pairs fall into each.
        counts = np.histogram2d(one.ravel(), other.ravel(), bins=8, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(counts.ravel()).pvalue > 1e-3, name
