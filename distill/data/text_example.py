"""One text of a split."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TextExample:
    """One text of a split.

    tokens: {side: int64 (T,)}, see `distill.view.TokensView`. index: its number in the split.
    label: its class, int64 (); where tokens are masked, what each of those was and −100 elsewhere, int64 (T,).
    """

    tokens: Mapping[str, Tensor]
    label: Tensor
    index: int
