"""What a tokenizer gives, whoever made it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """Texts as token numbers, one after the other.

    ids: int32, the tokens of all texts. starts: int64 (N + 1,), where each text begins, and the end of the last one.
    truncated: texts that were longer than allowed, and cut.
    inputs: what the model takes of them: "input_ids" first, "attention_mask" and "token_type_ids" where it has them.
    padding: the token that fills up shorter texts of a batch.
    """

    ids: Tensor
    starts: Tensor
    truncated: int
    inputs: tuple[str, ...]
    padding: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Tensor:
        """Tokens of each text, int64 (N,)."""
        return self.starts.diff()

    def text(self, number: int) -> Tensor:
        """The tokens of one text, int64 (T,)."""
        return self.ids[int(self.starts[number]) : int(self.starts[number + 1])].long()

    @classmethod
    def of_lists(
        cls, texts: Sequence[Sequence[int]], *, truncated: int, inputs: tuple[str, ...], padding: int
    ) -> "Encoded":
        """Out of one list of token numbers a text."""
        lengths = torch.tensor([0, *map(len, texts)])
        ids = torch.tensor([token for text in texts for token in text], dtype=torch.int32)
        return cls(ids, lengths.cumsum(0), truncated, inputs, padding)


class Tokenizer(Protocol):
    """Cuts texts into tokens; two with the same `fingerprint` cut all texts alike."""

    @property
    def name(self) -> str:
        """How the user would name it, for messages."""
        ...

    @property
    def fingerprint(self) -> str:
        """A digest of all that decides its tokens."""
        ...

    @property
    def size(self) -> int:
        """Token numbers lie in [0, size)."""
        ...

    @property
    def mask(self) -> int | None:
        """The token that hides a word; None without one."""
        ...

    @property
    def special(self) -> frozenset[int]:
        """The tokens that stand for no part of a text."""
        ...

    def encode(self, texts: Sequence[str], max_length: int) -> Encoded:
        """Texts of at most `max_length` tokens, the special ones included; an empty text has special ones only."""
        ...

    def save(self, folder: Path) -> None:
        """Write it into a student's folder, where transformers' AutoTokenizer finds it."""
        ...


class TrainsTokenizer(Protocol):
    """Settings of a tokenizer that is trained on a run's training texts; a frozen dataclass."""

    def train(self, texts: Sequence[str]) -> Tokenizer:
        """The tokenizer of these texts; the same for the same texts."""
        ...
