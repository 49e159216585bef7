import csv
import sys

import pytest
import torch

from distill.data.text_files import read_table
from distill.data.text_table import TextTable
from distill.data.texts import UNKNOWN

NAMES = {"0": "negative", "1": "positive"}


def write_csv(path, rows, header=("label", "review"), encoding="utf-8"):
    """As pandas and Excel write it: fields with commas, quotation marks or line ends in quotation marks."""
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rows(count):
    return [(number % 2, f"review {number}") for number in range(count)]


def table(folder, **settings):
    return TextTable(folder=str(folder), train="all.csv", **settings)


def sizes(splits):
    return [len(split) for split in (splits.train, splits.validation, splits.test)]


def every_text(splits):
    return {text: int(label) for split in (splits.train, splits.validation, splits.test)
            for text, label in zip(split.texts, split.labels, strict=True)}  # fmt: skip


def test_one_file_is_cut_into_three_splits_class_by_class(tmp_path):
    write_csv(tmp_path / "all.csv", rows(100))
    splits = table(tmp_path, classes=NAMES).load(0, None)
    assert sizes(splits) == [80, 10, 10]
    assert splits.classes == ("negative", "positive")
    assert torch.bincount(splits.test.labels).tolist() == [5, 5]
    assert every_text(splits) == {f"review {number}": number % 2 for number in range(100)}


def test_the_run_s_seed_never_moves_the_cut(tmp_path):
    write_csv(tmp_path / "all.csv", rows(100))
    first, second = (table(tmp_path).load(seed, None) for seed in (0, 1))
    other = table(tmp_path, split_seed=1).load(0, None)
    assert first.test.texts == second.test.texts != other.test.texts


def test_files_of_their_own_are_splits_as_they_are(tmp_path):
    write_csv(tmp_path / "all.csv", rows(20))
    write_csv(tmp_path / "dev.csv", [(1, "a"), (0, "b")])
    (tmp_path / "test.tsv").write_text('other\treview\tlabel\n7\tan "open quote\t1\n8\td\t0\n')
    splits = table(tmp_path, validation="dev.csv", test="test.tsv").load(0, None)
    assert sizes(splits) == [20, 2, 2]
    assert splits.test.texts == ['an "open quote', "d"]
    assert splits.test.labels.tolist() == [1, 0]
    assert sizes(table(tmp_path, test="test.tsv").load(0, None)) == [18, 2, 2]


@pytest.mark.parametrize(
    ("declared", "names", "numbers"),
    [
        (None, ("bad", "good"), [1, 0]),
        (("good", "bad"), ("good", "bad"), [0, 1]),
        ({"good": "positive", "bad": "negative"}, ("positive", "negative"), [0, 1]),
    ],
)
def test_classes_are_those_declared_in_their_order_or_the_sorted_ones(tmp_path, declared, names, numbers):
    write_csv(tmp_path / "all.csv", [("good", "fine"), ("bad", "dull")] * 10)
    write_csv(tmp_path / "test.csv", [("good", "fine"), ("bad", "dull")])
    splits = table(tmp_path, classes=declared, test="test.csv").load(0, None)
    assert splits.classes == names
    assert splits.test.labels.tolist() == numbers


def test_commas_quotation_marks_and_line_ends_in_quotes_are_text(tmp_path):
    texts = ["很好, 下次还来", 'they said "fine", twice', "two\nlines", "😀", "中文 and English"]
    write_csv(tmp_path / "all.csv", [(number % 2, text) for number, text in enumerate(texts)] * 4)
    assert set(every_text(table(tmp_path).load(0, None))) == set(texts)


def test_a_text_of_ten_thousand_words_is_read(tmp_path):
    # More characters than the 131,072 that Python's reader allows, and its limit stays as it was.
    text, before = "fantastically " * 10_000, 131_072
    csv.field_size_limit(before)
    write_csv(tmp_path / "all.csv", [(0, text), (1, "short")] * 10)
    assert text.strip() in every_text(table(tmp_path).load(0, None))
    assert csv.field_size_limit() == before


def test_empty_texts_are_kept_and_counted(tmp_path):
    write_csv(tmp_path / "all.csv", rows(20))
    write_csv(tmp_path / "test.csv", [(0, ""), (1, " "), (1, "c")])
    splits = table(tmp_path, test="test.csv").load(0, None)
    assert splits.test.texts == ["", "", "c"]
    assert splits.notes == ("2 of 3 texts of the test split are empty.",)


