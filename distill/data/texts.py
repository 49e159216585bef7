"""Texts with labels, as examples whose batches hold the tokens of each model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from distill.batch import Batch
from distill.data.masked_texts import MaskedTexts
from distill.data.masking import NOT_MASKED
from distill.data.mix import Mix
from distill.data.split import check_classes, check_labels
from distill.data.text_example import TextExample
from distill.tokenize import Encoded, Tokenizer

UNKNOWN = -1

Padding = Literal["buckets", "longest", "max_length"]


class TextPart(NamedTuple):
    """What a split is made of: texts, and a class number for each, int64 (N,); `UNKNOWN` where nobody labelled it."""

    texts: Sequence[str]
    labels: Tensor


class TextExamples(Dataset[TextExample]):
    """One split of texts, with keys (epoch, index); the epoch changes nothing.

    encoded: {side: tokens of all texts}; empty until the run's models, and with them their tokenizers, are known.
    bucketed: batches are made of texts of similar length.
    """

    def __init__(self, part: TextPart, encoded: Mapping[str, Encoded] | None = None, *, bucketed: bool = True) -> None:
        self.texts = part.texts
        self.labels = part.labels
        self.encoded = dict(encoded or {})
        self.bucketed = bucketed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int]) -> TextExample:
        index = int(key[1])
        tokens = {side: encoded.text(index) for side, encoded in self.encoded.items()}
        return TextExample(tokens, self.labels[index], index)

    @property
    def kinds(self) -> dict[str, tuple[tuple[str, ...], int]]:
        """{side: what the model takes, and the token that fills up}."""
        return {side: (encoded.inputs, encoded.padding) for side, encoded in self.encoded.items()}

    @property
    def lengths(self) -> Tensor | None:
        """Tokens of each text in the longer of the models' forms, int64 (N,); None where batches do not ask for it."""
        if not self.bucketed:
            return None
        return torch.stack([encoded.lengths for encoded in self.encoded.values()]).amax(0)

    def with_tokens(self, tokenizers: Mapping[str, Tokenizer], max_length: int) -> tuple["TextExamples", int]:
        """The same texts with the tokens of each side, and how many had to be cut."""
        found = {side: each.encode(self.texts, max_length) for side, each in tokenizers.items()}
        examples = TextExamples(TextPart(self.texts, self.labels), found, bucketed=self.bucketed)
        return examples, max(encoded.truncated for encoded in found.values())


