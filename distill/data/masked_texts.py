"""Texts without labels, of which some tokens are hidden: what a masked language model learns from."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils.data import Dataset

from distill.data.draws import generator
from distill.data.lines import Lines
from distill.data.masking import mask_tokens
from distill.data.text_example import TextExample
from distill.tokenize import Tokenizer

# In English a token has about 4.5 bytes, in Chinese 3: an estimate by which texts of similar length come together.
_BYTES_A_TOKEN = 4


def window(ids: Tensor, length: int, *, ends: tuple[int, int], seed: int, epoch: int, index: int) -> Tensor:
    """The tokens where they are at most `length`; else so many of them in a row, between the special ones of both ends.

    Where it begins is drawn by (seed, epoch, index) alone, every place alike: over the epochs all of a text is seen.

    ids: int64 (T,) of a whole text. ends: how many special tokens stand before it and behind it.
    """
    if len(ids) <= length:
        return ids
    before, behind = ends
    last = len(ids) - length
    first = int(torch.randint(last + 1, (), generator=generator("window", seed, epoch, index)))
    inner = ids[before : len(ids) - behind][first : first + length - before - behind]
    return torch.cat([ids[:before], inner, ids[len(ids) - behind :]])


class MaskedTexts(Dataset[TextExample]):
    """One split of texts with hidden tokens, with keys (epoch, index): the label of an example is what those were.

    A text is read, cut into tokens and masked when its turn comes; what comes of it depends on its key alone.

    seed: draws windows and masks. fixed: whether they are the same in every epoch, as in evaluation.
    """

    def __init__(
        self,
        texts: Lines,
        *,
        share: float,
        seed: int,
        fixed: bool,
        bucketed: bool = True,
        tokenizer: Tokenizer | None = None,
        max_length: int = 0,
    ) -> None:
        self.texts = texts
        self.share = share
        self.seed = seed
        self.fixed = fixed
        self.bucketed = bucketed
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.kinds: Mapping[str, tuple[tuple[str, ...], int]] = {}
        self._ends = (0, 0)
        if tokenizer is not None:
            empty, probe = tokenizer.encode([""], max_length), tokenizer.encode(["a"], max_length).text(0)
            self.kinds = {"": (empty.inputs, empty.padding)}
            before = int((probe[: len(empty.text(0))] == empty.text(0)).long().cumprod(0).sum())
            self._ends = before, len(empty.text(0)) - before

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, key: tuple[int, int]) -> TextExample:
        epoch, index = 0 if self.fixed else int(key[0]), int(key[1])
        assert self.tokenizer is not None and self.tokenizer.mask is not None
        text = self.texts[index]
        # A token has at least a byte, so nothing is cut here.
        whole = self.tokenizer.encode([text], len(text.encode()) + sum(self._ends) + 1).text(0)
        shown, labels = mask_tokens(
            window(whole, self.max_length, ends=self._ends, seed=self.seed, epoch=epoch, index=index),
            mask_id=self.tokenizer.mask,
            vocabulary=self.tokenizer.size,
            special=self.tokenizer.special,
            seed=self.seed,
            epoch=epoch,
            index=index,
            share=self.share,
        )
        return TextExample({"": shown}, labels, index)

    @property
    def lengths(self) -> Tensor | None:
        """About how many tokens each text has, int64 (N,), by its bytes; None where batches do not ask for it."""
        return (self.texts.size // _BYTES_A_TOKEN).clamp(1, self.max_length) if self.bucketed else None

    def with_tokens(self, tokenizers: Mapping[str, Tokenizer], max_length: int) -> tuple["MaskedTexts", int]:
        """The same texts as a tokenizer's tokens, and how many are cut for good, which is none.

        Raises:
            ValueError: there are two tokenizers, or it has no mask.
        """
        if len(tokenizers) > 1:
            names = " and ".join(tokenizer.name for tokenizer in tokenizers.values())
            raise ValueError(
                f"Tokens are masked for both models alike, and they have two tokenizers ({names}). Leave out "
                "student.tokenizer, so that the student takes the teacher's."
            )
        (tokenizer,) = tokenizers.values()
        if tokenizer.mask is None:
            raise ValueError(
                f"The tokenizer {tokenizer.name} has no mask, so no token can be hidden. Take one of a masked language "
                "model, or WordPiece()."
            )
        found = MaskedTexts(
            self.texts,
            share=self.share,
            seed=self.seed,
            fixed=self.fixed,
            bucketed=self.bucketed,
            tokenizer=tokenizer,
            max_length=max_length,
        )
        return found, 0
