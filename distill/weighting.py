"""Weights of terms that move: pure functions of the progress in epochs, and how terms weigh against each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class WeightSchedule(Protocol):
    """A frozen dataclass of settings that gives the share of a term's weight."""

    def share(self, epoch: float) -> float:
        """The share of the weight after `epoch` epochs of its stage, which may be a fraction."""

    def last_change(self) -> float:
        """The epoch after which the share stays as it is."""


@dataclass(frozen=True)
class Ramp:
    """A weight that rises linearly from 0 to its value over the first `epochs` epochs (DKD and ReviewKD: 20).

    epochs: epochs until the weight is whole.
    """

    epochs: float

    def __post_init__(self) -> None:
        _check_epoch("Ramp.epochs", self.epochs)

    def share(self, epoch: float) -> float:
        """The share of the weight after `epoch` epochs."""
        return min(epoch / self.epochs, 1.0)

    def last_change(self) -> float:
        """The epoch after which the share stays as it is."""
        return self.epochs


@dataclass(frozen=True)
class Fade:
    """A weight that falls from its value to `final` of it, in a straight line or along half a cosine.

    start: epoch at which it begins to fall.
    stop: epoch from which it is `final` of its value.
    final: share of the weight that is left at the end, in [0, 1).
    shape: "linear" or "cosine".
    """

    stop: float
    start: float = 0.0
    final: float = 0.0
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        _check_epoch("Fade.stop", self.stop)
        if not 0 <= self.start < self.stop:
            raise ValueError(f"Fade.start must be in [0, {self.stop}), before Fade.stop, got {self.start}.")
        if not 0 <= self.final < 1:
            raise ValueError(f"Fade.final must be a share of the weight in [0, 1), got {self.final}.")
        if self.shape not in ("linear", "cosine"):
            raise ValueError(f"Fade.shape must be 'linear' or 'cosine', got {self.shape!r}.")

    def share(self, epoch: float) -> float:
        """The share of the weight after `epoch` epochs."""
        behind = min(max((epoch - self.start) / (self.stop - self.start), 0.0), 1.0)
        left = 1 - behind if self.shape == "linear" else (1 + math.cos(math.pi * behind)) / 2
        return self.final + (1 - self.final) * left

    def last_change(self) -> float:
        """The epoch after which the share stays as it is."""
        return self.stop


@dataclass(frozen=True)
class Between:
    """A weight that is on from one epoch to another and off else.

    start: epoch from which it is on.
    stop: epoch from which it is off again; none for never.
    """

    start: float = 0.0
    stop: float | None = None

    def __post_init__(self) -> None:
        if not (self.start >= 0 and math.isfinite(self.start)):
            raise ValueError(f"Between.start must be zero or more, got {self.start}.")
        if self.stop is not None and not (self.stop > self.start and math.isfinite(self.stop)):
            raise ValueError(f"Between.stop must be above Between.start {self.start}, got {self.stop}.")
        if self.start == 0 and self.stop is None:
            raise ValueError("Between.start must be above zero, or Between.stop given, got neither: always on.")

    def share(self, epoch: float) -> float:
        """1 where the term is on, 0 where it is off."""
        return float(self.start <= epoch and (self.stop is None or epoch < self.stop))

    def last_change(self) -> float:
        """The epoch after which the share stays as it is."""
        return self.start if self.stop is None else self.stop


@runtime_checkable
class Balance(Protocol):
    """A frozen dataclass of settings that makes the module which weighs terms against each other.

    The module gives a tensor (2, terms) of factors and penalties: a term adds weight · (factor · loss + penalty).
    """

    def build(self, terms: Sequence[str]) -> nn.Module:
        """The module for these terms."""


@dataclass(frozen=True)
class Uncertainty:
    """Weighs terms by a learned variance of each: factor exp(−s), penalty s (s starts at 0).

    Kendall, Gal and Cipolla, 2018, "Multi-Task Learning Using Uncertainty to Weigh Losses", arXiv:1705.07115, eq. 7,
    with s = log σ² and without the factor ½. The term's own weight multiplies both, so that it keeps its meaning: at
    the best s a term adds weight · (1 + log loss). Not for a loss that can be negative, such as VID.
    """

    def build(self, terms: Sequence[str]) -> nn.Module:
        """The module for these terms."""
        return _Variances(len(terms))


@dataclass(frozen=True)
class GradNorm:
    """Weighs terms so that their gradients at the last layer that all of them reach have like norms.

    Chen, Badrinarayanan, Lee and Rabinovich, 2018, "GradNorm", arXiv:1711.02257, algorithm 1. Its step is taken in the
    logarithm of a factor and divided by the mean norm, so that factors stay above zero and `lr` does not depend on the
    scale of the losses; they have the mean 1. The term's own weight comes on top.

    alpha: how much faster a term learns that lags behind; 0 makes all norms equal.
    lr: step of the factors' logarithms.
    """

    alpha: float = 1.5
    lr: float = 0.025

    def __post_init__(self) -> None:
        if not (self.alpha >= 0 and math.isfinite(self.alpha)):
            raise ValueError(f"GradNorm.alpha must be zero or more, got {self.alpha}.")
        if not 0 < self.lr < 1:
            raise ValueError(f"GradNorm.lr must be in (0, 1), got {self.lr}.")

    def build(self, terms: Sequence[str]) -> nn.Module:
        """The module for these terms."""
        return NormFactors(len(terms), self)


class _Variances(nn.Module):
    def __init__(self, terms: int) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(terms))

    def forward(self) -> Tensor:
        """Factors and penalties (2, terms)."""
        return torch.stack([(-self.log_variance).exp(), self.log_variance])


class NormFactors(nn.Module):
    """The factors of GradNorm: no parameters of the optimizer, but buffers with a rule of their own."""

    factors: Tensor
    first: Tensor

    def __init__(self, terms: int, settings: GradNorm) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("factors", torch.ones(terms))
        self.register_buffer("first", torch.full((terms,), math.nan))

    def forward(self) -> Tensor:
        """Factors and penalties (2, terms)."""
        return torch.stack([self.factors, torch.zeros_like(self.factors)])

    @torch.no_grad()
    def follow(self, losses: Tensor, norms: Tensor) -> None:
        """One step of the factors.

        losses: each term's mean of this step, (terms,), unweighted.
        norms: of its gradient at the shared layer, (terms,), with weight and factor; 0 where the term is off.
        """
        on = norms > 0
        self.first.copy_(torch.where(self.first.isnan() & on, losses, self.first))
        ratios = torch.where(on & (self.first > 0), losses / self.first, torch.ones_like(losses))
        mean_norm, mean_ratio = _mean(norms, on), _mean(ratios, on)
        lag = (ratios / mean_ratio.clamp_min(1e-12)).clamp_min(0)
        target = mean_norm * lag**self.settings.alpha
        slope = (norms - target).sign() * norms / mean_norm.clamp_min(1e-12)
        moved = self.factors * (-self.settings.lr * slope).exp()
        moved = torch.where(on, moved / _mean(moved, on).clamp_min(1e-12), self.factors)
        self.factors.copy_(moved)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp_min(1)


def _check_epoch(name: str, epoch: float) -> None:
    if not (epoch > 0 and math.isfinite(epoch)):
        raise ValueError(f"{name} must be above zero, got {epoch}.")