@dataclass(frozen=True)
class TextSplits:
    """A data set of texts, cut: to train on, to choose by, and to report on once.

    classes: the names, in the order of the class numbers; none where a model has to guess hidden tokens.
    max_length: most tokens of a text. padding: see `TextSettings`.
    notes: what was counted on the way and a reader of the results should know, a sentence each.
    tokenizers: {side: tokenizer}, see `distill.view.TokensView`; empty until the run's models are known.
    """

    train: TextExamples | MaskedTexts
    validation: TextExamples | MaskedTexts
    test: TextExamples | MaskedTexts
    classes: tuple[str, ...]
    max_length: int
    padding: Padding
    notes: tuple[str, ...] = ()
    tokenizers: Mapping[str, Tokenizer] = field(default_factory=dict)

    @property
    def masked(self) -> bool:
        """Whether the texts have no classes, and a model has to guess hidden tokens."""
        return not self.classes

    @property
    def several(self) -> bool:
        """Whether a text may have several labels: never."""
        return False

    @property
    def collate(self) -> Callable[[Sequence[Any]], Batch]:
        """Makes a batch of examples."""
        return (
            self.longest
            if self.padding == "max_length"
            else partial(collate_texts, kinds=self.train.kinds, length=None)
        )

    @property
    def longest(self) -> Callable[[Sequence[Any]], Batch]:
        """Makes a batch of examples, padded to `max_length`: what a model costs is stated for texts of that length."""
        return partial(collate_texts, kinds=self.train.kinds, length=self.max_length)

    def tokenizer(self, role: str) -> Tokenizer:
        """That of the "student" or of the "teacher"."""
        return self.tokenizers[role if role in self.tokenizers else ""]

    def encoded(self, tokenizers: Mapping[str, Tokenizer]) -> "TextSplits":
        """The same splits with the tokens of each side; counts the texts that had to be cut."""
        notes, parts = list(self.notes), dict[str, TextExamples | MaskedTexts]()
        for name, examples in (("training", self.train), ("validation", self.validation), ("test", self.test)):
            parts[name], cut = examples.with_tokens(tokenizers, self.max_length)
            if cut:
                notes.append(
                    f"{cut:,} of {len(examples):,} {name} texts have more than max_length={self.max_length} tokens, "
                    "and are cut there."
                )
        return replace(
            self,
            train=parts["training"],
            validation=parts["validation"],
            test=parts["test"],
            notes=tuple(notes),
            tokenizers=dict(tokenizers),
        )


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """Settings of every data set of texts.

    max_length: most tokens of a text, those that mark its ends included; longer ones are cut and counted.
    padding: "buckets" makes batches of texts of similar length, padded to the longest of them; "longest" takes texts as
        they come, padded likewise; "max_length" pads every batch to max_length.
    split_seed: draws what is cut out of other splits; the run's seed never does.
    """

    max_length: int = 128
    padding: Padding = "buckets"
    split_seed: int = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.max_length < 3:
            raise ValueError(
                f"{name}.max_length is a number of tokens of at least 3, since two mark the ends of a text, got "
                f"{self.max_length}."
            )
        if self.padding not in ("buckets", "longest", "max_length"):
            raise ValueError(f"{name}.padding is 'buckets', 'longest' or 'max_length', got {self.padding!r}.")

    def check_no_mix(self, mix: Mix | None) -> None:
        """Refuse mixing, which is of images."""
        if mix is not None:
            raise ValueError(f"mix blends images, and {type(self).__name__} gives texts. Leave it out.")

    def splits(
        self,
        *,
        train: TextPart,
        validation: TextPart,
        test: TextPart,
        classes: Sequence[str],
        notes: Sequence[str] = (),
    ) -> TextSplits:
        """The splits of a data set out of its parts; empty texts are counted.

        Raises:
            ValueError: a split without examples, labels that name no class, or a class without training examples.
        """
        examples, counted = [], list(notes)
        for name, part in (("train", train), ("validation", validation), ("test", test)):
            if len(part.texts) != len(part.labels):
                raise ValueError(f"The {name} split has {len(part.texts)} texts and {len(part.labels)} labels.")
            known = part.labels[part.labels != UNKNOWN] if name == "train" else part.labels
            check_labels(known, len(classes), f"The {name} split")
            if name == "train":
                check_classes(known, classes)
                if len(known) < len(part.labels):
                    counted.append(
                        f"{len(part.labels) - len(known):,} of {len(part.labels):,} training texts have no label; only "
                        "terms without labels learn from them."
                    )
            empty = sum(not text.strip() for text in part.texts)
            if empty:
                counted.append(f"{empty:,} of {len(part.texts):,} texts of the {name} split are empty.")
            examples.append(TextExamples(part, bucketed=self.padding == "buckets"))
        return TextSplits(
            train=examples[0],
            validation=examples[1],
            test=examples[2],
            classes=tuple(classes),
            max_length=self.max_length,
            padding=self.padding,
            notes=tuple(counted),
        )


def collate_texts(
    examples: Sequence[TextExample], *, kinds: Mapping[str, tuple[tuple[str, ...], int]], length: int | None
) -> Batch:
    """Texts as one batch, in their order, padded to the longest of them, or to `length`.

    kinds: {side: what the model takes, and the token that fills up}. Each side's inputs are named `SIDE.input_ids` and
    so on, or plainly where both models have the same tokens; then `Batch.mask` is True where a token counts.
    """
    inputs: dict[str, Tensor] = {}
    labels = [example.label for example in examples]
    for side, (names, padding) in kinds.items():
        texts = [example.tokens[side] for example in examples]
        ids, mask = _padded(texts, padding, max(map(len, texts)) if length is None else length)
        prefix = f"{side}." if side else ""
        inputs |= {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask.long()}
        if "token_type_ids" in names:
            inputs[f"{prefix}token_type_ids"] = torch.zeros_like(ids)
    return Batch(
        inputs=inputs,
        labels=torch.stack(labels) if labels[0].ndim == 0 else _padded(labels, NOT_MASKED, ids.shape[1])[0],
        index=torch.tensor([example.index for example in examples]),
        mask=inputs["attention_mask"].bool() if "attention_mask" in inputs else None,
    )


def _padded(texts: Sequence[Tensor], padding: int, length: int) -> tuple[Tensor, Tensor]:
    ids = torch.stack([F.pad(text, (0, length - len(text)), value=padding) for text in texts])
    lengths = torch.tensor([len(text) for text in texts])
    return ids, torch.arange(length) < lengths[:, None]
