import csv
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data import phantoms
from distill.data.phantom_body import body_of, clouds, heart, lungs, soft
from distill.data.phantom_drawing import Film, draw
from distill.data.phantoms import ORIGIN, PHANTOM_LABELS, Phantoms, films, held_out, name_of, write_phantoms

SOUND = Film(patient=3, number=1, age=60, sex="M", view="PA")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "set"
    write_phantoms(folder, patients=40, size=32, noise=0.02, seed=1)
    return folder


def table(folder):
    with (folder / "Data_Entry_2017_v2020.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


def lists(folder):
    return {name: (folder / f"{name}_list.txt").read_text().split("\n") for name in ("train_val", "test")}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def box_mask(box, size):
    left, top, width, height = box
    middles = np.arange(size) + 0.5
    rows, columns = (middles > top) & (middles < top + height), (middles > left) & (middles < left + width)
    return rows[:, None] & columns[None, :]


# The drawing.


def test_a_soft_edge_is_a_half_at_the_edge_and_flat_away_from_it():
    # soft(d, w) is the cubic step 3t^2 - 2t^3 of t = d / 5w + 1/2: at d = 5w/4, t = 3/4 and 27/16 - 27/32 = 27/32.
    values = soft(np.array([-9.0, -2.5, 0.0, 1.25, 2.5, 9.0], dtype=np.float32), 1.0)
    assert values.tolist() == pytest.approx([0, 0, 1 / 2, 27 / 32, 1, 1])


def test_clouds_are_even_noise():
    along = np.linspace(-1, 1, 200, dtype=np.float32)
    u, v = np.broadcast_arrays(along[None, :], along[:, None])
    patches = np.stack([clouds(np.random.default_rng(seed), u, v, 9.0) for seed in range(40)])
    assert abs(patches.mean()) < 0.1
    assert patches.std() == pytest.approx(1, abs=0.1)


def test_the_heart_lies_on_the_films_right_and_its_width_is_the_ratio_of_the_chests():
    along = np.linspace(-1, 1, 400, dtype=np.float32)
    u, v = along[None, :] + 0 * along[:, None], along[:, None] + 0 * along[None, :]
    body = body_of(np.random.default_rng(0), sex="F", age=40)._replace(ratio=0.5)
    shape = heart(body, u, v, 0.01) > 0.5
    columns = u[0, shape.any(0)]
    assert columns.max() > -columns.min() > 0
    # The egg's axes are 1 / 0.94 and 1 / 1.16 of its radius, turned by about 34 degrees, so that it reaches
    # sqrt((0.825 / 0.94)^2 + (0.565 / 1.16)^2) = 1.004 radii to either side.
    chest = u[0, (lungs(body, u, v, 0.01) > 0.5).any(0)]
    assert (columns.max() - columns.min()) / (2 * body.half) == pytest.approx(0.5 * 1.004, abs=0.02)
    assert (chest.max() - chest.min()) / 2 == pytest.approx(body.half, rel=0.05)


def test_the_same_film_is_drawn_the_same_and_each_of_its_keys_matters():
    film = replace(SOUND, findings=("Nodule",))
    first = draw(film, size=32, noise=0.02)
    assert np.array_equal(first.image, draw(film, size=32, noise=0.02).image)
    assert first.image.dtype == np.uint8
    assert first.image.shape == (32, 32)
    changes = (
        {"patient": 4}, {"number": 2}, {"age": 80}, {"sex": "F"}, {"view": "AP"}, {"findings": ()}, {"seed": 1},
    )  # fmt: skip
    for change in changes:
        assert not np.array_equal(first.image, draw(replace(film, **change), size=32, noise=0.02).image), change


def test_noise_is_the_deviation_of_the_pixels():
    clean, noisy = (draw(SOUND, size=64, noise=noise).image.astype(float) for noise in (0.0, 0.05))
    inside = (clean > 50) & (clean < 200)
    assert (noisy - clean)[inside].std() == pytest.approx(0.05 * 255, rel=0.05)


@pytest.mark.parametrize("finding", PHANTOM_LABELS)
def test_a_finding_changes_the_film_where_its_box_is(finding):
    boxed = 0
    for patient in range(12):
        sound = replace(SOUND, patient=patient, view="AP" if patient % 3 == 0 else "PA")
        sick = draw(replace(sound, findings=(finding,)), size=64, noise=0.02)
        change = np.abs(sick.image.astype(float) - draw(sound, size=64, noise=0.02).image)
        assert change.max() > 5
        if finding not in sick.boxes:
            continue
        boxed += 1
        left, top, width, height = sick.boxes[finding]
        assert left >= 0 and top >= 0 and width > 0 and height > 0 and left + width <= 64 and top + height <= 64
        inside = box_mask(sick.boxes[finding], 64)
        assert change[inside].mean() > 4 * change[~inside].mean()
    assert boxed >= 10


@pytest.mark.parametrize("finding", ["Effusion", "Infiltration", "Mass", "Nodule"])
def test_what_is_dense_is_bright(finding):
    for patient in range(6):
        sick = draw(replace(SOUND, patient=patient, findings=(finding,)), size=64, noise=0)
        change = sick.image.astype(float) - draw(replace(SOUND, patient=patient), size=64, noise=0).image
        assert change.sum() > 0


def test_a_pneumothorax_is_dark():
    for patient in range(6):
        sick = draw(replace(SOUND, patient=patient, findings=("Pneumothorax",)), size=64, noise=0)
        change = sick.image.astype(float) - draw(replace(SOUND, patient=patient), size=64, noise=0).image
        assert change.sum() < 0


def test_a_finding_stays_where_it_is_from_film_to_film():
    for patient in range(6):
        middles = []
        for number in range(3):
            film = replace(SOUND, patient=patient, number=number, findings=("Mass",))
            left, top, width, height = draw(film, size=64, noise=0).boxes["Mass"]
            middles.append((left + width / 2, top + height / 2))
        # The patient moves between films by a tenth of the side or so.
        assert np.ptp(middles, axis=0).max() < 13


def test_findings_overlap_on_one_film():
    drawing = draw(replace(SOUND, findings=PHANTOM_LABELS), size=64, noise=0)
    assert set(drawing.boxes) == set(PHANTOM_LABELS)


# The set.


def test_a_patients_films_do_not_depend_on_how_many_patients_there_are():
    assert films(patients=30, seed=5) == [film for film in films(patients=60, seed=5) if film.patient <= 30]


def test_two_in_five_films_show_nothing_and_each_finding_shows_in_a_tenth_or_more():
    drawn = films(patients=600, seed=0)
    assert 1300 < len(drawn) < 1700
    assert np.mean([not film.findings for film in drawn]) == pytest.approx(0.4, abs=0.05)
    assert np.mean([len(film.findings) > 1 for film in drawn]) > 0.12
    for label in PHANTOM_LABELS:
        assert 0.08 < np.mean([label in film.findings for film in drawn]) < 0.25
    assert {film.sex for film in drawn} == {"M", "F"}
    assert min(film.age for film in drawn) >= 18
    assert max(film.age for film in drawn) <= 90


def test_the_sick_lie_in_bed_more_often_and_findings_stay_and_come_together():
    drawn = films(patients=2000, seed=0)

    def share(which, given):
        return np.mean([which(film) for film in drawn if given(film)])

    def in_bed(film):
        return film.view == "AP"

    def effusion(film):
        return "Effusion" in film.findings

    assert share(in_bed, lambda film: film.findings) > share(in_bed, lambda film: not film.findings) + 0.15
    with_heart = share(effusion, lambda film: "Cardiomegaly" in film.findings)
    assert with_heart > 2 * share(effusion, lambda film: "Cardiomegaly" not in film.findings)
    first = {film.patient: film.findings for film in drawn if film.number == 0}
    again = share(lambda film: "Mass" in film.findings, lambda film: film.number and "Mass" in first[film.patient])
    anew = share(lambda film: "Mass" in film.findings, lambda film: film.number and "Mass" not in first[film.patient])
    assert again > 0.6
    assert anew < 0.1


def test_the_same_settings_write_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        write_phantoms(tmp_path / name, patients=10, size=32, noise=0.02, seed=seed)
    one, two, other = (contents(tmp_path / name) for name in ("one", "two", "other"))
    assert len(one) > 14
    assert one == two
    assert all(one[name] != other[name] for name in (one.keys() & other.keys()) - {"README.txt"})


def test_the_table_has_the_official_header_and_columns(written):
    text = (written / "Data_Entry_2017_v2020.csv").read_text()
    assert text.splitlines()[0] == (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    drawn = films(patients=40, seed=1)
    rows = table(written)
    assert len(rows) == len(drawn) > 60
    for row, film in zip(rows, drawn, strict=True):
        assert len(row) == 11
        assert row[0] == f"{film.patient:08d}_{film.number:03d}.png" == name_of(film)
        assert row[2:9] == [str(film.number), str(film.patient), str(film.age), film.sex, film.view, "32", "32"]
        assert row[1] == ("|".join(film.findings) or "No Finding")
    words = {word for row in rows for word in row[1].split("|")}
    assert words == {*PHANTOM_LABELS, "No Finding"}
    assert max(int(row[2]) for row in rows) == 3


def test_every_image_of_the_table_lies_there_in_grey(written):
    names = {path.name for path in (written / "images").iterdir()}
    assert names == {row[0] for row in table(written)}
    with Image.open(written / "images" / min(names)) as image:
        assert (image.mode, image.size, image.format) == ("L", (32, 32), "PNG")


def test_the_folder_and_every_image_say_that_they_are_synthetic(written):
    paths = list((written / "images").iterdir())
    assert len(paths) > 60
    for path in paths:
        with Image.open(path) as image:
            assert image.info["Description"] == ORIGIN
    assert (written / "README.txt").read_text() == ORIGIN + "\n"


def test_the_lists_share_no_patient_and_hold_every_image_once_without_a_last_newline(written):
    named = lists(written)
    assert sorted(named["train_val"] + named["test"]) == [row[0] for row in table(written)]
    patients = {name: {image[:8] for image in images} for name, images in named.items()}
    assert not patients["train_val"] & patients["test"]
    # Three in ten of 40.
    assert len(patients["test"]) == len(held_out(patients=40, seed=1)) == 12
    assert not (written / "test_list.txt").read_text().endswith("\n")


def test_boxes_are_of_test_images_and_their_findings_in_the_official_files_words(written):
    lines = (written / "BBox_List_2017.csv").read_text().splitlines()
    assert lines[0] == "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    findings = {row[0]: row[1].split("|") for row in table(written)}
    held = lists(written)["test"]
    boxes = [line.split(",") for line in lines[1:]]
    assert len(boxes) > 8
    for image, word, *numbers in boxes:
        assert image in held
        assert word != "Infiltration"
        assert ("Infiltration" if word == "Infiltrate" else word) in findings[image]
        left, top, width, height = map(float, numbers[:4])
        assert numbers[4:] == ["", "", ""]
        assert min(left, top) >= 0 and max(left + width, top + height) <= 32
    assert len(boxes) < sum(name != "No Finding" for image in held for name in findings[image])


# The data set.


def test_the_real_reader_reads_them_and_says_what_they_are(cache):
    splits = Phantoms(patients=40, size=32, split_seed=1).load(0, None)
    assert splits.origin == ORIGIN
    assert "Synthetic" in ORIGIN
    assert splits.classes == PHANTOM_LABELS
    assert splits.several
    drawn = {name_of(film): film for film in films(patients=40, seed=1)}
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    assert sum(len(part) for part in parts.values()) == len(drawn)
    seen = {name: set(part.cases.patient.tolist()) for name, part in parts.items()}
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["validation"]
    assert seen["test"] == set(held_out(patients=40, seed=1))
    held = [film for film in drawn.values() if film.patient in seen["test"]]
    expected = torch.tensor([[float(label in film.findings) for label in PHANTOM_LABELS] for film in held])
    assert torch.equal(splits.test.labels, expected)
    assert torch.equal(
        splits.test[(0, 0)].image[0], torch.from_numpy(draw(held[0], size=32, noise=Phantoms().noise).image)
    )
    assert splits.test.cases.attributes["sex"] == tuple(film.sex for film in held)
    assert splits.test.cases.boxes
    assert all(splits.test.labels[box.example, box.label] == 1 for box in splits.test.cases.boxes)


def test_the_runs_seed_moves_neither_films_nor_splits(cache):
    data = Phantoms(patients=20, size=32)
    first, second = (data.load(seed, None) for seed in (0, 1))
    assert torch.equal(first.train.labels, second.train.labels)
    assert torch.equal(first.test[(0, 3)].image, second.test[(0, 3)].image)
    assert len(list(cache.iterdir())) == 1


def test_they_are_drawn_once_and_other_settings_lie_elsewhere(cache, monkeypatch):
    data = Phantoms(patients=10, size=32)
    place = data.folder()
    assert place.parent == cache
    monkeypatch.setattr(phantoms, "write_phantoms", lambda folder, **settings: folder.mkdir())
    others = (replace(data, patients=11), replace(data, size=33), replace(data, noise=0.1), replace(data, split_seed=1))
    assert len({place, *(other.folder() for other in others)}) == 5
    monkeypatch.setattr(phantoms, "write_phantoms", None)
    assert replace(data, augment=False).folder() == data.folder() == place


def test_a_write_that_was_killed_is_never_used(cache, monkeypatch):
    class KilledError(Exception):
        pass

    def killed(film, *, size, noise):
        if film.patient == 5:
            raise KilledError
        return draw(film, size=size, noise=noise)

    data = Phantoms(patients=10, size=32)
    with monkeypatch.context() as patch:
        patch.setattr(phantoms, "draw", killed)
        with pytest.raises(KilledError):
            data.folder()
    assert list(cache.iterdir()) == []
    write_phantoms(cache / "whole", patients=10, size=32, noise=data.noise, seed=0)
    assert contents(data.folder()) == contents(cache / "whole")


@pytest.mark.parametrize("lost", ["images/00000004_000.png", "test_list.txt", "BBox_List_2017.csv"])
def test_a_folder_that_lost_a_file_is_written_again(cache, lost):
    data = Phantoms(patients=10, size=32)
    whole = contents(data.folder())
    (data.folder() / lost).unlink()
    assert contents(data.folder()) == whole
    assert len(list(cache.iterdir())) == 1


def test_of_two_that_write_at_once_the_first_stays(cache, monkeypatch):
    data = Phantoms(patients=10, size=32)

    def overtaken(folder, **settings):
        write_phantoms(folder, **settings)
        monkeypatch.setattr(phantoms, "write_phantoms", write_phantoms)
        (data.folder() / "first").touch()

    monkeypatch.setattr(phantoms, "write_phantoms", overtaken)
    assert (data.folder() / "first").is_file()
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patients": 9}, "Phantoms.patients is a number from 10 to 100,000, got 9."),
        ({"size": 16}, "Phantoms.size is a side from 32 to 512 pixels, got 16."),
        ({"noise": float("nan")}, "Phantoms.noise is a share of the range of grey from 0 to 0.5, got nan."),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.") + "$"):
        Phantoms(**settings)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ValueError, match=r"Cannot write phantoms to .*Set DISTILL_CACHE to another folder\.") as error:
        Phantoms(patients=10, size=32).folder()
    assert os.linesep not in str(error.value)
