"""Texts that stay in their files: what is read, how it is cut and hidden, and what is refused by file and line."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill.data import Batches, Corpus, MaskedTexts, TextSplits
from distill.data import lines as lines_file
from distill.data.lines import index_lines, text_of
from distill.data.masked_texts import window
from distill.data.mix import Mix
from tests.data.test_texts import Letters

Write = Callable[[str, bytes], Path]


class Masking(Letters):
    """Letters that can be hidden by token 3."""

    mask: int | None = 3
    special = frozenset({0, 1, 2, 3})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def letters(number: int) -> str:
    return "".join(chr(97 + (number + place) % 26) for place in range(3 + number % 7))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "some.txt").write_text("\n".join(letters(number) for number in range(40)))
    return tmp_path


def corpus(folder: Path, **settings: Any) -> Corpus:
    return Corpus(str(folder), **{"train": "some.txt", "validation": 5, "test": 6, "max_length": 8, **settings})


def loaded(folder: Path, seed: int = 0, **settings: Any) -> TextSplits:
    return corpus(folder, **settings).load(seed, None).encoded({"": Masking()})


# Lines


def test_lines_are_read_where_they_lie_and_empty_ones_are_counted(write: Write) -> None:
    first = write("a.txt", b"\xef\xbb\xbfone \r\n\n  \nzwei \xc3\xa4\n")
    second = write("b.txt", "三\n\nlast without end".encode())
    found, empty = index_lines([first, second], None)
    assert list(found) == ["one", "zwei ä", "三", "last without end"] and empty == 3
    assert found.size.tolist() == [6, 8, 4, 16]
    assert list(found[1:3]) == list(found.rows(torch.tensor([1, 2]))) == ["zwei ä", "三"]


def test_json_lines_give_their_field(write: Write) -> None:
    rows = [{"text": "a\nb", "id": 1}, {"title": "x", "text": " \u00e4 "}, {"text": ""}]
    path = write("a.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert list(index_lines([path], "text")[0]) == ["a\nb", "ä", ""]


def test_a_file_is_gone_through_once_and_again_when_it_was_changed(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a.txt", b"one\ntwo\n")
    index_lines([path], None)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *_: pytest.fail("opened again"))
        assert len(index_lines([path], None)[0]) == 2
    assert len(index_lines([write("a.txt", b"one\ntwo\nthree\n")], None)[0]) == 3


def test_lines_can_be_given_to_other_processes_and_hold_no_text(write: Write) -> None:
    found, _ = index_lines([write("a.txt", b"needle\n" * 20)], None)
    packed = pickle.dumps(found)
    assert b"needle" not in packed
    assert list(pickle.loads(packed)) == ["needle"] * 20


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        (b"a\xff", None, "byte 2: 0xff is not utf-8"),
        (b'{"text": "a"', "text", "no JSON"),
        (b"[" * 100_000, "text", "no JSON"),
        (b'["a"]', "text", "JSON of list, not of an object with a field 'text'"),
        (b'{"texts": "a"}', "text", "no field 'text'. Nearest: texts"),
        (b'{"text": 3}', "text", "field 'text' holds int, not text"),
        (b'{"text": "a\\ud800"}', "text", "field 'text' has half a character"),
        (b"a" * 1_000_001, None, "its text: 1,000,001 characters are more than the 1,000,000"),
    ],
)
def test_a_damaged_line_is_named_before_training(line: bytes, field: str | None, message: str, write: Write) -> None:
    good = b'{"text": "a"}\n' if field else b"a\n"
    path = write("a.txt", good + b"\n" + line + b"\n")
    with pytest.raises(ValueError) as caught:
        index_lines([path], field)
    assert str(caught.value).startswith(f"{path}, line 3: ") and message in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_damaged_line_far_behind_is_named_when_its_turn_comes(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_file, "_CHECKED", 2)
    path = write("far.jsonl", b'{"text": "a"}\n\n{"text": "b"}\n{"text"}\n')
    found, _ = index_lines([path], "text")
    assert found[1] == "b"
    with pytest.raises(ValueError, match=r"far\.jsonl, line 4: no JSON"):
        found[2]


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_file, "_MOST_BYTES", 10)
    with pytest.raises(ValueError, match=r"line 2: more than 10 bytes"):
        index_lines([write("long.txt", b"a\n" + b"b" * 11)], None)


def test_white_space_around_a_text_is_no_part_of_it() -> None:
    assert text_of(b"  a b \r\n", None) == "a b"


# Windows


def ids(length: int) -> Tensor:
    return torch.tensor([1, *range(10, 8 + length), 2])


def draw(epoch: int, length: int = 6, whole: int = 20, **key: int) -> list[int]:
    return window(ids(whole), length, ends=(1, 1), **{"seed": 0, "epoch": epoch, "index": 0, **key}).tolist()


def test_a_window_has_tokens_in_a_row_between_both_ends() -> None:
    for epoch in range(50):
        first, *inner, last = draw(epoch)
        assert (first, last, len(inner)) == (1, 2, 4)
        assert inner == list(range(inner[0], inner[0] + 4))
        assert inner[0] >= 10 and inner[-1] <= 27


def test_over_the_epochs_all_of_a_text_is_seen_every_place_alike() -> None:
    starts = torch.tensor([draw(epoch)[1] for epoch in range(1500)])
    counts = torch.bincount(starts - 10)
    assert len(counts) == 15  # 18 tokens inside, 4 at a time
    assert (counts - 100).abs().max() < 49  # 5 deviations of a binomial of 1500 draws at 1/15, 9.7


def test_a_window_hangs_on_its_key_alone_and_a_short_text_is_whole() -> None:
    assert draw(3) == draw(3)
    assert (
        len(
            {
                tuple(draw(**{"epoch": 0, "whole": 500, **change}))
                for change in ({}, {"seed": 1}, {"epoch": 1}, {"index": 1})
            }
        )
        == 4
    )
    assert draw(0, length=20) == ids(20).tolist()


# Splits


def test_every_text_is_in_one_split_and_the_run_does_not_draw_which(folder: Path) -> None:
    one, other = loaded(folder), loaded(folder, seed=5)
    parts = [list(part.texts) for part in (one.train, one.validation, one.test)]
    assert [len(part) for part in parts] == [29, 5, 6]
    assert sorted(text for part in parts for text in part) == sorted(letters(number) for number in range(40))
    assert [list(part.texts) for part in (other.train, other.validation, other.test)] == parts
    assert list(loaded(folder, split_seed=1).test.texts) != parts[2]
    assert one.masked and one.classes == ()


def test_hidden_tokens_are_new_in_each_epoch_of_training_and_fixed_where_it_is_judged(folder: Path) -> None:
    splits, other = loaded(folder, mask_share=0.4), loaded(folder, seed=1, mask_share=0.4)

    def shown(part: Any, epoch: int) -> list[list[int]]:
        return [part[(epoch, number)].tokens[""].tolist() for number in range(len(part))]

    assert shown(splits.train, 0) != shown(splits.train, 1)
    assert shown(splits.train, 0) == shown(splits.train, 0) != shown(other.train, 0)
    for ours, theirs in ((splits.validation, other.validation), (splits.test, other.test)):
        assert shown(ours, 0) == shown(ours, 1) == shown(theirs, 2)


def test_what_is_shown_and_the_labels_give_the_text_back(folder: Path) -> None:
    splits = loaded(folder, max_length=30)
    for number, text in enumerate(splits.train.texts):
        example = splits.train[(2, number)]
        whole = example.tokens[""].where(example.label == -100, example.label)
        assert whole.tolist() == [1, *map(ord, text), 2]
        assert (example.label != -100).sum() == max(1, round(0.15 * len(text)))


def test_a_batch_has_a_label_for_each_token_and_none_for_padding(folder: Path) -> None:
    splits = loaded(folder)
    batch = splits.collate([splits.train[(0, number)] for number in range(8)])
    assert not isinstance(batch.inputs, Tensor) and batch.mask is not None
    assert batch.labels.shape == batch.inputs["input_ids"].shape == batch.mask.shape
    assert not batch.mask.all() and batch.labels[~batch.mask].eq(-100).all()
    assert (batch.labels != -100).any(1).all()
    assert splits.longest([splits.train[(0, 0)]]).labels.shape == (1, 8)


def test_texts_come_together_by_their_bytes(folder: Path) -> None:
    (folder / "some.txt").write_text("".join("a" * (4 * number + 3) + "\n" for number in range(30)))
    splits = loaded(folder, max_length=20)
    lengths = splits.train.lengths
    assert lengths is not None and lengths.tolist() == [
        min(max((len(text) + 1) // 4, 1), 20) for text in splits.train.texts
    ]
    assert loaded(folder, padding="longest").train.lengths is None
    whole = list(Batches(len(splits.train), batch_size=5, lengths=lengths))
    shares = [Batches(len(splits.train), batch_size=5, lengths=lengths, rank=rank, processes=2) for rank in (0, 1)]
    assert [one + other for one, other in zip(*shares, strict=True)] == whole


def test_special_tokens_stay_at_both_ends_of_a_long_text(folder: Path) -> None:
    (folder / "some.txt").write_text("\n".join("abcdefghijklmnop" for _ in range(20)))
    splits = loaded(folder, max_length=6)
    for epoch in range(5):
        tokens = splits.train[(epoch, 0)].tokens[""]
        assert (len(tokens), int(tokens[0]), int(tokens[-1])) == (6, 1, 2)


# What is refused


def test_files_by_a_pattern_come_in_the_order_of_their_names(folder: Path) -> None:
    (folder / "more.txt").write_text("zzz\n\n" * 3)
    splits = loaded(folder, train="*.txt")
    assert len(splits.train) == 32
    assert "3 empty lines are passed over." in splits.notes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "../some.txt"}, r"a file or a pattern in its folder, got '\.\./some\.txt'"),
        ({"train": "/etc/some.txt"}, "a file or a pattern in its folder"),
        ({"train": ""}, "a file or a pattern in its folder"),
        ({"train": "some.csv"}, r"ends in \.txt .* or \.jsonl .* got 'some\.csv'"),
        ({"mask_share": 0.0}, "mask_share is a share of the tokens between 0 and 1, got 0.0"),
        ({"train": "other.txt"}, r"fits Corpus\.train='other\.txt'\. It holds some\.txt"),
        ({"validation": 0}, r"Corpus\.validation cuts 0 of 34 examples"),
        ({"test": 40}, r"Corpus\.test cuts 40 of 40 examples"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        corpus(folder, **settings).load(0, None)


def test_a_file_that_leads_out_of_the_folder_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.txt"
    outside.write_text("secret\n" * 20)
    (folder / "link.txt").symlink_to(outside)
    with pytest.raises(ValueError, match="leads out of its data folder"):
        corpus(folder, train="*.txt").load(0, None)


def test_an_empty_file_is_refused(folder: Path) -> None:
    (folder / "none.txt").write_text("\n\n \n")
    with pytest.raises(ValueError, match=r"none\.txt has no texts: all of its lines are empty"):
        corpus(folder, train="none.txt").load(0, None)


def test_mixing_is_of_images(folder: Path) -> None:
    with pytest.raises(ValueError, match="mix blends images, and Corpus gives texts"):
        corpus(folder).load(0, Mix(mixup=0.5))


def test_a_tokenizer_that_can_not_hide_a_token_is_named(folder: Path) -> None:
    tokenizer = Masking()
    tokenizer.mask = None
    with pytest.raises(ValueError, match="The tokenizer letters has no mask"):
        corpus(folder).load(0, None).encoded({"": tokenizer})


def test_two_tokenizers_are_refused(folder: Path) -> None:
    splits = corpus(folder).load(0, None)
    assert isinstance(splits.train, MaskedTexts)
    with pytest.raises(ValueError, match=r"two tokenizers \(letters and letters\)"):
        splits.encoded({"student": Masking(), "teacher": Masking()})
