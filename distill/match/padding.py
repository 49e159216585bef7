"""Padding of texts: which positions are a text's own, and products of examples in which the others say nothing."""

import math

import torch
from torch import Tensor

from distill.numerics import widen, without_autocast
from distill.similarity import gram_vector
from distill.taps import Inputs

_LEAST = 4
_MASK = "attention_mask"  # under this name a model gets the mask of its tokens


def mask_of(inputs: Inputs) -> Tensor | None:
    """Bool (B, T), True where a position is the text's own; None for inputs that are not padded texts."""
    if isinstance(inputs, Tensor) or _MASK not in inputs:
        return None
    return inputs[_MASK].bool()


def text_gram_vector(features: Tensor, mask: Tensor | None) -> Tensor:
    """`gram_vector` of tokens (B, T, D) over the texts' own positions; of other features that function itself.

    The products at each position are centred over the texts that reach it, and then summed. Filled with anything,
    zeros or means, padding would make the texts' lengths a part, and in weak features the most, of what the layers of
    any two models have in common. Positions that fewer than four texts reach are left out.

    mask: bool (B, T), True where a position is the text's own; None where nothing is padded.
    """
    if mask is None or features.ndim != 3 or features.shape[:2] != mask.shape:
        return gram_vector(features)
    n = len(features)
    own_BT1 = mask[:, :, None]
    count_T = mask.sum(0).clamp_min(1)
    x_BTD = widen(features).masked_fill(~own_BT1, 0)
    centred_BTD = (x_BTD - x_BTD.sum(0) / count_T[:, None]).masked_fill(~own_BT1, 0)
    if centred_BTD.norm() <= 16 * torch.finfo(x_BTD.dtype).eps * x_BTD.norm():
        centred_BTD = torch.zeros_like(centred_BTD)
    x_TBD = centred_BTD.transpose(0, 1)
    with without_autocast(x_TBD):
        gram_TBB = (x_TBD @ x_TBD.mT).double()
    met_TBB = (mask.T[:, :, None] & mask.T[:, None, :]).logical_and(~torch.eye(n, dtype=torch.bool, device=mask.device))
    gram_TBB = gram_TBB * met_TBB
    size_T11 = count_T[:, None, None].double().clamp_min(_LEAST)
    rows_TB1 = gram_TBB.sum(2, keepdim=True) / (size_T11 - 2)
    whole_T11 = rows_TB1.sum(1, keepdim=True) / (size_T11 - 1)
    centred_TBB = (gram_TBB - rows_TB1 - rows_TB1.mT + whole_T11) * met_TBB
    gram = centred_TBB[count_T >= _LEAST].sum(0)
    above = torch.triu_indices(n, n, offset=1, device=gram.device)
    return gram[above[0], above[1]] * math.sqrt(2 / (n * (n - 3)))


def same_tokens(student: Inputs, teacher: Inputs) -> bool:
    """Whether both models see a text cut into the same tokens, so that positions can be compared."""
    if isinstance(student, Tensor) or isinstance(teacher, Tensor):
        return True
    shared = [name for name in student if name in teacher]
    return all(
        student[name].shape == teacher[name].shape and torch.equal(student[name], teacher[name]) for name in shared
    )