def test_duplicates_across_splits_are_reported(tmp_path):
    write_csv(tmp_path / "all.csv", rows(20))
    write_csv(tmp_path / "test.csv", [(0, "review  1"), (1, "review 2"), (1, "c")])
    splits = table(tmp_path, validation="test.csv", test="test.csv").load(0, None)
    assert splits.notes == (
        "2 validation texts stand in the training split too.",
        "2 test texts stand in the training split too.",
        "3 test texts stand in the validation split too.",
    )


@pytest.mark.parametrize(
    ("written", "encoding"), [("utf-8", "utf-8-sig"), ("utf-8-sig", "utf-8-sig"), ("utf-8-sig", "utf-8")]
)
def test_a_byte_order_mark_is_no_part_of_the_first_column_s_name(tmp_path, written, encoding):
    write_csv(tmp_path / "all.csv", rows(20), encoding=written)
    assert sizes(table(tmp_path, encoding=encoding).load(0, None)) == [16, 2, 2]


def test_gb18030_is_read_where_it_is_asked_for(tmp_path):
    texts = ["房间 很 干净", "服务 太 差 了", "𠮷野家 还 行"]
    write_csv(tmp_path / "all.csv", [(number % 2, text) for number, text in enumerate(texts)] * 4, encoding="gb18030")
    with pytest.raises(ValueError, match=r"all\.csv, line 2, byte 3: 0x\w\w is not utf-8.*encoding='gb18030'"):
        table(tmp_path).load(0, None)
    assert set(every_text(table(tmp_path, encoding="gb18030").load(0, None))) == set(texts)


def test_a_broken_character_is_named_by_file_line_and_byte(tmp_path):
    (tmp_path / "all.csv").write_bytes("label,review\n1,很好\n0,".encode() + "很".encode()[:2] + b"\n")
    with pytest.raises(ValueError, match=r"all\.csv, line 3, byte 3: 0xe5 is not utf-8"):
        table(tmp_path).load(0, None)
    with pytest.raises(ValueError, match=r"is not gb18030\. Save it as gb18030, or set encoding='utf-8-sig'"):
        (tmp_path / "all.csv").write_bytes(b"label,review\n1,\xff\xff\n")
        table(tmp_path, encoding="gb18030").load(0, None)


def test_texts_without_labels_are_trained_on_too(tmp_path):
    write_csv(tmp_path / "all.csv", rows(20))
    write_csv(tmp_path / "more.csv", [("x",), ("y",)], header=("review",))
    splits = table(tmp_path, unlabelled="more.csv").load(0, None)
    assert splits.train.texts[-2:] == ["x", "y"]
    assert splits.train.labels[-2:].tolist() == [UNKNOWN] * 2
    assert sizes(splits) == [18, 2, 2]


@pytest.mark.parametrize("labels", [[0, 1] * 10, ["neg", "pos"] * 10])
def test_parquet_holds_the_same_as_csv(tmp_path, labels):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    texts = [f"评论 {number}" for number in range(20)]
    write_csv(tmp_path / "all.csv", zip(labels, texts, strict=True))
    write_table(pyarrow.table({"id": range(20), "review": texts, "label": labels}), tmp_path / "all.parquet")
    ours, theirs = (TextTable(folder=str(tmp_path), train=f"all.{kind}").load(0, None) for kind in ("csv", "parquet"))
    assert ours.classes == theirs.classes
    assert ours.train.texts == theirs.train.texts
    assert torch.equal(ours.train.labels, theirs.train.labels)


def test_parquet_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path, monkeypatch):
    """One text of 10,000 characters, named 500 times: 5 MB in a file of less than 1 kB."""
    import pyarrow
    from pyarrow.parquet import write_table

    texts = pyarrow.DictionaryArray.from_arrays([0] * 500, ["long " * 2000]).cast(pyarrow.string())
    path = tmp_path / "all.parquet"
    write_table(pyarrow.table({"review": texts, "label": [0, 1] * 250}), path)
    assert path.stat().st_size < 10_000
    table = TextTable(folder=str(tmp_path), train="all.parquet")
    assert len(table.load(0, None).train) > 0
    monkeypatch.setattr("distill.data.text_files._MOST_UNPACKED", 2**20)
    with pytest.raises(ValueError, match=r"all\.parquet unpacks to more than 100 times its size\."):
        table.load(0, None)


