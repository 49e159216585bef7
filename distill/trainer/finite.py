"""Losses and gradients that became NaN or infinite: in which steps, and what the log tells of the others."""

import math
from collections.abc import Iterable, Mapping

from torch import Tensor


class NotFinite(ValueError):
    """A loss or a gradient became NaN or infinite; names the term and the step."""


def finite_rows(rows: Tensor, *, scaled: bool) -> Tensor:
    """Which steps have finite losses and a finite gradient norm, bool (steps,).

    rows: (steps, terms + 1), each term's mean and then the gradient norm.
    scaled: loss scaling is at work, which leaves out updates of an infinite norm itself; the norm then says nothing.
    """
    return (rows[:, :-1] if scaled else rows).isfinite().all(1)


def fault(row: Tensor, terms: Iterable[str], step: int) -> str:
    """The first value of a step's row that is not finite, in words without a full stop."""
    names = (*(f"loss of term '{term}'" for term in terms), "gradient norm")
    name, value = next(pair for pair in zip(names, row.tolist(), strict=True) if not math.isfinite(pair[1]))
    return f"The {name} is {value} at step {step}"


def mean_losses(rows: Tensor, weights: Mapping[str, float]) -> dict[str, object]:
    """What a line of the log tells of the losses, means over the rows; nothing where there are none.

    weights: of each term, in the rows' order, as the line states them.
    """
    if not len(rows):
        return {}
    *means, norm = map(float, rows.mean(0))
    raw = dict(zip(weights, means, strict=True))
    weighted = {name: weights[name] * mean for name, mean in raw.items()}
    return {"loss": sum(weighted.values()), "raw": raw, "weighted": weighted, "gradient_norm": norm}
