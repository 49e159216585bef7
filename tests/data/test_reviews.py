import random
import re
from pathlib import Path

import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from distill.data import review_grammar
from distill.data.review_grammar import Grammar
from distill.data.reviews import Reviews, write_reviews
from distill.data.sst2 import read_sst2


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return Reviews(folder=str(tmp_path_factory.mktemp("reviews"))).load(0, None)


def words(examples):
    return {word for text in examples.texts for word in text.split()}


def test_the_splits_are_as_large_as_asked_for_and_half_positive(splits):
    for examples, size in ((splits.train, 4000), (splits.validation, 1000), (splits.test, 2000)):
        assert torch.bincount(examples.labels).tolist() == [size // 2, size // 2]
    assert splits.classes == ("negative", "positive")


def test_no_sentence_stands_in_two_splits_or_twice_in_one(splits):
    texts = [*splits.train.texts, *splits.validation.texts, *splits.test.texts]
    assert len(set(texts)) == len(texts) == 7000
    assert splits.notes == ()


def test_every_word_is_one_of_some_hundred_that_training_shows(splits):
    known = words(splits.train)
    assert 200 < len(known) < 1000
    assert words(splits.validation) | words(splits.test) <= known


def test_counting_words_gets_about_four_in_five_right(splits):
    vectors = CountVectorizer(token_pattern=r"\S+")
    model = LogisticRegression(max_iter=1000).fit(
        vectors.fit_transform(splits.train.texts), splits.train.labels.numpy()
    )
    assert 0.73 < model.score(vectors.transform(splits.test.texts), splits.test.labels.numpy()) < 0.87


def reading(text):
    """1 or 0 by the rules that the grammar promises, read from the outside in."""
    text = text.split(" : ")[-1]
    if " , but " in text:
        return reading(text.split(" , but ")[1])
    for aside in ("although ", "even though ", "though "):
        if text.startswith(aside):
            return reading(text.split(" , ")[1])
    for denial in ("nobody would say that ", "i cannot agree that ", "it is not true that "):
        if text.startswith(denial):
            return 1 - reading(text.removeprefix(denial))
    clauses = text.split(" and ")
    if len({clause_reading(clause) for clause in clauses}) == 2:
        clauses = [clause for clause in clauses if not re.search("slightly|a little|somewhat|a bit", clause)]
        assert len(clauses) == 1
    return clause_reading(clauses[0])


def clause_reading(clause):
    good = review_grammar._GOOD + review_grammar._LOVED + review_grammar._LOVE
    good += tuple(word for thing in review_grammar._THINGS.values() for word in thing[1])
    denied = re.search(r"\b(not|never|hardly|far from)\b", clause) is not None
    return int(bool({*clause.split()} & {*good}) != denied)


def test_every_sentence_has_the_label_that_the_rules_read_from_it(splits):
    for examples in (splits.train, splits.validation, splits.test):
        assert [reading(text) for text in examples.texts] == examples.labels.tolist()


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("the plot was not good", 0),
        ("the plot was far from weak", 1),
        ("the plot was weak , but the acting was superb", 1),
        ("the acting was superb , but the plot was weak", 0),
        ("although the plot was weak , the acting was superb", 1),
        ("nobody would say that the plot was weak", 1),
        ("the plot was slightly weak and the acting was extremely superb", 1),
        ("i saw this film after work : we could not enjoy the plot", 0),
    ],
)
def test_the_rules_are_those_of_english(text, label):
    assert reading(text) == label


def test_no_sentence_is_drawn_with_both_labels():
    grammar = Grammar(random.Random(1))
    positive, negative = ({grammar.review(label) for _ in range(10_000)} for label in (True, False))
    assert positive.isdisjoint(negative)


def test_the_files_have_the_form_of_sst2(tmp_path):
    splits = Reviews(folder=str(tmp_path), train=20, validation=4, test=6).load(0, None)
    (place,) = tmp_path.iterdir()
    assert sorted(path.name for path in place.iterdir()) == ["dev.tsv", "test.tsv", "train.tsv"]
    lines = (place / "train.tsv").read_text().split("\n")
    assert lines[0] == "sentence\tlabel"
    assert len(lines) == 21
    assert read_sst2(place / "dev.tsv").texts == splits.validation.texts


def test_the_split_seed_draws_the_sentences_and_the_run_s_seed_does_not(tmp_path):
    small = {"folder": str(tmp_path), "train": 20, "validation": 4, "test": 6}
    first, again = (Reviews(**small).load(seed, None) for seed in (0, 1))
    other = Reviews(**small, split_seed=1).load(0, None)
    assert first.train.texts == again.train.texts
    assert set(first.train.texts).isdisjoint(other.train.texts)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_sentences_are_the_same_on_every_machine():
    # Recorded under Python 3.11; other versions draw the same.
    lines = write_reviews(train=2, validation=2, test=2, seed=0)["train.tsv"].split("\n")
    assert lines[1:] == ["the acting was incredibly gripping\t1", "my friends regretted the setting\t0"]


def test_files_are_written_once_and_mended_where_they_were_changed(tmp_path):
    settings = Reviews(folder=str(tmp_path), train=20, validation=4, test=6)
    settings.load(0, None)
    path = next(tmp_path.glob("*/train.tsv"))
    content, written = path.read_bytes(), path.stat().st_mtime_ns
    settings.load(0, None)
    assert path.stat().st_mtime_ns == written
    path.write_bytes(content[:50])
    assert len(settings.load(0, None).train) == 20
    assert path.read_bytes() == content


def test_a_relative_folder_is_below_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Reviews(train=20, validation=4, test=6).load(0, None)
    assert [path.name for path in Path("data/reviews").glob("*/train.tsv")] == ["train.tsv"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"Cannot write reviews to .*file/\w+: .* Set data\.folder to another folder"):
        Reviews(folder=str(tmp_path / "file"), train=20, validation=4, test=6).load(0, None)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"train": 1}, r"Reviews\.train is a number of sentences of at least 2, got 1"),
        ({"test": 0}, r"Reviews\.test is a number of sentences of at least 2, got 0"),
        ({"train": 1_000_000}, r"Reviews draws up to 100,000 different sentences, got 1,003,000"),
    ],
)
def test_sizes_that_cannot_be_drawn_are_refused(settings, line):
    with pytest.raises(ValueError, match=line):
        Reviews(**settings)
