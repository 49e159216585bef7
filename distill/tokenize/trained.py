"""Tokenizers trained on a run's texts, for models that have none of their own."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from distill.tokenize.kinds import Tokenizer
from distill.tokenize.load import Pretrained
from distill.tokenize.places import import_transformers

_PADDING, _UNKNOWN, _START, _END, _MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CONTINUES = "##"


@dataclass(frozen=True)
class WordPiece:
    """Whole words where they are frequent, else their pieces, as BERT has them; the same texts give the same tokens.

    "Neural Machine Translation of Rare Words with Subword Units" (Sennrich, Haddow and Birch, 2016, arXiv:1508.07909,
    algorithm 1), with the pieces written and found as BERT does: the most frequent pair of pieces is merged until there
    are enough. Where the characters alone are more than the size, the most frequent stay.

    size: tokens at most, the five special ones and all characters among them.
    lowercase: make no difference between capitals and small letters, nor between letters with accents and without.
    min_frequency: how often a pair must stand in the texts to become a token.
    """

    size: int = 4000
    lowercase: bool = True
    min_frequency: int = 2

    def __post_init__(self) -> None:
        _check_size("WordPiece", self.size)
        if self.min_frequency < 1:
            raise ValueError(f"WordPiece needs min_frequency of at least 1, got {self.min_frequency}.")

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """The tokenizer of these texts.

        Raises:
            ValueError: they have no word.
        """
        transformers = import_transformers(repr(self))
        from tokenizers import models

        with_steps = _with_steps(models.WordPiece({_UNKNOWN: 0}, unk_token=_UNKNOWN), self.lowercase)
        words = _count_words(with_steps, texts, self)
        pieces = _characters(words, self.size - len(SPECIAL))
        vocabulary = _merge(words, pieces, self.size, self.min_frequency)
        model = models.WordPiece(vocabulary, unk_token=_UNKNOWN, continuing_subword_prefix=_CONTINUES)
        return _finish(
            transformers,
            repr(self),
            _with_steps(model, self.lowercase),
            ("input_ids", "token_type_ids", "attention_mask"),
        )


@dataclass(frozen=True)
class Words:
    """Whole words, split at blanks and punctuation, each Chinese character one; for models such as a BiLSTM.

    size: tokens at most, the five special ones among them; the most frequent words stay, others are unknown.
    lowercase: make no difference between capitals and small letters, nor between letters with accents and without.
    """

    size: int = 10000
    lowercase: bool = True

    def __post_init__(self) -> None:
        _check_size("Words", self.size)

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """The tokenizer of these texts.

        Raises:
            ValueError: they have no word.
        """
        transformers = import_transformers(repr(self))
        from tokenizers import models

        with_steps = _with_steps(models.WordLevel({_UNKNOWN: 0}, unk_token=_UNKNOWN), self.lowercase)
        words = _count_words(with_steps, texts, self)
        kept = [*SPECIAL, *_most_frequent(words, self.size - len(SPECIAL))]
        model = models.WordLevel({word: number for number, word in enumerate(kept)}, unk_token=_UNKNOWN)
        return _finish(transformers, repr(self), _with_steps(model, self.lowercase), ("input_ids", "attention_mask"))


def _check_size(kind: str, size: int) -> None:
    if size <= len(SPECIAL):
        raise ValueError(f"{kind} needs a size above its {len(SPECIAL)} special tokens, got {size}.")


def _with_steps(model: Any, lowercase: bool) -> Any:
    """A tokenizer of this model that cuts texts into words as BERT does: at blanks, punctuation, Chinese characters."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, normalizers, pre_tokenizers, processors

    backend = Backend(model)
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=_CONTINUES)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}",
        pair=f"{_START} $A {_END} $B:1 {_END}:1",
        special_tokens=[(token, SPECIAL.index(token)) for token in (_START, _END)],
    )
    return backend


def _count_words(backend: Any, texts: Iterable[str], settings: WordPiece | Words) -> Counter[str]:
    words: Counter[str] = Counter()
    for text in texts:
        normal = backend.normalizer.normalize_str(text)
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal))
    if not words:
        raise ValueError(f"There is no word to train {settings} on: the texts are empty. Check the data's text column.")
    return words


def _characters(words: Mapping[str, int], room: int) -> list[str]:
    """The pieces that words are first cut into: characters, and those that also go on a word, marked; at most `room`.

    The trainer takes a character inside a word only where it knows the unmarked one as well.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    inner = {character for word in words for character in word[1:]}
    first: list[str] = []
    further: list[str] = []
    for character in _most_frequent(counts, room):
        marked = [_CONTINUES + character] if character in inner else []
        if len(first) + len(further) + 1 + len(marked) > room:
            break
        first.append(character)
        further += marked
    return sorted(first) + sorted(further)


def _most_frequent(counts: Mapping[str, int], number: int) -> list[str]:
    """The most frequent first; of equals, the first in the order of characters."""
    return sorted(counts, key=lambda each: (-counts[each], each))[:number]


def _merge(words: Mapping[str, int], pieces: Sequence[str], size: int, min_frequency: int) -> dict[str, int]:
    """The vocabulary: special tokens, characters, and what frequent pairs were merged into.

    The trainer numbers the characters inside words as a hash table happens to give them, and decides by number between
    pairs that are equally frequent. So they are given in an order beforehand.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, trainers

    known = set(pieces)

    def whole() -> Iterator[str]:
        for word, count in words.items():
            if known.issuperset(word):
                yield " ".join([word] * count)

    backend = Backend(models.WordPiece({_UNKNOWN: 0}, unk_token=_UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        special_tokens=[*SPECIAL, *pieces],
        limit_alphabet=size,
        continuing_subword_prefix=_CONTINUES,
        show_progress=False,
    )
    backend.train_from_iterator(whole(), trainer)
    vocabulary: dict[str, int] = backend.get_vocab()
    return vocabulary


def _finish(transformers: ModuleType, name: str, backend: Any, inputs: tuple[str, ...]) -> Tokenizer:
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=_PADDING,
        unk_token=_UNKNOWN,
        cls_token=_START,
        sep_token=_END,
        mask_token=_MASK,
        model_input_names=list(inputs),
        clean_up_tokenization_spaces=False,
    )
    return Pretrained(name, tokenizer)
