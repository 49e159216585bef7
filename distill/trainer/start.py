"""Weight decay towards the weights that training started with, in place of zero."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distill.sharding import share_of


class Start:
    """Where some parameters start, and the pull back to there.

    It is the gradient of weight / 2 · ||w - w0||² (L2-SP; Li, Grandvalet and Davoine, 2018, arXiv:1802.01483, eq. 2,
    first part): what was learned on the larger task stays, where plain weight decay would draw it to zero. As part of
    the loss it is added before the gradient is clipped, once an update, so neither micro-batches nor processes change
    it. The parameters are those that began from weights; others keep the optimizer's own weight decay, the second part.

    values: w0, by name; to be kept beside the run's other state, since the parameters move on.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], weight: float) -> None:
        self.parameters, self.weight = dict(parameters), weight
        self.values = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def pull(self) -> None:
        """Add the pull to the gradients; a parameter without one, which no loss reaches, stays without."""
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                parameter.grad.add_(parameter - self.values[name], alpha=self.weight)

    @torch.no_grad()
    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Pull to these values, each of them whole, from now on: those of the run that goes on."""
        for name, tensor in values.items():
            self.values[name].copy_(share_of(tensor, self.values[name]))
