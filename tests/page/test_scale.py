"""Places, round ticks, and curves that are thinned without losing what sticks out of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.page.figure import path, shorten
from distill.page.scale import Scale, short, spanning, thin

values = st.floats(-1e6, 1e6, allow_nan=False)


def test_a_spike_of_one_step_among_many_is_still_there() -> None:
    ys = [math.sin(number / 1000) for number in range(100_000)]
    ys[54_321], ys[7] = 9.0, -9.0
    curve = thin(range(100_000), ys, most=200)
    assert len(curve.x) <= 200
    assert (curve.x[0], curve.x[-1]) == (0, 99_999)
    assert (max(curve.y), min(curve.y)) == (9.0, -9.0)
    assert curve.x[curve.y.index(9.0)] == 54_321
    assert list(curve.x) == sorted(curve.x)


@given(st.lists(values, max_size=60), st.integers(4, 20))
def test_a_thinned_curve_keeps_ends_and_extremes(ys: list[float], most: int) -> None:
    curve = thin(range(len(ys)), ys, most)
    assert len(curve.y) <= max(most, 2)
    if ys:
        assert (curve.y[0], curve.y[-1], min(curve.y), max(curve.y)) == (ys[0], ys[-1], min(ys), max(ys))


def test_values_that_are_not_finite_are_left_out() -> None:
    assert thin([0, 1, 2, 3], [1.0, math.nan, math.inf, 2.0]).x == (0, 3)


def test_places_by_hand() -> None:
    assert Scale(0, 10, 100, 200).at(2.5) == 125
    # The middle between 1 and 10,000 by equal factors is 100.
    assert Scale(1, 10_000, 0, 1, log=True).at(100) == pytest.approx(0.5)
    assert Scale(0.31, 1.02, 0, 1).ticks() == pytest.approx([0.4, 0.6, 0.8, 1.0])
    assert Scale(9e4, 2e7, 0, 1, log=True).ticks() == [1e5, 1e6, 1e7]
    assert Scale(4e3, 8e3, 0, 1, log=True).ticks() == [4e3, 5e3, 6e3, 7e3, 8e3]


@given(st.lists(values, min_size=1, max_size=9))
def test_every_value_lies_on_its_scale_and_so_does_every_tick(found: list[float]) -> None:
    scale = spanning(found, 10, 20)
    assert all(10 - 1e-6 <= scale.at(value) <= 20 + 1e-6 for value in (*found, *scale.ticks()))


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.25, "0.25"), (1234.5, "1,234"), (123_456, "123.5 k"), (2.5e7, "25 M"), (1e-5, "1e-05"), (-3, "-3")],
)
def test_numbers_in_few_digits(value: float, words: str) -> None:
    assert short(value) == words


def test_a_path_is_written_in_steps_that_do_not_drift() -> None:
    # Steps between rounded places: their sum is the last place, whatever was rounded on the way.
    xs = [number / 3 for number in range(100)]
    words = path(xs, [0.0] * 100)
    steps = words.partition("l")[2].split()[::2]
    assert sum(map(float, steps)) == pytest.approx(33.0)


def test_a_long_name_keeps_both_ends() -> None:
    assert shorten("encoder.layer.11.attention", 12) == "enc…ttention"
    assert shorten("layer1", 12) == "layer1"
