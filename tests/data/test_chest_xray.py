import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data.chest_labels import FINDINGS, joined_values
from distill.data.chest_xray import ChestXray
from tests.data.chest_files import LAST, Row, chest_rows, write_chest

SMALL = Path(os.environ.get("DISTILL_DATA", "../shared/data")) / "chestxray14"
needs_images = pytest.mark.skipif(
    not (SMALL / "images").is_dir(), reason="needs chestxray14 in DISTILL_DATA or ../shared/data"
)


def chest(folder, **settings):
    """The splits of a tiny set of two labels, without a cache."""
    settings = {"labels": ("Effusion", "Mass"), "size": 16, "validation": 0.25, "cache": False} | settings
    return ChestXray(folder=str(folder), **settings).load(0, None)


def names(examples):
    return [examples.images.path(row).name for row in range(len(examples))]


def sizes(splits):
    return [len(examples) for examples in (splits.train, splits.validation, splits.test)]


def patients(examples):
    return set(examples.cases.patient.tolist())


# The real set


@needs_images
def test_a_thousand_real_images_load():
    splits = ChestXray(folder=str(SMALL.resolve()), size=64, cache=False).load(0, None)
    assert sum(sizes(splits)) == 1000
    assert len(splits.test) == 310
    assert splits.classes == FINDINGS
    assert splits.several
    assert not patients(splits.train) & patients(splits.validation)
    with Image.open(SMALL / "images" / names(splits.test)[0]) as image:
        assert torch.equal(splits.test.images[0][0], torch.from_numpy(np.array(image)))


# Other tables


def test_other_sets_are_cut_by_patient_and_groups_that_are_not_known_left_out(tmp_path):
    write_chest(tmp_path / "set", chest_rows(patients=20))
    lines = ["Image Index,Patient ID,Fracture,Effusion"]
    lines += [f"{row.name},p{row.patient},{row.patient % 2},{'' if row.follow_up else row.patient % 3 % 2}"
              for row in chest_rows(patients=20)]  # fmt: skip
    (tmp_path / "set" / "labels.csv").write_text("\n".join(lines))
    settings = {"table": "labels.csv", "labels": ("Fracture", "Effusion"), "validation": 0.2}
    splits = chest(tmp_path / "set", split="patients", **settings)
    assert splits.train.cases.attributes == {}
    assert 0.5 < splits.train.labels[:, 1].isnan().float().mean() < 0.8
    people = [patients(examples) for examples in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, people)) == len(set.union(*people)) == 20
    (tmp_path / "set" / "test_list.txt").unlink()
    with pytest.raises(ValueError, match=r"test_list\.txt is missing.*split='patients'"):
        chest(tmp_path / "set", **settings)


def test_formulas_and_control_characters_are_text(tmp_path):
    rows = [*chest_rows(), Row("=cmd|' '!A0\x1b[31m.png", "Mass", 1, view='=HYPERLINK("x")\x07'.replace('"', "'"))]
    splits = chest(write_chest(tmp_path / "set", rows))
    assert "=HYPERLINK('x')\x07" in {
        view for examples in (splits.train, splits.validation) for view in examples.cases.attributes["view"]
    }


# Lists and images


def rewrite(path, change):
    path.write_text("\n".join(change(path.read_text().splitlines())))


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("train_val_list.txt", lambda names: names[1:], "1 images, the first '00000001_000.png', are in Data_"),
        ("train_val_list.txt", lambda names: [*names, LAST], f"1 images, the first '{LAST}', are in both"),
        ("train_val_list.txt", lambda names: [*names, names[0]], "line 25: image '00000001_000.png' stands there"),
        ("test_list.txt", lambda names: [*names, "gone.png"], "line 13: image 'gone.png' is not in the table"),
        ("test_list.txt", lambda names: [*names, "../x.png"], "line 13: image name '../x.png' leads out"),
    ],
)  # fmt: skip
def test_lists_and_table_have_to_agree(tmp_path, file, change, words):
    folder = write_chest(tmp_path / "set")
    rewrite(folder / file, change)
    with pytest.raises(ValueError) as error:
        chest(folder)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_that_share_a_patient_are_refused(tmp_path):
    rows = [row._replace(test=row.follow_up == 2) for row in chest_rows()]
    with pytest.raises(
        ValueError, match=r"36 images, the first '00000001_000\.png', are of patients with images in both"
    ):
        chest(write_chest(tmp_path / "set", rows))


