import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from distill.report.statistics import (
    Flips,
    Interval,
    flips,
    mean,
    paired_bootstrap,
    recovered,
    spread,
    standard_deviation,
    standard_error,
    welch,
)

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=6)


def test_mean_deviation_and_error_by_hand():
    # (90, 91, 95): mean 92, squared distances 4 + 1 + 9 = 14, over n - 1 = 2 is 7; the error is sqrt(7 / 3).
    values = (90.0, 91.0, 95.0)
    assert mean(values) == 92
    assert standard_deviation(values) == pytest.approx(math.sqrt(7))
    assert standard_error(values) == pytest.approx(math.sqrt(7 / 3))


@given(st.floats(0, 1), st.integers(2, 50))
def test_equal_values_have_a_deviation_of_exactly_zero(value: float, count: int):
    assert standard_deviation([value] * count) == 0


def test_a_single_value_has_no_deviation():
    assert spread([0.9]).standard_deviation is None
    with pytest.raises(ValueError, match="at least two values, got 1"):
        standard_deviation([0.9])


def test_a_value_that_is_not_finite_makes_mean_and_deviation_nan():
    for broken in (math.nan, math.inf):
        assert math.isnan(mean([broken, 1.0])) and math.isnan(standard_deviation([broken, 1.0]))


def test_welch_by_hand():
    # Plain (90, 91, 92) and transferred (94, 95, 96): means 91 and 95, both variances 1, squared errors 1/3 each.
    # The error of the difference 4 is sqrt(2/3) = 0.81650; degrees of freedom (2/3)^2 / (2 (1/3)^2 / 2) = 4; t at 97.5%
    # with 4 degrees is 2.776445 in every table; 2.776445 * 0.81650 = 2.26696.
    interval = welch((90.0, 91.0, 92.0), (94.0, 95.0, 96.0))
    assert interval.difference == 4
    assert interval.standard_error == pytest.approx(math.sqrt(2 / 3))
    assert (interval.low, interval.high) == pytest.approx((4 - 2.26696, 4 + 2.26696), abs=1e-5)


def test_welch_with_one_sample_that_does_not_vary_has_the_freedom_of_the_other():
    # (2, 4): variance 2, squared error 1; the other adds nothing, so 1 degree of freedom, for which t is 12.7062.
    interval = welch((1.0, 1.0, 1.0), (2.0, 4.0))
    assert (interval.low, interval.high) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)


def test_welch_of_samples_that_do_not_vary_is_the_difference_alone():
    assert welch((0.5, 0.5), (0.75, 0.75)) == Interval(0.25, 0.25, 0.25, 0.0)


def test_welch_is_that_of_scipy():
    before, after = (0.31, 0.35, 0.33, 0.4), (0.5, 0.41)
    theirs = ttest_ind(after, before, equal_var=False).confidence_interval(0.95)
    interval = welch(before, after)
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


@given(VALUES, VALUES)
def test_welch_turned_round_changes_only_the_sign(before: list[float], after: list[float]):
    there, back = welch(before, after), welch(after, before)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), rel=1e-9, abs=1e-9)
    assert there.low <= there.difference <= there.high


def test_flips_are_counted_both_ways():
    before = (True, True, False, False, True)
    after = (True, False, True, True, True)
    assert flips(before, after) == Flips(gained=2, lost=1, same=2)
    with pytest.raises(ValueError, match="same examples, got 5 and 4"):
        flips(before, after[:4])


def test_bootstrap_has_the_error_of_a_difference_of_shares():
    # 30 gained and 10 lost of 100, with half an example more on both sides of 101: the difference of one draw has the
    # variance 41/101 - (20/101)^2 = 0.36673, that of 100 has the error sqrt(0.0036673) = 0.06056.
    interval = paired_bootstrap(Flips(30, 10, 60))
    assert interval.difference == 0.2
    assert interval.standard_error == pytest.approx(0.06056, rel=0.03)
    reach = 1.96 * 0.06056
    assert (interval.low, interval.high) == pytest.approx((20 / 101 - reach, 20 / 101 + reach), abs=0.011)


def test_bootstrap_is_the_same_each_time_and_another_by_seed():
    answers = Flips(30, 10, 60)
    assert paired_bootstrap(answers) == paired_bootstrap(answers)
    assert paired_bootstrap(answers).standard_error != paired_bootstrap(answers, seed=1).standard_error


def test_bootstrap_of_no_flips_has_a_width_and_holds_zero():
    interval = paired_bootstrap(Flips(0, 0, 100))
    assert interval.low < 0 < interval.high and interval.difference == 0


@pytest.mark.parametrize("flipped", [1, 2, 3, 4, 5, 6, 8, 10, 20, 40])
def test_bootstrap_is_sure_of_a_fair_coin_in_about_one_of_twenty_cases(flipped: int):
    # Over all ways in which `flipped` examples fall to one side or the other. Without the half example four flips would
    # be called sure in 2 of 16 cases. Few flips have few outcomes, so one of twenty cannot be met exactly.
    sure = 0.0
    for gained in range(flipped + 1):
        interval = paired_bootstrap(Flips(gained, flipped - gained, 360 - flipped))
        if interval.low > 0 or interval.high < 0:
            sure += math.comb(flipped, gained) / 2**flipped
    assert sure <= 0.07


def test_recovered_share_by_hand():
    assert recovered(plain=90.0, transferred=93.0, teacher=94.0) == 0.75
    assert recovered(plain=90.0, transferred=89.0, teacher=94.0) == -0.25
    assert recovered(plain=90.0, transferred=96.0, teacher=94.0) == 1.5


def test_nothing_is_recovered_where_the_teacher_is_no_better():
    assert recovered(plain=90.0, transferred=93.0, teacher=90.0) is None
    assert recovered(plain=90.0, transferred=93.0, teacher=89.0) is None
