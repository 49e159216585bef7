"""Hiding some tokens of a text, which a masked language model has to guess.

Devlin, Chang, Lee and Toutanova, 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", arXiv:1810.04805, section 3.1, task 1, and appendix A.1.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from distill.data.draws import generator

NOT_MASKED = -100
_HIDDEN, _OTHER = 0.8, 0.1  # of the chosen tokens; the rest stay as they are


def mask_tokens(
    ids: Tensor,
    *,
    mask_id: int,
    vocabulary: int,
    special: Collection[int],
    seed: int,
    epoch: int,
    index: int,
    share: float = 0.15,
) -> tuple[Tensor, Tensor]:
    """The tokens with some of them hidden, and what those were: both int64 (T,), the second −100 at all others.

    Of the tokens that are not special, `share` is chosen, rounded, and at least one; 80 % of these, by chance, become
    the mask, 10 % any token of the vocabulary, and 10 % stay. The draw depends on seed, epoch and index alone.

    ids: int64 (T,) of one text. vocabulary: its size. special: tokens that are never chosen: padding and the like.
    index: number of the text in its data set.

    Raises:
        ValueError: `share` is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"mask_tokens takes a share of the tokens above 0 and at most 1, got {share}.")
    draw = generator("mask tokens", seed, epoch, index)
    free = (~torch.isin(ids, torch.tensor(list(special), dtype=ids.dtype))).nonzero()[:, 0]
    number = max(1, round(share * len(free)))
    chosen = free[torch.randperm(len(free), generator=draw)[:number]]
    fate = torch.rand(len(chosen), generator=draw)
    others = torch.randint(vocabulary, (len(chosen),), generator=draw)
    shown, labels = ids.clone(), torch.full_like(ids, NOT_MASKED)
    labels[chosen] = ids[chosen]
    shown[chosen] = torch.where(fate < _HIDDEN, mask_id, torch.where(fate < _HIDDEN + _OTHER, others, ids[chosen]))
    return shown, labels
