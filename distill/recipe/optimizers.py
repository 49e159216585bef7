"""Optimizers as plain data: their settings now, the torch optimizer when there are parameters."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from distill.recipe.values import check

# Parameters, or groups of them as torch's optimizers take them.
Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]


@runtime_checkable
class Optimizer(Protocol):
    """A frozen dataclass of settings that builds a torch optimizer."""

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """The optimizer of these parameters, with the settings' learning rate."""


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum.

    lr: learning rate that the schedule multiplies.
    momentum: share of the last update that is kept, in [0, 1).
    weight_decay: factor of the parameters that is added to their gradient.
    nesterov: look ahead along the momentum.
    """

    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        check(self)
        _refuse_rates(self.lr, self.weight_decay)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum lies in [0, 1), got {self.momentum}.")
        if self.nesterov and self.momentum == 0:
            raise ValueError(
                "nesterov looks ahead along the momentum, and momentum is 0. Give a momentum, or leave nesterov out."
            )

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """`torch.optim.SGD` of these parameters."""
        return torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            fused=True,
        )


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, arXiv:1711.05101).

    lr: learning rate that the schedule multiplies.
    betas: decay of the first and of the second moment, each in [0, 1).
    weight_decay: share of the parameters, times the learning rate, that each step takes away.
    eps: added to the root of the second moment.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check(self)
        _refuse_rates(self.lr, self.weight_decay)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas lie in [0, 1), got {self.betas}.")
        if self.eps <= 0:
            raise ValueError(f"eps must be above zero, got {self.eps}.")

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """`torch.optim.AdamW` of these parameters."""
        # In one pass over the parameters: with a large vocabulary on a CPU a ninth of the time of the default.
        return torch.optim.AdamW(
            parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, eps=self.eps, fused=True
        )


def _refuse_rates(lr: float, weight_decay: float) -> None:
    if lr <= 0:
        raise ValueError(f"lr must be above zero, got {lr}. To train nothing, freeze the parameters.")
    if weight_decay < 0:
        raise ValueError(f"weight_decay must not be negative, got {weight_decay}.")
