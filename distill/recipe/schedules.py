"""Learning-rate schedules: pure functions of the progress in epochs."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from distill.recipe.values import check

# Where a warm-up starts: at zero the first update would be lost.
_WARMUP_START = 0.01


@runtime_checkable
class Schedule(Protocol):
    """A frozen dataclass of settings that gives the multiplier of the learning rate."""

    def factor(self, epoch: float, epochs: int) -> float:
        """The multiplier after `epoch` of `epochs` epochs; `epoch` may be a fraction.

        Raises:
            ValueError: the settings do not fit into so few epochs.
        """


@dataclass(frozen=True)
class Constant:
    """The learning rate as it is, after the warm-up.

    warmup_epochs: epochs over which the rate rises linearly, from 1/100 of itself.
    """

    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        check(self)
        _refuse_negative(self.warmup_epochs)

    def factor(self, epoch: float, epochs: int) -> float:
        """The multiplier after `epoch` of `epochs` epochs."""
        return _warm_up(epoch, epochs, self.warmup_epochs)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from the learning rate to `final` of it, after a warm-up (Loshchilov and Hutter, 2017, 1608.03983).

    warmup_epochs: epochs over which the rate rises linearly, from 1/100 of itself.
    final: share of the learning rate that is left at the end, in [0, 1).
    """

    warmup_epochs: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        check(self)
        _refuse_negative(self.warmup_epochs)
        _refuse_final(self.final)

    def factor(self, epoch: float, epochs: int) -> float:
        """The multiplier after `epoch` of `epochs` epochs."""
        rise = _warm_up(epoch, epochs, self.warmup_epochs)
        fall = (1 + math.cos(math.pi * _decayed(epoch, epochs, self.warmup_epochs))) / 2
        return rise * (self.final + (1 - self.final) * fall)


@dataclass(frozen=True)
class LinearDecay:
    """A straight line from the learning rate, after the warm-up, to `final` of it.

    warmup_epochs: epochs over which the rate rises linearly, from 1/100 of itself.
    final: share of the learning rate that is left at the end, in [0, 1).
    """

    warmup_epochs: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        check(self)
        _refuse_negative(self.warmup_epochs)
        _refuse_final(self.final)

    def factor(self, epoch: float, epochs: int) -> float:
        """The multiplier after `epoch` of `epochs` epochs."""
        rise = _warm_up(epoch, epochs, self.warmup_epochs)
        return rise * (1 - (1 - self.final) * _decayed(epoch, epochs, self.warmup_epochs))


@dataclass(frozen=True)
class Steps:
    """The learning rate multiplied by `gamma` at each milestone.

    milestones: epochs, increasing, each before the last epoch ends.
    gamma: what each milestone multiplies the rate by, in (0, 1).
    warmup_epochs: epochs over which the rate rises linearly, from 1/100 of itself.
    """

    milestones: tuple[float, ...]
    gamma: float = 0.1
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        check(self)
        _refuse_negative(self.warmup_epochs)
        if not self.milestones:
            raise ValueError("Steps needs at least one milestone. For a rate without steps write Constant().")
        if any(later <= earlier for earlier, later in zip((0.0, *self.milestones), self.milestones, strict=False)):
            raise ValueError(f"milestones must be above zero and increase, got {self.milestones}.")
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma lies in (0, 1), got {self.gamma}.")

    def factor(self, epoch: float, epochs: int) -> float:
        """The multiplier after `epoch` of `epochs` epochs."""
        if self.milestones[-1] >= epochs:
            last = f"the milestone at epoch {self.milestones[-1]:g}"
            raise ValueError(f"{last} has no effect in {epochs} epochs. Leave it out, or train longer.")
        passed = sum(milestone <= epoch for milestone in self.milestones)
        return float(_warm_up(epoch, epochs, self.warmup_epochs) * self.gamma**passed)


def _warm_up(epoch: float, epochs: int, warmup_epochs: float) -> float:
    if warmup_epochs >= epochs:
        raise ValueError(
            f"a warm-up of {warmup_epochs:g} epochs does not end within {epochs} epochs. Shorten it, or train longer."
        )
    if epoch >= warmup_epochs:
        return 1.0
    return _WARMUP_START + (1 - _WARMUP_START) * epoch / warmup_epochs


def _decayed(epoch: float, epochs: int, warmup_epochs: float) -> float:
    """The share of the decay that is behind: 0 until the warm-up ends, 1 at the end."""
    return min(max((epoch - warmup_epochs) / (epochs - warmup_epochs), 0.0), 1.0)


def _refuse_negative(warmup_epochs: float) -> None:
    if warmup_epochs < 0:
        raise ValueError(f"warmup_epochs must not be negative, got {warmup_epochs}.")


def _refuse_final(final: float) -> None:
    if not 0 <= final < 1:
        raise ValueError(f"final is the share of the learning rate at the end, in [0, 1), got {final}.")
