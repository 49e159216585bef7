import gzip
import os
import time
from pathlib import Path

import pytest
import torch

from distill.data.chest_files import official_rows
from distill.data.chest_labels import FINDINGS, joined_values
from distill.data.chest_table import find_table, read_chest_table
from tests.data.chest_files import HEADER, LAST, Row, chest_rows, write_chest

METADATA = Path(os.environ.get("DISTILL_DATA", "../shared/data")) / "chestxray14-metadata"
TEST_POSITIVES = (3279, 1069, 4658, 6112, 1748, 1623, 555, 2665, 1815, 925, 1093, 435, 1143, 86)

needs_metadata = pytest.mark.skipif(
    not (METADATA / "test_list.txt").is_file(), reason="needs chestxray14-metadata in DISTILL_DATA or ../shared/data"
)


@needs_metadata
def test_the_official_release_is_counted_right_in_under_three_seconds():
    start = time.process_time()
    table = read_chest_table(find_table(METADATA, None))
    trainval, test = official_rows(METADATA, table)
    assert time.process_time() - start < 3
    assert (len(table.names), len(table.patient.unique())) == (112_120, 30_805)
    assert (len(trainval), len(test)) == (86_524, 25_596)
    both = [set(table.patient[rows].tolist()) for rows in (trainval, test)]
    assert [len(people) for people in both] == [28_008, 2_797]
    assert not both[0] & both[1]
    assert tuple(table.labels[test].sum(0).int().tolist()) == TEST_POSITIVES
    assert int((table.labels.sum(1) == 0).sum()) == 60_361
    assert (table.view.count("PA"), table.view.count("AP")) == (67_310, 44_810)
    assert table.notes == ()


# Labels


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("No Finding", ()),
        ("no_finding", ()),
        ("Hernia", ("Hernia",)),
        ("Effusion|Mass", ("Effusion", "Mass")),
        (" effusion | MASS |", ("Effusion", "Mass")),
        ("Pleural_Thickening", ("Pleural_Thickening",)),
        ("Pleural Thickening", ("Pleural_Thickening",)),
        ("pleural-thickening", ("Pleural_Thickening",)),
        ("PleuralThickening", ("Pleural_Thickening",)),
        ("Infiltrate", ("Infiltration",)),
        ("Pleural Effusion", ("Effusion",)),
    ],
)
def test_labels_are_read_in_every_known_spelling(text, found):
    assert joined_values(text, FINDINGS) == tuple(float(name in found) for name in FINDINGS)


def test_labels_are_read_in_the_order_asked_for_and_others_passed_over():
    assert joined_values("Mass|Hernia|Effusion", ("Infiltrate", "Hernia", "Mass")) == (0, 1, 1)
    assert joined_values("Infiltration", ("Infiltrate", "Hernia")) == (1, 0)
    assert joined_values("No Finding", ("Hernia", "No Finding")) == (0, 1)


@pytest.mark.parametrize("text", ["", " ", "-1"])
def test_no_label_at_all_is_unknown(text):
    assert all(value != value for value in joined_values(text, FINDINGS))


def test_other_sets_have_a_column_for_each_label_and_unknown_ones_are_nan(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(
        "Patient ID,Image Index,PLEURAL EFFUSION,Fracture,Support Devices\n"
        "patient7,a.png,1,0.0,x\npatient7,b.png,-1,,\npatient10,c.png,0,1.0,\npatient9,d.png,-1.0,1,\n"
    )
    table = read_chest_table(path, ("Fracture", "Effusion"))
    nan = float("nan")
    assert torch.equal(table.labels.nan_to_num(9), torch.tensor([[0, 1], [nan, nan], [1, 0], [1, nan]]).nan_to_num(9))
    # patient10 comes before patient7 and patient9 in alphabetical order.
    assert table.patient.tolist() == [1, 1, 0, 2]
    assert table.age.tolist() == [-1] * 4
    assert set(table.sex) == set(table.view) == {""}
    assert table.notes == ("1 images have no label that is known.",)


# Tables


def test_the_table_of_2017_is_read_as_that_of_2020(tmp_path):
    rows = chest_rows(patients=3)
    new = write_chest(tmp_path / "new", rows)
    old = write_chest(
        tmp_path / "old", [row._replace(age=f"{row.age:0>3}Y") for row in rows], table="Data_Entry_2017.csv"
    )
    path = old / "Data_Entry_2017.csv"
    # A comma at the end of every line, a byte order mark, and line ends of another system.
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(line.encode() + b",\r\n" for line in path.read_text().splitlines()))
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "Data_Entry_2017_v2020.csv.gz").write_bytes(
        gzip.compress((new / "Data_Entry_2017_v2020.csv").read_bytes())
    )
    expected, *others = (read_chest_table(find_table(folder, None)) for folder in (new, old, packed))
    assert expected.age.tolist() == [17] * 3 + [24] * 3 + [31] * 3
    for table in others:
        assert table.names == expected.names
        assert torch.equal(table.labels, expected.labels)
        assert torch.equal(table.age, expected.age)
        assert torch.equal(table.patient, expected.patient)
        assert table.sex == expected.sex


