"""Exponential moving average of a model's parameters."""

import torch
from torch import nn


class Average:
    """Exponential moving average of a model's parameters, kept aside; buffers are taken as they are.

    decay: share of the old average in the new one. The first updates use (1 + n) / (10 + n) where that is smaller, so
    that the average does not remember the start for long.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.updates = model, decay, 0
        self.shadow = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model as it is now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in self.model.named_parameters():
            self.shadow[name].lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's parameters and the average; called twice, all is as before."""
        for name, parameter in self.model.named_parameters():
            kept = parameter.detach().clone()
            parameter.copy_(self.shadow[name])
            self.shadow[name].copy_(kept)