def test_images_are_found_in_the_folders_of_the_release(tmp_path):
    folder = write_chest(tmp_path / "set")
    expected = [chest(folder).test.images[row] for row in range(12)]
    for number, path in enumerate(sorted((folder / "images").iterdir())):
        part = folder / f"images_{number % 3 + 1:03d}" / "images"
        part.mkdir(parents=True, exist_ok=True)
        path.rename(part / path.name)
    (folder / "images").rmdir()
    splits = chest(folder)
    assert names(splits.test) == [row.name for row in chest_rows() if row.test]
    assert all(torch.equal(splits.test.images[row], expected[row]) for row in range(12))
    (folder / "images").mkdir()
    (folder / "images" / LAST).write_bytes(b"twice")
    with pytest.raises(ValueError, match=rf"image '{LAST}' lies at images/{LAST} and at images_003/images/{LAST}"):
        chest(folder)


def test_missing_images_are_named_and_others_counted(tmp_path):
    folder = write_chest(tmp_path / "set")
    (folder / "images" / LAST).rename(folder / "images" / "other.png")
    with pytest.raises(ValueError, match=rf"1 of 36 images in .* do not lie in .*, the first is '{LAST}'"):
        chest(folder)
    (folder / "images" / LAST).write_bytes((folder / "images" / "other.png").read_bytes())
    assert "1 image files are not in Data_Entry_2017_v2020.csv." in chest(folder).notes
    (folder / "images").rename(folder / "pictures")
    with pytest.raises(ValueError, match="neither images/ nor images_001/"):
        chest(folder)


def test_links_out_of_the_folder_are_refused(tmp_path):
    folder = write_chest(tmp_path / "set")
    (folder / "images" / LAST).rename(tmp_path / "outside.png")
    (folder / "images" / LAST).symlink_to(tmp_path / "outside.png")
    with pytest.raises(ValueError, match=f"{LAST} leads out of its data folder"):
        chest(folder)
    (folder / "images" / LAST).unlink()
    (folder / "test_list.txt").rename(tmp_path / "test_list.txt")
    (folder / "test_list.txt").symlink_to(tmp_path / "test_list.txt")
    (tmp_path / "outside.png").rename(folder / "images" / LAST)
    with pytest.raises(ValueError, match="leads out of its data folder"):
        chest(folder)


def test_grey_rgba_and_oblong_images_become_grey_squares(tmp_path):
    folder = write_chest(tmp_path / "set")
    of_test = [row.name for row in chest_rows() if row.test]
    # Pillow's grey of red is 76 = round(0.299 * 255); its transparency is dropped.
    Image.new("RGBA", (16, 16), (255, 0, 0, 10)).save(folder / "images" / of_test[0])
    # Left half black, right half white: the filter reaches over the middle, but not to the outer columns.
    wide = np.zeros((8, 32), dtype=np.uint8)
    wide[:, 16:] = 255
    Image.fromarray(wide).save(folder / "images" / of_test[1])
    splits = chest(folder, size=4)
    assert splits.test.images[0].tolist() == [[[76] * 4] * 4]
    image = splits.test.images[1]
    assert image.shape == (1, 4, 4)
    assert image.dtype == torch.uint8
    assert image[0, :, 0].tolist() == [0] * 4
    assert image[0, :, 3].tolist() == [255] * 4
    assert torch.equal(image, 255 - image.flip(-1))


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(("kind", "reason"), [("cut", "Cannot read image"), ("deep", "convert it to 8 bits")])
def test_an_unreadable_image_is_named_or_left_out_and_counted(tmp_path, monkeypatch, cache, kind, reason):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    folder = write_chest(tmp_path / "set")
    path = folder / "images" / LAST
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:150])
    else:
        Image.fromarray(np.full((16, 16), 4000, dtype=np.uint16)).save(path)
    with pytest.raises(ValueError, match=rf"{LAST}: .*Mend the file") as error:
        chest(folder, cache=cache)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    splits = chest(folder, cache=cache, skip_unreadable=True)
    assert len(splits.test) == len(splits.test.cases.patient) == 11
    assert splits.notes[0].startswith("1 unreadable images are left out. Cannot read image")


