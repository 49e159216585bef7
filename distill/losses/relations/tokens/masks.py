"""Which tokens count: a batch's mask, checked, and means over the positions that it leaves."""

import torch
from torch import Tensor

from distill.batch import Batch


def counted_positions(name: str, batch: Batch, tokens: Tensor) -> Tensor:
    """Bool (B, T): the batch's mask, or True everywhere where it has none. `name` names the loss: "HiddenState".

    tokens: (B, T, ...).

    Raises: ValueError for a mask of another shape.
    """
    shape = tokens.shape[:2]
    if batch.mask is None:
        return torch.ones(shape, dtype=torch.bool, device=tokens.device)
    if batch.mask.shape != shape:
        raise ValueError(
            f"{name} takes a mask (B, T) of the tokens, {tuple(shape)}, got {tuple(batch.mask.shape)}. "
            "Tap a layer that keeps the input's positions, or give the batch no mask."
        )
    return batch.mask


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of each example's values (B, ...) where the mask, broadcast to them, is True, (B,); 0 where it never is.

    What is left out should be filled before anything with a slope: else NaN there, times a zero gradient, is NaN.
    """
    kept = values.masked_fill(~mask, 0).flatten(1).sum(1)
    return kept / mask.expand_as(values).flatten(1).sum(1).clamp_min(1)
