"""Texts as examples: what a batch holds, and that batches of similar length are still everybody's batches."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from distill.data import Batches, TextPart, TextSettings, TextSplits
from distill.tokenize import Encoded


class Letters:
    """One token a letter, between 1 and 2; 0 fills up."""

    name, fingerprint, size = "letters", "letters", 128

    def __init__(self, inputs: tuple[str, ...] = ("input_ids", "attention_mask")) -> None:
        self.inputs = inputs

    def encode(self, texts: Sequence[str], max_length: int) -> Encoded:
        whole = [[1, *map(ord, text), 2] for text in texts]
        cut = [ids if len(ids) <= max_length else [*ids[: max_length - 1], 2] for ids in whole]
        truncated = sum(len(ids) > max_length for ids in whole)
        return Encoded.of_lists(cut, truncated=truncated, inputs=self.inputs, padding=0)

    def save(self, folder: Path) -> None: ...


def splits_of(texts: Sequence[str], **settings) -> TextSplits:
    labels = torch.arange(len(texts)) % 2
    part = TextPart(texts, labels)
    return TextSettings(**settings).splits(train=part, validation=part, test=part, classes=("bad", "good"))


def batch_of(splits: TextSplits, *numbers: int):
    return splits.collate([splits.train[(0, number)] for number in numbers])


def test_a_batch_is_padded_to_its_longest_text_and_its_mask_says_where() -> None:
    splits = splits_of(["a", "", "abc"]).encoded({"": Letters()})
    batch = batch_of(splits, 0, 1)
    assert batch.inputs["input_ids"].tolist() == [[1, 97, 2], [1, 2, 0]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.mask is not None and batch.mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.labels.tolist() == [0, 1] and batch.index.tolist() == [0, 1]
    assert set(batch.inputs) == {"input_ids", "attention_mask"}


def test_what_a_model_takes_decides_what_a_batch_holds() -> None:
    splits = splits_of(["ab", "b"]).encoded({"": Letters(("input_ids", "token_type_ids", "attention_mask"))})
    assert batch_of(splits, 0, 1).inputs["token_type_ids"].tolist() == [[0] * 4, [0] * 4]


def test_two_tokenizers_stand_side_by_side_and_no_position_is_common() -> None:
    both = {"student": Letters(), "teacher": Letters(("input_ids", "token_type_ids"))}
    batch = batch_of(splits_of(["ab", "b"]).encoded(both), 0, 1)
    assert batch.mask is None
    assert sorted(batch.inputs) == [
        "student.attention_mask",
        "student.input_ids",
        "teacher.attention_mask",
        "teacher.input_ids",
        "teacher.token_type_ids",
    ]


def test_padding_to_max_length_is_a_setting() -> None:
    splits = splits_of(["a", "b"], padding="max_length", max_length=7).encoded({"": Letters()})
    assert batch_of(splits, 0).inputs["input_ids"].shape == (1, 7)
    assert splits.train.lengths is None


def test_texts_that_are_cut_or_empty_are_counted() -> None:
    splits = splits_of(["a" * 9, " ", "abc"], max_length=5).encoded({"": Letters()})
    assert batch_of(splits, 0).inputs["input_ids"].tolist() == [[1, 97, 97, 97, 2]]
    assert splits.notes[0] == "1 of 3 texts of the train split are empty."
    assert "1 of 3 training texts have more than max_length=5 tokens, and are cut there." in splits.notes


def test_a_label_is_missing_in_training_only() -> None:
    texts, labels = ["a", "b", "c"], torch.tensor([0, 1, -1])
    part, whole = TextPart(texts, labels), TextPart(texts[:2], labels[:2])
    splits = TextSettings().splits(train=part, validation=whole, test=whole, classes=("bad", "good"))
    assert "1 of 3 training texts have no label; only terms without labels learn from them." in splits.notes
    with pytest.raises(ValueError, match="validation split has labels from -1 to 1"):
        TextSettings().splits(train=whole, validation=part, test=whole, classes=("bad", "good"))


@pytest.mark.parametrize(
    ("settings", "message"), [({"max_length": 2}, "at least 3"), ({"padding": "none"}, "'buckets'")]
)
def test_settings_without_meaning_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        TextSettings(**settings)


def keys_of(batches: Batches) -> list[list[int]]:
    return [[index for _, index in keys] for keys in batches]


def test_buckets_hold_each_example_once_and_texts_of_similar_length() -> None:
    lengths = torch.randint(3, 100, (1003,), generator=torch.Generator().manual_seed(0))
    batches = Batches(1003, batch_size=8, lengths=lengths)
    keys = keys_of(batches)
    assert sorted(index for batch in keys for index in batch) == list(range(1003))
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in keys)
    by_chance = sum(len(batch) * int(lengths[batch].max()) for batch in keys_of(Batches(1003, batch_size=8)))
    assert padded < 1.06 * int(lengths.sum()) < 0.7 * by_chance
    first = [int(lengths[batch].max()) for batch in keys]
    assert first != sorted(first)  # short and long batches take turns
    batches.set_epoch(1)
    assert keys_of(batches) != keys
    batches.set_epoch(0, start_step=3)
    assert keys_of(batches) == keys[3:]


def test_buckets_are_the_same_batches_for_every_number_of_processes() -> None:
    lengths = torch.randint(3, 100, (101,), generator=torch.Generator().manual_seed(0))
    whole = keys_of(Batches(101, batch_size=8, lengths=lengths))
    pairs = [keys_of(Batches(101, batch_size=8, lengths=lengths, rank=rank, processes=2)) for rank in (0, 1)]
    assert [one + other for one, other in zip(*pairs, strict=True)] == whole


def test_evaluation_deals_long_texts_to_all_processes() -> None:
    lengths = torch.tensor([9, 1, 8, 2, 7, 3, 6])
    first, second = (
        keys_of(Batches(7, batch_size=7, shuffle=False, lengths=lengths, rank=rank, processes=2)) for rank in (0, 1)
    )
    assert first == [[1, 5, 4, 0]] and second == [[3, 6, 2]]  # lengths 1, 3, 7, 9 and 2, 6, 8
