"""A pretrained model's own tokenizer, from its folder or from the hub."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from distill.tokenize.kinds import Encoded, Tokenizer
from distill.tokenize.places import fetch, find_place, import_transformers, quiet, reason

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_TEXTS_AT_ONCE = 1024


class Pretrained:
    """A fast tokenizer of transformers, as `Tokenizer`.

    Raises:
        ValueError: it has no vocabulary, or no token to fill up shorter texts with.
    """

    def __init__(self, name: str, tokenizer: Any) -> None:
        from tokenizers import Tokenizer as Backend

        vocabulary = tokenizer.get_vocab()
        if set(vocabulary) <= set(tokenizer.all_special_tokens):
            raise ValueError(f"The tokenizer of {name} has no vocabulary: its files are missing. Check the folder.")
        if tokenizer.pad_token_id is None:
            raise ValueError(f"The tokenizer of {name} has no padding token. Take a model of BERT's kind.")
        self.name = name
        self.size = max(vocabulary.values()) + 1
        self.mask: int | None = tokenizer.mask_token_id
        self.special = frozenset(tokenizer.all_special_ids)
        self._padding = int(tokenizer.pad_token_id)
        self._inputs = tuple(each for each in _INPUTS if each in tokenizer.model_input_names)
        self._tokenizer = tokenizer
        self._side = tokenizer.truncation_side
        # A copy: the tokenizer's own would be saved with the lengths of this run.
        self._backend: Any = Backend.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_padding()
        self._backend.no_truncation()
        decides = [json.loads(self._backend.to_str()), self._padding, self._inputs, self._side]
        self.fingerprint = sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def encode(self, texts: Sequence[str], max_length: int) -> Encoded:
        """Texts of at most `max_length` tokens, the special ones included; an empty text has special ones only.

        Raises:
            ValueError: the special tokens alone are as many.
        """
        special = self._backend.num_special_tokens_to_add(False)
        if max_length <= special:
            raise ValueError(
                f"max_length {max_length} leaves no room for a text: {self.name} adds {special} special tokens. Give "
                f"at least {special + 1}."
            )
        self._backend.enable_truncation(max_length, direction=self._side)
        ids, lengths, truncated = [], [0], 0
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            encodings = self._backend.encode_batch_fast(list(texts[start : start + _TEXTS_AT_ONCE]))
            ids.append(torch.tensor([token for each in encodings for token in each.ids], dtype=torch.int32))
            lengths += [len(each.ids) for each in encodings]
            truncated += sum(bool(each.overflowing) for each in encodings)
        tokens = torch.cat(ids) if ids else torch.empty(0, dtype=torch.int32)
        return Encoded(tokens, torch.tensor(lengths).cumsum(0), truncated, self._inputs, self._padding)

    def save(self, folder: Path) -> None:
        """Write it into a student's folder, where transformers' AutoTokenizer finds it."""
        with quiet():
            self._tokenizer.save_pretrained(folder)


def load_tokenizer(place: str) -> Tokenizer:
    """The tokenizer of a local folder, such as a student's, or of a model's name on the hub.

    Only fast tokenizers are taken, whose files are plain text; none that needs code from its folder.

    Raises:
        ValueError: there is none, it can't be read, or it is no fast one.
    """
    what = f"the tokenizer of {place}"
    transformers = import_transformers(what)
    found = find_place(place, what)

    def load(local: bool) -> Any:
        return transformers.AutoTokenizer.from_pretrained(
            found, use_fast=True, trust_remote_code=False, local_files_only=local
        )

    try:
        with quiet():
            tokenizer = fetch(found, load)
    except Exception as error:  # missing, damaged and unknown files fail in many ways
        raise ValueError(
            f"The tokenizer of {place} can't be loaded: {reason(place, error)}. Give a folder with a tokenizer.json."
        ) from error
    if not tokenizer.is_fast:
        raise ValueError(f"The tokenizer of {place} is no fast one. Save it as tokenizer.json with transformers first.")
    return Pretrained(place, tokenizer)
