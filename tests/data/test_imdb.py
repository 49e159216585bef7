import pytest
import torch

from distill.data.imdb import Imdb, clean
from distill.data.texts import UNKNOWN


@pytest.fixture
def imdb(tmp_path):
    """aclImdb with 10 reviews of each kind to train on and 3 to test, and 5 that nobody labelled."""
    for folder, count in (("train/neg", 10), ("train/pos", 10), ("test/neg", 3), ("test/pos", 3), ("train/unsup", 5)):
        place = tmp_path / "aclImdb" / folder
        place.mkdir(parents=True)
        for number in range(count):
            rating = {"neg": number % 4 + 1, "pos": number % 4 + 7, "unsup": 0}[place.name]
            (place / f"{number}_{rating}.txt").write_text(f"{folder} review {number}", encoding="utf-8")
    return tmp_path


def test_reviews_get_the_label_of_their_folder(imdb):
    splits = Imdb(folder=str(imdb), validation=0.2).load(0, None)
    assert splits.classes == ("negative", "positive")
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [16, 4, 6]
    for split in (splits.train, splits.validation, splits.test):
        for text, label in zip(split.texts, split.labels.tolist(), strict=True):
            assert text.split()[0].endswith(("/neg", "/pos")[label])
    assert torch.bincount(splits.validation.labels).tolist() == [2, 2]
    # By id: the order of names would put 10 before 2.
    (imdb / "aclImdb/test/neg/10_1.txt").write_text("the last")
    assert Imdb(folder=str(imdb)).load(0, None).test.texts[3] == "the last"


def test_the_folder_itself_does_as_well(imdb):
    outer, inner = (Imdb(folder=str(folder)).load(0, None) for folder in (imdb, imdb / "aclImdb"))
    assert outer.train.texts == inner.train.texts


def test_breaks_become_blanks(imdb):
    assert clean("Bad.<br /><br />Really <BR> bad.<br/>") == "Bad. Really bad."
    assert clean("a < b and <brave> hearts") == "a < b and <brave> hearts"
    (imdb / "aclImdb/test/neg/0_1.txt").write_text("It was<br /><br />dull .\n")
    assert Imdb(folder=str(imdb)).load(0, None).test.texts[0] == "It was dull ."


def test_reviews_without_labels_are_trained_on_if_asked_for(imdb):
    without, with_them = (Imdb(folder=str(imdb), unlabelled=one).load(0, None) for one in (False, True))
    assert UNKNOWN not in without.train.labels
    assert with_them.train.labels.tolist() == [*without.train.labels.tolist(), *[UNKNOWN] * 5]
    assert with_them.train.texts[-5:] == [f"train/unsup review {number}" for number in range(5)]


def test_reviews_in_both_halves_are_counted(imdb):
    (imdb / "aclImdb/test/pos/0_7.txt").write_text("train/unsup<br />review 3")
    splits = Imdb(folder=str(imdb), unlabelled=True).load(0, None)
    assert splits.notes[0] == "1 test text stands in the training split too."


@pytest.mark.parametrize(
    "text", ["", "😀 " * 3, "电影 was 很好", "word " * 10_000], ids=["empty", "emoji", "Chinese", "long"]
)
def test_any_text_is_read(imdb, text):
    (imdb / "aclImdb/test/neg/0_1.txt").write_text(text, encoding="utf-8")
    assert Imdb(folder=str(imdb)).load(0, None).test.texts[0] == text.strip()


def test_a_review_that_is_no_utf_8_is_named(imdb):
    (imdb / "aclImdb/train/pos/3_10.txt").write_bytes(b"First line\nso caf\xe9 it is")
    with pytest.raises(
        ValueError, match=r"train/pos/3_10\.txt, line 2, byte 7: 0xe9 is not utf-8-sig\. Save it as UTF-8"
    ):
        Imdb(folder=str(imdb)).load(0, None)


def test_other_files_are_named_and_hidden_ones_passed_over(imdb):
    (imdb / "aclImdb/train/pos/.DS_Store").write_bytes(b"\0")
    Imdb(folder=str(imdb)).load(0, None)
    (imdb / "aclImdb/train/pos/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"pos/notes\.txt is no review: expected files ID_RATING\.txt"):
        Imdb(folder=str(imdb)).load(0, None)


def test_missing_and_empty_folders_are_named(imdb):
    for path in (imdb / "aclImdb/test/pos").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="test/pos has no reviews"):
        Imdb(folder=str(imdb)).load(0, None)
    (imdb / "aclImdb/test/pos").rmdir()
    with pytest.raises(ValueError, match="has no folder 'test/pos'"):
        Imdb(folder=str(imdb)).load(0, None)


def test_a_link_out_of_the_folder_is_refused(imdb):
    (imdb / "secret.txt").write_text("secret")
    (imdb / "aclImdb/test/pos/99_9.txt").symlink_to(imdb / "secret.txt")
    with pytest.raises(ValueError, match="leads out of its data folder"):
        Imdb(folder=str(imdb)).load(0, None)


def test_a_share_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"Imdb\.validation is a share"):
        Imdb(validation=0.0)
