import os
import time
from pathlib import Path

import pytest
import torch

from distill.data import Mix
from distill.data.sst2 import Sst2, read_sst2

REAL = Path(os.environ.get("DISTILL_DATA", "../shared/data")) / "sst2"
needs_sst2 = pytest.mark.skipif(
    not (REAL / "train.tsv").is_file(), reason="needs SST-2 in DISTILL_DATA or ../shared/data"
)

LINES = ["a fine film\t1", "a dull film\t0"]


@pytest.fixture
def sst2(tmp_path):
    """Three files below a header, the last line of each without a line end, as the set is handed out."""
    write(tmp_path / "train.tsv", [f"train {number}\t{number % 2}" for number in range(20)])
    write(tmp_path / "dev.tsv", [f"dev {number}\t{number % 2}" for number in range(6)])
    write(tmp_path / "test.tsv", [f"test {number}\t{number % 2}" for number in range(4)])
    return tmp_path


def write(path, lines, header="sentence\tlabel"):
    path.write_text("\n".join(([header] if header else []) + lines), encoding="utf-8")
    return path


def sizes(splits):
    return [len(split) for split in (splits.train, splits.validation, splits.test)]


@needs_sst2
def test_the_real_set_is_read_whole():
    splits = Sst2(folder=str(REAL.resolve())).load(0, None)
    assert sizes(splits) == [6920, 872, 1821]
    assert splits.classes == ("negative", "positive")
    assert torch.bincount(splits.validation.labels).tolist() == [428, 444]
    assert splits.train.texts[0] == (
        "a stirring , funny and finally transporting re imagining of beauty and the beast and 1930s horror films"
    )
    assert splits.train.labels[:2].tolist() == [1, 0]
    assert splits.notes == ("2 test texts stand in the training split too.",)


def test_dev_is_the_validation_split(sst2):
    splits = Sst2(folder=str(sst2)).load(0, None)
    assert sizes(splits) == [20, 6, 4]
    assert splits.validation.texts == [f"dev {number}" for number in range(6)]
    assert splits.test.labels.tolist() == [0, 1, 0, 1]
    assert splits.notes == ()


def test_files_without_a_header_hold_the_same(sst2, tmp_path):
    expected = Sst2(folder=str(sst2)).load(0, None)
    for name in ("train", "dev", "test"):
        path = sst2 / f"{name}.tsv"
        path.write_text(path.read_text().removeprefix("sentence\tlabel\n"))
    splits = Sst2(folder=str(sst2)).load(0, None)
    for ours, theirs in ((splits.train, expected.train), (splits.test, expected.test)):
        assert ours.texts == theirs.texts
        assert torch.equal(ours.labels, theirs.labels)


def test_a_test_file_without_labels_makes_dev_the_test_split(sst2):
    write(sst2 / "test.tsv", ["0\twho knows", "1\tnobody"], header="index\tsentence")
    splits = Sst2(folder=str(sst2), validation=0.2).load(0, None)
    assert sizes(splits) == [16, 4, 6]
    assert splits.test.texts == [f"dev {number}" for number in range(6)]
    assert torch.bincount(splits.validation.labels).tolist() == [2, 2]
    assert splits.notes == ("test.tsv has no labels: dev is the test split, 4 texts of train are validation.",)
    assert len(Sst2(folder=str(sst2)).load(0, None).validation) == 2


def test_a_share_that_would_not_be_used_is_refused(sst2):
    with pytest.raises(ValueError, match=r"Sst2\.validation=0\.2 has no effect: test\.tsv has labels"):
        Sst2(folder=str(sst2), validation=0.2).load(0, None)
    with pytest.raises(ValueError, match=r"Sst2\.validation is a share .* got 1\.5"):
        Sst2(folder=str(sst2), validation=1.5)


