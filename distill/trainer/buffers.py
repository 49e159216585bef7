"""The buffers that forward passes change, to put back where a pass shall leave no trace."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill.heads import Remembers

Kept = Sequence[tuple[Tensor, Tensor]]


def kept_buffers(learner: nn.Module) -> Kept:
    """Each of the learner's buffers with a copy of what it holds now.

    Without those of a memory, which is large and only written behind the update.
    """
    memories = {id(b) for module in learner.modules() if isinstance(module, Remembers) for b in module.buffers()}
    return [(buffer, buffer.clone()) for buffer in learner.buffers() if id(buffer) not in memories]


@torch.no_grad()
def put_back(kept: Kept) -> None:
    """Give each buffer again what it held."""
    for buffer, before in kept:
        buffer.copy_(before)