def test_the_cache_gives_the_same_pixels(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    folder = write_chest(tmp_path / "set")
    direct, kept = chest(folder, size=8), chest(folder, size=8, cache=True)
    for ours, theirs in ((kept.train, direct.train), (kept.validation, direct.validation), (kept.test, direct.test)):
        assert len(ours) == len(theirs)
        assert all(torch.equal(ours.images[row], theirs.images[row]) for row in range(len(theirs)))
    assert any((tmp_path / "cache").iterdir())


# Splits


def test_the_official_test_list_is_the_test_split_and_validation_is_cut_by_patient(tmp_path):
    splits = chest(write_chest(tmp_path / "set"))
    assert names(splits.test) == [row.name for row in chest_rows() if row.test]
    assert sizes(splits) == [18, 6, 12]
    assert patients(splits.test) == {9, 10, 11, 12}
    assert not patients(splits.train) & patients(splits.validation)
    assert patients(splits.train) | patients(splits.validation) == set(range(1, 9))
    assert splits.notes == ()


def test_labels_groups_and_patients_stay_with_their_images(tmp_path):
    splits = chest(write_chest(tmp_path / "set"))
    row_of = {row.name: row for row in chest_rows()}
    for examples in (splits.train, splits.validation, splits.test):
        rows = [row_of[name] for name in names(examples)]
        assert examples.labels.tolist() == [list(joined_values(row.findings, splits.classes)) for row in rows]
        assert examples.labels.dtype == torch.float32
        assert examples.cases.patient.tolist() == [row.patient for row in rows]
        assert examples.cases.attributes["sex"] == tuple(row.sex for row in rows)
        assert examples.cases.attributes["view"] == tuple(row.view for row in rows)
    # Patient 9 is 73 years old, 10 is 80, 12 is 94.
    assert splits.test.cases.attributes["age"] == ("60-79",) * 3 + ("80+",) * 9


def test_the_split_s_seed_moves_the_cut_and_the_run_s_does_not(tmp_path):
    folder = write_chest(tmp_path / "set", chest_rows(patients=30))
    settings = {"folder": str(folder), "labels": ("Effusion", "Mass"), "size": 16, "cache": False}
    first, other_run = (names(ChestXray(**settings).load(seed, None).validation) for seed in (0, 1))
    assert first == other_run
    assert names(ChestXray(**settings, split_seed=1).load(0, None).validation) != first


def test_a_cut_by_patient_needs_no_lists_and_says_so(tmp_path):
    folder = write_chest(tmp_path / "set", chest_rows(patients=30))
    (folder / "test_list.txt").unlink()
    splits = chest(folder, split="patients", test=0.3)
    people = [patients(examples) for examples in (splits.train, splits.validation, splits.test)]
    assert len(set.union(*people)) == sum(map(len, people)) == 30
    assert abs(len(people[2]) - 9) <= 1
    assert "cut by patient; results are not comparable" in splits.notes[0]


def test_a_leaky_split_has_to_be_named_so_and_says_so(tmp_path):
    folder = write_chest(tmp_path / "set", chest_rows(patients=20))
    splits = chest(folder, split="leaky_images", test=0.25)
    assert patients(splits.train) & patients(splits.test)
    assert sum(sizes(splits)) == 60
    of_trained = sum(patient in patients(splits.train) for patient in splits.test.cases.patient.tolist())
    assert splits.notes[0].startswith(
        f"LEAKY SPLIT, cut by image: {of_trained} of {len(splits.test)} test images are of patients that are trained on"
    )
    for split in ("images", "random", "image"):
        with pytest.raises(ValueError, match=f"one of 'official', 'patients', 'leaky_images', got '{split}'"):
            ChestXray(split=split)


def test_a_subset_keeps_whole_patients_and_leaves_the_other_splits_alone(tmp_path):
    folder = write_chest(tmp_path / "set", chest_rows(patients=30))
    whole, part = chest(folder), chest(folder, subset=10)
    assert names(part.test) == names(whole.test)
    assert names(part.validation) == names(whole.validation)
    # Three images of each patient: the fourth patient reaches ten.
    assert len(part.train) == 12
    assert len(patients(part.train)) == 4
    assert set(names(part.train)) < set(names(whole.train))
    assert f"Trained on 12 of {len(whole.train)} training images." in part.notes
    assert len(chest(folder, subset=10, split="leaky_images").train) == 10
    with pytest.raises(ValueError, match=rf"ChestXray\.subset=500 of {len(whole.train)} images"):
        chest(folder, subset=500)


@pytest.mark.parametrize(
    ("settings", "keeps", "note"),
    [
        ({"views": ("PA",)}, lambda row: row.view == "PA", "views=('PA',) keeps 60 of 90 images."),
        ({"sex": "F"}, lambda row: row.sex == "F", "sex='F' keeps 45 of 90 images."),
        ({"ages": (31, 94)}, lambda row: 31 <= int(row.age) <= 94, "ages=(31, 94) keeps 30 of 90 images."),
        ({"one_image_per_patient": True}, lambda row: row.follow_up == 0,
         "one_image_per_patient=True keeps 30 of 90 images."),
        # The first of the images that are left: follow-up 1 is the only one in AP.
        ({"one_image_per_patient": True, "views": ("AP",)}, lambda row: row.follow_up == 1,
         "one_image_per_patient=True keeps 30 of 30 images."),
    ],
)  # fmt: skip
def test_filters_hold_for_all_splits_and_are_counted(tmp_path, settings, keeps, note):
    rows = chest_rows(patients=30)
    splits = chest(write_chest(tmp_path / "set", rows), split="patients", test=0.3, validation=0.3, **settings)
    kept = sorted(row.name for row in rows if keeps(row))
    assert sorted(names(splits.train) + names(splits.validation) + names(splits.test)) == kept
    assert note in splits.notes
    assert "Results on filtered images are not comparable with published ones, which are on all images." in splits.notes


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"views": ("LL",)}, r"ChestXray\.views=\('LL',\) leaves no image of .*, which has views 'AP', 'PA'"),
        ({"ages": (100, 110)}, r"which has ages 17 to 94"),
        ({"sex": "female"}, r"which has sexes 'F', 'M'"),
        ({"ages": (80, 110)}, r"no image of the official training and validation list"),
    ],
)
def test_a_filter_that_leaves_nothing_is_refused_with_what_there_is(tmp_path, settings, words):
    with pytest.raises(ValueError, match=words):
        chest(write_chest(tmp_path / "set"), **settings)