@pytest.mark.parametrize(
    "text",
    [
        'an open " quotation mark',
        '"in quotation marks"',
        "two \u2028 lines \x85 to Unicode, one \x0c here",
        "🎬 loved it 👍🏽",
        "剧情 is 很好 , really",
        "word " * 10_000 + "end",
    ],
    ids=["open quote", "quoted", "line separators", "emoji", "Chinese", "10,000 words"],
)
def test_a_sentence_is_kept_as_it_is(tmp_path, text):
    part = read_sst2(write(tmp_path / "train.tsv", [f"{text}\t1", *LINES]))
    assert part.texts == [text, "a fine film", "a dull film"]
    assert part.labels.tolist() == [1, 1, 0]


def test_an_empty_sentence_is_read_and_counted(sst2):
    write(sst2 / "test.tsv", ["\t1", *LINES])
    splits = Sst2(folder=str(sst2)).load(0, None)
    assert splits.test.texts[0] == ""
    assert splits.notes == ("1 of 3 texts of the test split are empty.",)


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_bytes(b"\xef\xbb\xbfsentence\tlabel\r\na fine film \t1\r\n\r\na dull film\t0\r\n")
    part = read_sst2(path)
    assert part.texts == ["a fine film", "a dull film"]
    assert part.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            b"sentence\tlabel\nfine\t1\ngood\t2\n",
            r"train\.tsv, line 3: the label '2' was never declared\. Labels are 0, 1",
        ),
        (b"sentence\tlabel\nfine\n", r"train\.tsv, line 2: expected 'sentence<TAB>label', got 'fine'"),
        (b"fine\t1\nvery\tfine\t1\n", r"train\.tsv, line 2: expected 'sentence<TAB>label', got 'very\\tfine\\t1'"),
        (b"review\tlabel\nfine\t1\n", r"train\.tsv, line 1: the label 'label' was never declared"),
        (b"index\tsentence\n0\tfine\n", r"train\.tsv has no labels: its header is that of GLUE's test\.tsv"),
        (b"sentence\tlabel\n", r"train\.tsv has no sentences"),
        (b"", r"train\.tsv has no sentences"),
        (
            b"sentence\tlabel\nfine\t1\ncaf\xe9\t1\n",
            r"train\.tsv, line 3, byte 4: 0xe9 is not utf-8.* Save it as UTF-8",
        ),
        (b"sentence\tlabel\nfi\0ne\t1\n", r"train\.tsv, line 2: a NUL, so it is no text file"),
        ("fine\t1\n".encode("utf-16"), r"train\.tsv, line 1, byte 1: 0xff is not utf-8"),
        (b"fine\t1\n" + b"a" * 1_000_001 + b"\t1\n", r"train\.tsv, line 2: 1,000,003 characters are more than"),
    ],
)
def test_a_damaged_file_is_answered_in_one_line(sst2, content, line):
    (sst2 / "train.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=line) as error:
        Sst2(folder=str(sst2)).load(0, None)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(sst2):
    (sst2 / "dev.tsv").unlink()
    with pytest.raises(ValueError, match=r"dev\.tsv is missing\. Nearest in .*: test\.tsv"):
        Sst2(folder=str(sst2)).load(0, None)


def test_a_link_out_of_the_folder_is_refused(sst2, tmp_path_factory):
    elsewhere = write(tmp_path_factory.mktemp("elsewhere") / "secret.tsv", LINES)
    (sst2 / "dev.tsv").unlink()
    (sst2 / "dev.tsv").symlink_to(elsewhere)
    with pytest.raises(ValueError, match="leads out of its data folder"):
        Sst2(folder=str(sst2)).load(0, None)


def test_mixing_is_refused(sst2):
    with pytest.raises(ValueError, match="mix blends images, and Sst2 gives texts"):
        Sst2(folder=str(sst2)).load(0, Mix(mixup=0.8))


@needs_sst2
def test_a_file_of_glue_s_size_is_read_in_seconds(tmp_path):
    lines = (REAL / "train.tsv").read_text(encoding="utf-8").split("\n")[1:] * 10
    path = write(tmp_path / "train.tsv", lines)
    start = time.perf_counter()
    assert len(read_sst2(path).texts) == 69_200
    assert time.perf_counter() - start < 10
