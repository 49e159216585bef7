"""A pretrained model's own tokenizer cuts texts exactly as transformers does, and says when it is not there."""

import json
from pathlib import Path

import huggingface_hub.constants
import pytest

from distill.tokenize import Encoded, load_tokenizer
from tests.tiny_bert import pretrained, transformers

SENTENCES = [
    "A stirring, funny and finally transporting re-imagining of Beauty and the Beast.",
    "It's a charming and often affecting journey.",
    "unflinchingly bleak and desperate",
    "Allows us to hope that Nolan is poised to embark on a major career.",
    "The acting, costumes, music, cinematography and sound are all astounding given the production's austere locales.",
    "it's slow -- very, very slow.",
    "Ein Film für 3,50 €!",
    "这部电影 is really great。真的。",
    "Loved it 😀👍🏽",
    "",
]
LONG = "well " * 10_000


def lists(encoded: Encoded) -> list[list[int]]:
    return [encoded.text(number).tolist() for number in range(len(encoded))]


@pytest.mark.parametrize("max_length", [3, 8, 512])
def test_real_sentences_get_the_tokens_that_transformers_gives_them(max_length: int) -> None:
    own, theirs = load_tokenizer(str(pretrained())), transformers.AutoTokenizer.from_pretrained(pretrained())
    texts = [*SENTENCES, LONG]
    encoded = own.encode(texts, max_length)
    assert lists(encoded) == theirs(texts, truncation=True, max_length=max_length)["input_ids"]
    whole = theirs.backend_tokenizer
    whole.no_truncation()
    assert encoded.truncated == sum(len(whole.encode(text)) > max_length for text in texts)
    assert encoded.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert encoded.padding == theirs.pad_token_id


def test_a_text_as_long_as_allowed_is_whole_and_a_token_more_is_cut() -> None:
    tokenizer = load_tokenizer(str(pretrained()))
    assert tokenizer.encode(["one two", "one two three"], 4).truncated == 1
    assert tokenizer.encode(["one two", "one two three"], 4).lengths.tolist() == [4, 4]


def test_more_texts_than_are_cut_at_once_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(str(pretrained()))
    whole = tokenizer.encode(SENTENCES, 8)
    monkeypatch.setattr("distill.tokenize.load._TEXTS_AT_ONCE", 3)
    parts = tokenizer.encode(SENTENCES, 8)
    assert (lists(parts), parts.truncated) == (lists(whole), whole.truncated)


def test_no_texts_are_no_tokens() -> None:
    encoded = load_tokenizer(str(pretrained())).encode([], 8)
    assert (len(encoded), encoded.ids.tolist(), encoded.truncated) == (0, [], 0)


def test_its_size_mask_and_special_tokens_are_those_of_its_files() -> None:
    tokenizer = load_tokenizer(str(pretrained()))
    assert (tokenizer.size, tokenizer.mask) == (30522, 103)
    assert tokenizer.special == {0, 100, 101, 102, 103}


def test_saved_and_loaded_it_is_the_same_and_encoding_leaves_no_trace(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(pretrained()))
    tokenizer.encode(SENTENCES, 5)
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.fingerprint == tokenizer.fingerprint
    assert lists(loaded.encode(SENTENCES, 64)) == lists(tokenizer.encode(SENTENCES, 64))
    assert json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["truncation"] != {"max_length": 5}


def test_too_few_tokens_for_a_text_are_refused() -> None:
    with pytest.raises(ValueError, match=r"max_length 2 leaves no room .* adds 2 special tokens. Give at least 3"):
        load_tokenizer(str(pretrained())).encode(["a"], 2)


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(ValueError, match=r"There is no folder \./nowhere for the tokenizer of \./nowhere"):
        load_tokenizer("./nowhere")


def test_a_hub_that_can_not_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"no folder nobody/nothing, and the hub can't be reached") as caught:
        load_tokenizer("nobody/nothing")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "can't be loaded: .*Give a folder with a tokenizer.json"),
        ({"config.json": '{"model_type": "bert"}'}, "has no vocabulary: its files are missing"),
        ({"tokenizer.json": "{", "config.json": '{"model_type": "bert"}'}, "can't be loaded: "),
    ],
)
def test_a_folder_without_a_whole_tokenizer_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_code_in_a_folder_is_not_run(tmp_path: Path) -> None:
    code = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(code))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match=r"can't be loaded|no vocabulary"):
        load_tokenizer(str(tmp_path))
    assert not (tmp_path / "ran").exists()