def test_training_images_are_augmented_and_others_are_not(tmp_path):
    folder = write_chest(tmp_path / "set")
    splits = chest(folder)
    looks = {tuple(splits.train[epoch, 0].image.flatten().tolist()) for epoch in range(8)}
    assert len(looks) > 3
    for plain in (splits.validation, splits.test, chest(folder, augment=False).train):
        assert torch.equal(plain[3, 0].image, plain.images[0])
    assert splits.train[0, 0].image.shape == (1, 16, 16)


# Boxes


def boxes_of(examples):
    return [(names(examples)[box.example], *(round(value, 6) for value in box[1:])) for box in examples.cases.boxes]


def test_boxes_are_shares_of_the_image_and_follow_it_into_its_split(tmp_path):
    lines = [f"{LAST},Mass,4,2,8,6,,,", f"{LAST},Effusion,0.0,8.5,16.0,4.0,,,", "00000001_000.png,Mass,1,1,2,2"]
    lines += [f"{LAST},Infiltrate,1,1,2,2,,,", "elsewhere.png,Mass,1,1,2,2,,,", f"{LAST},Mass,10,10,6.5,7,,,"]
    splits = chest(write_chest(tmp_path / "set", boxes=lines))
    # 16x16 pixels: 4 / 16, 2 / 16, (4 + 8) / 16, (2 + 6) / 16; the last one is cut at the image's sides.
    assert boxes_of(splits.test) == [
        (LAST, 1, 0.25, 0.125, 0.75, 0.5),
        (LAST, 0, 0.0, 0.53125, 1.0, 0.78125),
        (LAST, 1, 0.625, 0.625, 1.0, 1.0),
    ]
    found = boxes_of(splits.train) + boxes_of(splits.validation)
    assert found == [("00000001_000.png", 1, 0.0625, 0.0625, 0.1875, 0.1875)]
    assert splits.notes == ("1 boxes are of images that the table does not have.",)


