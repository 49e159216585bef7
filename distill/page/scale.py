"""Values as places on a plot: scales, round ticks, and curves with as few points as show their shape."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
    """Points in the order of x, all of them finite."""

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` at places from `start` to `end`; with `log` equal factors have equal distances."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value."""
        low, high, value = (math.log(one) if self.log else one for one in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Up to about `most` round values."""
        return _log_ticks(self.low, self.high, most) if self.log else _ticks(self.low, self.high, most)


def spanning(values: Sequence[float], start: float, end: float, *, log: bool = False, room: float = 0.06) -> Scale:
    """A scale that shows all values, with some room at both ends; a single value gets a width around it."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if log:
        factor = max((high / low) ** room, 1.6 if high / low < 1.5 else 1.0)
        return Scale(low / factor, high * factor, start, end, log=True)
    gap = (high - low) * room if high > low else abs(high) * 0.1 or 0.5
    return Scale(low - gap, high + gap, start, end)


def thin(x: Sequence[float], y: Sequence[float], most: int = 200) -> Curve:
    """The curve in at most `most` points: of equal stretches of points the lowest and the highest, and both ends.

    So a spike of a single step stays to be seen. Points that are not finite are left out.
    """
    known = [place for place in range(len(y)) if math.isfinite(y[place]) and math.isfinite(x[place])]
    if len(known) > most:
        stretches = max((most - 2) // 2, 1)
        kept = {known[0], known[-1]}
        for number in range(stretches):
            part = known[len(known) * number // stretches : len(known) * (number + 1) // stretches]
            kept |= {min(part, key=y.__getitem__), max(part, key=y.__getitem__)}
        known = sorted(kept)
    return Curve(tuple(x[place] for place in known), tuple(y[place] for place in known))


def short(value: float) -> str:
    """A tick's or a reading's number in up to four digits."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "-"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
            if abs(value) >= size:
                return f"{value / size:.4g}{unit}"
        return f"{value:.2g}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        every = max(1, len(powers) // most)
        found = [factor * 10.0**power for power in powers[::every] for factor in factors]
        found = [value for value in found if low <= value <= high]
        if len(found) >= 2:
            return found[: 2 * most]
    return _ticks(low, high, most)
