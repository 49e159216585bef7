"""Means over seeds and what they are sure of: pure functions of numbers."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) over `count` seeds; a single one has no deviation."""

    mean: float
    standard_deviation: float | None
    count: int


@dataclass(frozen=True)
class Interval:
    """A difference, its standard error, and the interval that holds the true one with 95% confidence."""

    difference: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True)
class Flips:
    """Test examples by what became of them: gained are wrong before and right after, lost the reverse."""

    gained: int
    lost: int
    same: int


def mean(values: Sequence[float]) -> float:
    """The mean; NaN where a value is not finite."""
    return statistics.fmean(values) if all(map(math.isfinite, values)) else math.nan


def standard_deviation(values: Sequence[float]) -> float:
    """The deviation of a sample, with n - 1; exactly 0 where all values are equal, NaN where one is not finite.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"A standard deviation needs at least two values, got {len(values)}. Train over more seeds.")
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


def standard_error(values: Sequence[float]) -> float:
    """The standard deviation of the mean: that of the values over the square root of their number.

    Raises:
        ValueError: fewer than two values.
    """
    return standard_deviation(values) / math.sqrt(len(values))


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and number of at least one value."""
    return Spread(mean(values), standard_deviation(values) if len(values) > 1 else None, len(values))


def welch(before: Sequence[float], after: Sequence[float]) -> Interval:
    """The interval of mean(after) - mean(before) for two samples of unlike variance, by Student's t.

    Degrees of freedom by Welch (1947) and Satterthwaite (1946). Where neither sample varies the interval is the
    difference alone.

    Raises:
        ValueError: fewer than two values in a sample.
    """
    errors = standard_error(before), standard_error(after)
    difference, error = mean(after) - mean(before), math.hypot(*errors)
    if error == 0:
        return Interval(difference, difference, difference, 0.0)
    # Shares of the squared error in place of its fourth power, which runs out of float64 for tiny values.
    shares = [(part / error) ** 2 for part in errors]
    freedom = 1 / sum(share**2 / (len(values) - 1) for share, values in zip(shares, (before, after), strict=True))
    reach = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    return Interval(difference, difference - reach, difference + reach, error)


def flips(before: Sequence[bool], after: Sequence[bool]) -> Flips:
    """How often two students' answers to the same examples, right or wrong, differ.

    Raises:
        ValueError: not the same number of examples, or none.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"Answers are compared on the same examples, got {len(before)} and {len(after)}.")
    gained = sum(new and not old for old, new in zip(before, after, strict=True))
    lost = sum(old and not new for old, new in zip(before, after, strict=True))
    return Flips(gained, lost, len(before) - gained - lost)


def paired_bootstrap(answers: Flips, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The interval of the difference in accuracy over test examples, by resampling them; percentiles.

    Only the three counts matter to the resampled difference, so a resample is one multinomial draw. Half an example is
    added to the gained and to the lost (Agresti and Min, 2005, doi:10.1002/sim.1781): without it 4 gained and 0 lost
    would count as sure, which a fair coin brings in one of eight cases.
    """
    gained, lost, same = answers.gained, answers.lost, answers.same
    total = gained + lost + same
    shares = np.array([gained + 0.5, lost + 0.5, same]) / (total + 1)
    draws = np.random.default_rng(seed).multinomial(total, shares, size=resamples)
    differences = (draws[:, 0] - draws[:, 1]) / total
    low, high = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval((gained - lost) / total, float(low), float(high), float(differences.std(ddof=1)))


def recovered(plain: float, transferred: float, teacher: float) -> float | None:
    """Share of the gap between the plain student and its teacher that the transferred one closed.

    Below 0 where the transfer hurt, above 1 where it beat the teacher; None where the teacher is no better than the
    plain student, so that there is no gap.
    """
    gap = teacher - plain
    return (transferred - plain) / gap if gap > 0 else None
