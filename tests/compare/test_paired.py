"""Two models on the same test examples."""

import math

import numpy as np
import pytest

from distill.compare import mcnemar, over_examples_and_seeds


def test_mcnemar_is_the_fair_coin_over_the_examples_that_one_model_alone_answers_right() -> None:
    before = np.array([False] * 5 + [True] * 5)
    after = np.array([True] * 5 + [False] + [True] * 4)
    # Five gained and one lost: of six tosses at most one of the rarer side, twice, 2 (1 + 6) / 64.
    assert mcnemar(before, after) == pytest.approx(14 / 64)
    assert mcnemar(after, before) == pytest.approx(14 / 64)
    assert mcnemar(before, before) == 1.0


def test_the_interval_over_examples_is_as_wide_as_their_standard_error() -> None:
    draw = np.random.default_rng(1)
    before, after = draw.random((1, 2_000)) < 0.6, draw.random((1, 2_000)) < 0.7
    found = over_examples_and_seeds(before, after)
    difference = after.astype(float) - before
    assert found.difference == pytest.approx(difference.mean())
    assert found.standard_error == pytest.approx(difference.std() / math.sqrt(2_000), rel=0.06)
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.standard_error, rel=0.06)


def test_seeds_that_differ_widen_it_where_examples_do_not() -> None:
    before = np.zeros((2, 50))
    after = np.repeat([[0.0], [1.0]], 50, axis=1)
    found = over_examples_and_seeds(before, after)
    # Of two seeds with 0 and 1 a draw of two has the mean 0 in a quarter, 1/2 in a half, and 1 in a quarter.
    assert found.difference == 0.5 and (found.low, found.high) == (0.0, 1.0)
    assert found.standard_error == pytest.approx(math.sqrt(1 / 8), rel=0.05)


def test_pairing_counts() -> None:
    draw = np.random.default_rng(2)
    before = draw.random((3, 400)) < 0.5
    same = over_examples_and_seeds(before, before)
    assert (same.difference, same.low, same.high) == (0.0, 0.0, 0.0)
    other = over_examples_and_seeds(before, draw.random((3, 400)) < 0.5)
    assert other.high - other.low > 0.05


def test_what_does_not_pair_is_refused() -> None:
    with pytest.raises(ValueError, match=r"paired as \(seeds, examples\), got \(1, 3\) and \(1, 4\)"):
        over_examples_and_seeds(np.ones((1, 3)), np.ones((1, 4)))
