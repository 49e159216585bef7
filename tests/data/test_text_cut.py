import pytest
import torch

from distill.data.text_cut import class_names, cut_share, cut_splits, duplicates, numbered, with_unlabelled
from distill.data.texts import UNKNOWN, TextPart


def part(texts, labels=None):
    return TextPart(list(texts), torch.tensor(labels if labels is not None else [0] * len(texts), dtype=torch.int64))


def numbered_part(count, num_classes=2):
    return part([f"text {number}" for number in range(count)], [number % num_classes for number in range(count)])


def test_a_share_keeps_each_text_with_its_label_and_loses_none():
    whole = part(
        [f"{'good' if number % 4 else 'bad'} {number}" for number in range(80)], [int(n % 4 > 0) for n in range(80)]
    )
    kept, taken = cut_share(whole, 20, seed=0, name="test")
    assert sorted([*kept.texts, *taken.texts]) == sorted(whole.texts)
    # A quarter is bad: 5 of the 20 that are cut out, and 15 of the 60 that stay.
    assert torch.bincount(taken.labels).tolist() == [5, 15]
    assert torch.bincount(kept.labels).tolist() == [15, 45]
    for cut in (kept, taken):
        assert all(
            text.startswith("good" if label else "bad") for text, label in zip(cut.texts, cut.labels, strict=True)
        )


def test_the_seed_draws_what_is_cut_out():
    whole = numbered_part(100)
    first, again, other = (cut_share(whole, 10, seed=seed, name="test")[1].texts for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_shares_are_of_all_texts_and_disjoint():
    train, validation, test = cut_splits(numbered_part(100), 0.2, 0.3, seed=0, name="T")
    assert [len(split.texts) for split in (train, validation, test)] == [50, 20, 30]
    assert len({*train.texts, *validation.texts, *test.texts}) == 100


def test_a_split_with_texts_of_its_own_stays_as_it_is():
    own = part(["mine"], [1])
    train, validation, test = cut_splits(numbered_part(100), 0.2, own, seed=0, name="T")
    assert test is own
    assert [len(train.texts), len(validation.texts)] == [80, 20]
    assert cut_splits(numbered_part(10), own, own, seed=0, name="T")[0].texts == numbered_part(10).texts


def test_texts_in_two_splits_are_counted_after_white_space_is_evened_out():
    train = part(["a  good film", "fine", "fine", ""])
    validation = part(["a good\nfilm ", "new"])
    test = part(["fine", "fine", "new", "", "A good film"])
    assert duplicates(train, validation, test) == (
        "1 validation text stands in the training split too.",
        "2 test texts stand in the training split too.",
        "1 test text stands in the validation split too.",
    )
    assert duplicates(part(["a"]), part(["b"]), part(["c"])) == ()


def test_labels_become_the_numbers_of_the_declared_values():
    found = numbered(["a", "b", "c"], ["yes", "no", "yes"], ("no", "yes"), lambda place: f"line {place}")
    assert found.labels.tolist() == [1, 0, 1]
    assert found.labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("label", "line"),
    [
        ("maybe", "file, line 2: the label 'maybe' was never declared. Labels are no, yes."),
        ("", "file, line 2: there is no label. Labels are no, yes."),
        ("y" * 100, f"file, line 2: the label '{'y' * 40}...' was never declared. Labels are no, yes."),
    ],
)
def test_a_label_that_was_never_declared_is_named_with_its_place(label, line):
    with pytest.raises(ValueError, match=r"^file, line 2: ") as error:
        numbered(["a", "b"], ["no", label], ("no", "yes"), lambda place: f"file, line {place + 1}")
    assert str(error.value) == line


def test_classes_are_sorted_and_numbers_by_their_value():
    assert class_names(["b", "a", "b"], "f") == ("a", "b")
    assert class_names(["10", "9", "0"], "f") == ("0", "9", "10")
    assert class_names(["10", "9", "-1"], "f") == ("-1", "10", "9")


def test_what_cannot_be_classes_is_refused():
    with pytest.raises(ValueError, match="f has one label only, '1'"):
        class_names(["1", "1"], "f")
    with pytest.raises(ValueError, match=r"f has 1,001 distinct labels, such as '0'\. Is it the right column\?"):
        class_names([str(number) for number in range(1001)], "f")


def test_texts_without_labels_come_after_the_others():
    found = with_unlabelled(part(["a"], [1]), ["b", "c"])
    assert found.texts == ["a", "b", "c"]
    assert found.labels.tolist() == [1, UNKNOWN, UNKNOWN]
