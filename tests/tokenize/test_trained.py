"""Tokenizers trained on texts: the same for the same texts, and readable without this library."""

from pathlib import Path

import pytest

from distill.tokenize import WordPiece, Words, load_tokenizer
from tests.tiny_bert import transformers

TEXTS = ["The film is good.", "the acting isn't good", "A film of good acting!", "这部电影好", "Crème brûlée 😀"] * 3
ODD = ["", "good 😀 film", "这部电影 is good", "good " * 10_000, "[CLS] unheard", "\x00\ufffd", "GOOD"]


@pytest.mark.parametrize("kind", [WordPiece(60), Words(30), WordPiece(60, lowercase=False), Words(30, lowercase=False)])
def test_transformers_reads_a_saved_one_and_gives_the_same_tokens(kind: WordPiece | Words, tmp_path: Path) -> None:
    tokenizer = kind.train(TEXTS)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    encoded = tokenizer.encode([*TEXTS, *ODD], 6)
    expected = theirs([*TEXTS, *ODD], truncation=True, max_length=6)["input_ids"]
    assert [encoded.text(number).tolist() for number in range(len(encoded))] == expected
    assert load_tokenizer(str(tmp_path)).fingerprint == tokenizer.fingerprint
    assert int(encoded.ids.max()) < tokenizer.size <= kind.size


@pytest.mark.parametrize("kind", [WordPiece(80), Words(30)])
def test_the_same_texts_give_the_same_tokenizer(kind: WordPiece | Words) -> None:
    # The trainer's hash tables are ordered anew for every training, not only in every process.
    prints = {kind.train(TEXTS).fingerprint for _ in range(5)}
    assert len(prints) == 1
    assert kind.train(TEXTS[:2]).fingerprint not in prints


def test_special_tokens_come_first_and_frame_every_text() -> None:
    for kind in (WordPiece(60), Words(30)):
        tokenizer = kind.train(TEXTS)
        assert (tokenizer.mask, tokenizer.special) == (4, {0, 1, 2, 3, 4})
        encoded = tokenizer.encode(["", "good", "🦄"], 9)
        assert encoded.text(0).tolist() == [2, 3]
        assert encoded.text(2).tolist() == [2, 1, 3]
        assert encoded.padding == 0


def test_the_most_frequent_words_stay() -> None:
    # good 3, and 2, bad 2 (before "odd" by its letters), odd 2: room for three.
    tokenizer = Words(8).train(["good and bad", "good odd", "good and", "bad odd"])
    assert tokenizer.encode(["good and bad odd"], 9).text(0).tolist() == [2, 5, 6, 7, 1, 3]


def test_frequent_pieces_are_merged_and_rare_ones_are_not() -> None:
    # Letters g, o, d and ##o, ##d, ##g; "##oo" or "go" merge first: good becomes one token, dog stays in letters.
    tokenizer = WordPiece(100).train(["good good good", "dog"])
    assert tokenizer.encode(["good"], 9).lengths.tolist() == [3]
    assert tokenizer.encode(["dog"], 9).lengths.tolist() == [5]
    often = WordPiece(100, min_frequency=4).train(["good good good", "dog"])
    assert often.encode(["good"], 9).lengths.tolist() == [6]


def test_more_characters_than_tokens_leave_the_most_frequent() -> None:
    tokenizer = WordPiece(7).train(["天 天 天 地 地 人"])
    assert tokenizer.size == 7
    assert tokenizer.encode(["天地人"], 9).text(0).tolist().count(1) == 1


def test_capitals_count_only_when_asked() -> None:
    same, other = Words(30).train(TEXTS), Words(30, lowercase=False).train(TEXTS)
    assert same.encode(["Film"], 9).ids.tolist() == same.encode(["film"], 9).ids.tolist()
    assert other.encode(["Film"], 9).ids.tolist() != other.encode(["film"], 9).ids.tolist()


def test_only_wordpiece_has_token_types() -> None:
    assert "token_type_ids" in WordPiece(60).train(TEXTS).encode(["a"], 9).inputs
    assert Words(30).train(TEXTS).encode(["a"], 9).inputs == ("input_ids", "attention_mask")


@pytest.mark.parametrize("kind", [WordPiece(), Words()])
def test_texts_without_a_word_are_refused(kind: WordPiece | Words) -> None:
    with pytest.raises(ValueError, match=r"There is no word to train .*\(size=.* Check the data's text column"):
        kind.train(["", "  "])


def test_settings_that_can_not_be_are_refused() -> None:
    with pytest.raises(ValueError, match="WordPiece needs a size above its 5 special tokens, got 5"):
        WordPiece(5)
    with pytest.raises(ValueError, match="Words needs a size above its 5 special tokens, got 0"):
        Words(0)
    with pytest.raises(ValueError, match="min_frequency of at least 1, got 0"):
        WordPiece(min_frequency=0)