def test_infiltrate_is_the_box_list_s_word_for_infiltration(tmp_path):
    folder = write_chest(tmp_path / "set", boxes=[f"{LAST},Infiltrate,4,2,8,6,,,"])
    splits = chest(folder, labels=("Effusion", "Infiltration"))
    assert boxes_of(splits.test) == [(LAST, 1, 0.25, 0.125, 0.75, 0.5)]


def test_boxes_of_reduced_copies_are_in_pixels_of_the_originals(tmp_path):
    lines = [f"{LAST},Mass,256,128,512,512,,,", "00000011_000.png,Mass,1,1,2,2"]
    splits = chest(write_chest(tmp_path / "set", boxes=lines))
    # Of 1024 pixels: a quarter, an eighth; the second box would fit its image, but is of the same list.
    assert boxes_of(splits.test)[0] == (LAST, 1, 0.25, 0.125, 0.75, 0.625)
    assert boxes_of(splits.test)[1] == ("00000011_000.png", 1, *(round(value / 1024, 6) for value in (1, 1, 3, 3)))
    assert "originals of 1024x1024" in splits.notes[0]


def test_boxes_of_large_images_are_cut_at_their_own_sides(tmp_path):
    folder = write_chest(tmp_path / "set", boxes=[f"{LAST},Mass,1100,500,200,100,,,"])
    Image.new("L", (1250, 2000)).save(folder / "images" / LAST)
    assert boxes_of(chest(folder).test) == [(LAST, 1, 0.88, 0.25, 1.0, 0.3)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{LAST},Mass,1,2,3", "line 2: 5 fields, but the header has 6"),
        (f"{LAST},Mess,1,2,3,4,,,", "label 'Mess' is not known. Nearest: Mass"),
        (f"{LAST},Mass,1,2,x,4,,,", "a box is four numbers, got '1,2,x,4'"),
        (f"{LAST},Mass,1,2,0,4,,,", "is no box"),
        (f"{LAST},Mass,nan,2,3,4,,,", "is no box"),
        (f"{LAST},Mass,-9,2,3,4,,,", "the box lies beside its image of 16x16 pixels"),
        (f"{LAST},Mass,2000,2,3,4,,,", "the box lies beside its image of 1024x1024 pixels"),
    ],
)
def test_boxes_that_are_none_are_refused(tmp_path, line, words):
    folder = write_chest(tmp_path / "set", boxes=[line])
    with pytest.raises(ValueError) as error:
        chest(folder)
    assert words in str(error.value)
    assert "BBox_List_2017.csv, line 2" in str(error.value)


# Settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 0}, r"ChestXray\.size"),
        ({"validation": 1.0}, r"ChestXray\.validation"),
        ({"test": 0.2}, r"ChestXray\.test=0\.2 has no effect on the official split"),
        ({"test": 0.0, "split": "patients"}, r"ChestXray\.test"),
        ({"labels": ()}, r"ChestXray\.labels"),
        ({"labels": ("Mass", "mass")}, r"ChestXray\.labels"),
        ({"labels": ("Mass", " ")}, r"ChestXray\.labels"),
        ({"subset": 0}, r"ChestXray\.subset"),
        ({"ages": (60, 20)}, r"ChestXray\.ages"),
        ({"verify": False}, r"ChestXray\.verify=False has no effect beside cache=True"),
        ({"verify": False, "cache": False, "skip_unreadable": True}, "beside skip_unreadable=True"),
    ],
)
def test_settings_without_sense_or_effect_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        ChestXray(**settings)
