"""Two models on the same test examples: pure functions of which answers are right."""

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from distill.report.statistics import CONFIDENCE, Interval

Right = npt.NDArray[np.bool_]
RESAMPLES = 2_000
# Values that are drawn at once: about 64 MB.
_AT_ONCE = 8_000_000


def mcnemar(before: Right, after: Right) -> float:
    """The p of no difference between two models' answers (N,), two-sided and exact; 1 where none differs.

    McNemar, 1947, doi:10.1007/BF02295996: of the examples that one model answers right and the other wrong, each has
    by chance one half to be either.
    """
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost, 0.5).pvalue)


def over_examples_and_seeds(
    before: npt.NDArray[np.floating], after: npt.NDArray[np.floating], *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The interval of mean(after - before), by drawing seeds (S) and examples (N) again, both paired; percentiles.

    before, after: a value of each example under each seed, (S, N), such as 1 for a right answer. With few seeds the
    interval is too short, since they can't be drawn as unlike as they might have been.

    Raises:
        ValueError: shapes that do not meet, or nothing.
    """
    if before.shape != after.shape or before.ndim != 2 or before.size == 0:
        raise ValueError(f"Values are paired as (seeds, examples), got {before.shape} and {after.shape}.")
    difference_SN = after.astype(float) - before.astype(float)
    seeds, examples = difference_SN.shape
    draw = np.random.default_rng(seed)
    means, left = [], resamples
    while left:
        count = min(left, max(1, _AT_ONCE // examples))
        weight_RS = draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=count) / seeds
        places_RN = draw.integers(examples, size=(count, examples))
        mean_RN = np.take_along_axis(weight_RS @ difference_SN, places_RN, axis=1)
        means.append(mean_RN.mean(1))
        left -= count
    drawn = np.concatenate(means)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(difference_SN.mean()), float(low), float(high), float(drawn.std(ddof=1)))