def test_damaged_parquet_is_answered_in_one_line(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    path = tmp_path / "all.parquet"
    path.write_bytes(b"no parquet at all")
    with pytest.raises(ValueError, match=r"all\.parquet cannot be read as parquet: .*") as error:
        read_table(path, ["review"])
    assert "\n" not in str(error.value)
    write_table(pyarrow.table({"review": [["a", "list"]], "label": [None]}), path)
    with pytest.raises(ValueError, match=r"all\.parquet has no column 'reviews'\. Nearest: review"):
        read_table(path, ["reviews"])
    with pytest.raises(ValueError, match=r"all\.parquet, row 1: column 'review' holds list"):
        read_table(path, ["review"])
    assert read_table(path, ["label"]).columns == {"label": [""]}


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "all.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs pyarrow\. Install it: pip install 'distill\[text\]'"):
        read_table(tmp_path / "all.parquet", ["review"])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("label,text\n1,a\n", r"all\.csv has no column 'review'\. Nearest: label, text"),
        ("lable,review\n1,a\n", r"all\.csv has no column 'label'\. Nearest: lable"),
        ("label,review,review\n1,a,b\n", r"all\.csv has 2 columns 'review'"),
        ("label,review\n1,a\n2,b\n", r"all\.csv, line 3: the label '2' was never declared\. Labels are 0, 1"),
        ('label,review\n1,"two\nlines"\n,b\n', r"all\.csv, line 4: there is no label\. Labels are 0, 1"),
        ("label,review\n1,a,b\n", r"all\.csv, line 2: 3 fields, but the header has 2\. Put a field that holds a comma"),
        (
            'label,review\n1,a\n0,"never closed\n1,b\n',
            r"all\.csv, line 3: unexpected end of data\. Close each quotation",
        ),
        ('label,review\n1,"a" b\n', r"all\.csv, line 2: ',' expected after '\"'\. Close each quotation mark"),
        ('label,review\n1,"' + "a" * 1_000_001 + '"\n', r"all\.csv, line 2: field larger than field limit \(1000000\)"),
        ("label,review\n1,a\0b\n", r"all\.csv, line 2: a NUL, so it is no text file"),
        ("label,review\n", r"all\.csv has no rows below its column 'review'"),
        ("", r"all\.csv has no column 'review'\. Nearest: none"),
        ("label,review\n1,a\n1,b\n1,c\n1,d\n", r"No training example of class negative"),
    ],
)
def test_a_wrong_file_is_answered_in_one_line(tmp_path, content, line):
    (tmp_path / "all.csv").write_text(content)
    with pytest.raises(ValueError, match=line) as error:
        table(tmp_path, classes=NAMES, validation=0.3, test=0.3).load(0, None)
    assert "\n" not in str(error.value)


def test_a_label_that_stands_in_the_test_file_alone_is_named(tmp_path):
    write_csv(tmp_path / "all.csv", rows(20))
    write_csv(tmp_path / "test.csv", [(0, "a"), ("neutral", "b")])
    with pytest.raises(
        ValueError, match=r"test\.csv, line 3: the label 'neutral' was never declared\. Labels are 0, 1"
    ):
        table(tmp_path, test="test.csv").load(0, None)


def test_the_wrong_column_as_labels_is_noticed(tmp_path):
    write_csv(tmp_path / "all.csv", rows(1500))
    with pytest.raises(ValueError, match=r"column 'review', has 1,500 distinct labels.* Is it the right column\?"):
        table(tmp_path, label="review", text="label").load(0, None)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"validation": 1.0}, r"TextTable\.validation is a share of the examples between 0 and 1, got 1\.0"),
        ({"validation": 0.5, "test": 0.5}, r"TextTable\.validation \+ test is a share"),
        ({"text": "label"}, r"TextTable\.text and label both name the column 'label'"),
        ({"classes": ("one",)}, r"TextTable\.classes are two or more different names, got one"),
        ({"classes": {"0": "bad", "1": "bad"}}, r"TextTable\.classes are two or more different names, got bad, bad"),
        ({"encoding": "gb18031"}, r"TextTable\.encoding='gb18031' is no encoding of text"),
        ({"encoding": "rot13"}, r"TextTable\.encoding='rot13' is no encoding of text"),
    ],
)
def test_wrong_settings_are_refused_before_any_file_is_read(settings, line):
    with pytest.raises(ValueError, match=line):
        table("nowhere", **settings)


def test_other_files_and_files_elsewhere_are_refused(tmp_path):
    write_csv(tmp_path / "all.csv", rows(20))
    write_csv(tmp_path / "all.xlsx", rows(20))
    (tmp_path / "inner").mkdir()
    with pytest.raises(ValueError, match=r"ends in '\.xlsx'\. Tables of texts end in \.csv, \.tsv, \.parquet"):
        TextTable(folder=str(tmp_path), train="all.xlsx").load(0, None)
    with pytest.raises(ValueError, match="leads out of its data folder"):
        TextTable(folder=str(tmp_path / "inner"), train="../all.csv").load(0, None)
    with pytest.raises(ValueError, match=r"al\.csv is missing\. Nearest in .*: all\.csv"):
        TextTable(folder=str(tmp_path), train="al.csv").load(0, None)