def test_ages_in_months_and_days_and_those_nobody_reaches(tmp_path):
    ages = ["058Y", "013M", "005D", "11M", "", "414", "120", "57.0"]
    rows = [Row(f"{number}.png", "Mass", number, age=age) for number, age in enumerate(ages)]
    table = read_chest_table(find_table(write_chest(tmp_path / "set", rows), None))
    assert table.age.tolist() == [58, 1, 0, 0, -1, -1, 120, 57]
    assert table.notes == ("1 images have ages above 120 years, which are taken as unknown.",)


def changed(folder, change):
    """The error's text after a change of the table's last line, or of what `change` names."""
    path = folder / "Data_Entry_2017_v2020.csv"
    *lines, last = path.read_text().splitlines()
    path.write_text("\n".join([*lines, change(last)]))
    with pytest.raises(ValueError) as error:
        read_chest_table(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda line: line.replace("Effusion|", "Efusion|"),
         f"line 37, image '{LAST}': label 'Efusion' is not known. Nearest: Effusion"),
        (lambda line: line.replace("Effusion|", "No Finding|"), f"image '{LAST}': 'No Finding|Mass' has 'No Finding'"),
        (lambda line: line.replace(LAST, "../../etc/passwd"), "line 37: image name '../../etc/passwd' leads out"),
        (lambda line: line.replace(LAST, "/etc/passwd"), "leads out"),
        (lambda line: line.replace(LAST, "a\\b.png"), "leads out"),
        (lambda line: line.replace(LAST, "a//b.png"), "leads out"),
        (lambda line: line.replace(LAST, ".."), "leads out"),
        (lambda line: line.replace(LAST, ""), "leads out"),
        (lambda line: line.replace(LAST, "00000001_000.png"), "line 37: image '00000001_000.png' stands there twice"),
        (lambda line: line.replace(LAST, "new\r.png"), "line 37: 1 fields, but the header has 11"),
        (lambda line: line.replace(",94,", ",old,"), "line 37: 'old' is no age. Write it as 58, 058Y"),
        (lambda line: line.replace(",2,12,", ",second,12,"), "line 37: 'second' is no whole number"),
        (lambda line: line.replace(",2,12,", ",2,,"), "line 37: no Patient ID"),
        (lambda line: line + ",more", "line 37: 12 fields, but the header has 11"),
        (lambda line: "a,b", "line 37: 2 fields, but the header has 11"),
        (lambda line: '"' + line, "line 37: unexpected end of data"),
    ],
)  # fmt: skip
def test_a_line_that_is_wrong_is_named(tmp_path, change, words):
    assert words in changed(write_chest(tmp_path / "set"), change)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (HEADER.encode(), "has no rows below its header"),
        (b"Image,Labels\na,b\n", "has no column 'Image Index'. Nearest: Image"),
        (b"Image Index,Finding Labels\na,b\n", "has no column 'Patient ID'"),
        (b"Image Index,Patient ID,Effusion\na,1,1\n", "no columns are of label 'Mass', and there is no column"),
        (b"Image Index,Patient ID,Mass,mass,Effusion\na,1,1,1,1\n", "2 columns are of label 'Mass'"),
        (b"Image Index,Patient ID,Mass,Effusion\na.png,1,yes,1\n", "line 2, image 'a.png': 'yes' of label 'Mass'"),
        (b"Image Index,Image Index,Patient ID,Finding Labels\n1,2,3,4\n", "has 2 columns 'Image Index'"),
        (b"\xff\xfe\x00\x01", "Cannot read"),
        (b"Image Index,Patient ID,Mass,Effusion\n" + b"x" * 200_000 + b",1,1,1\n", "line 2: field larger than"),
    ],
)  # fmt: skip
def test_a_table_that_is_none_is_refused(tmp_path, content, words):
    write_chest(tmp_path / "set")
    (tmp_path / "set" / "Data_Entry_2017_v2020.csv").write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_chest_table(tmp_path / "set" / "Data_Entry_2017_v2020.csv", ("Effusion", "Mass"))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_tables_are_named_and_found(tmp_path):
    folder = write_chest(tmp_path / "set", table="labels.csv")
    with pytest.raises(ValueError, match=r"has none of Data_Entry_2017_v2020\.csv.*data\.table: labels\.csv"):
        find_table(folder, None)
    with pytest.raises(ValueError, match=r"no table 'label\.csv'\. Nearest: labels\.csv"):
        find_table(folder, "label.csv")
    with pytest.raises(ValueError, match="leads out"):
        find_table(folder, "../set2.csv")
    assert find_table(folder, "labels.csv") == folder / "labels.csv"
    (folder / "labels.csv.gz").write_bytes(gzip.compress(b"Image Index,")[:-6])
    with pytest.raises(ValueError, match=r"Cannot read .*labels\.csv\.gz"):
        read_chest_table(find_table(folder, "labels.csv.gz"))
