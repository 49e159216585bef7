from pathlib import Path

import pytest

from distill.data.folders import find_folder, inside


def test_a_relative_folder_is_looked_up_in_order(tmp_path, monkeypatch):
    here, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    monkeypatch.chdir(here_made(here))
    monkeypatch.setenv("DISTILL_DATA", str(elsewhere))
    shared = tmp_path / "shared" / "data" / "pets"
    shared.mkdir(parents=True)
    assert find_folder("pets").samefile(shared)
    (here / "data" / "pets").mkdir(parents=True)
    assert find_folder("pets").samefile(here / "data" / "pets")
    (elsewhere / "pets").mkdir(parents=True)
    assert find_folder("pets").samefile(elsewhere / "pets")


def here_made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_missing_folder_names_every_place_that_was_tried(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL_DATA", raising=False)
    with pytest.raises(ValueError, match=r"'pets'.*DISTILL_DATA \(not set\), data/pets, \.\./shared/data/pets"):
        find_folder("pets")
    monkeypatch.setenv("DISTILL_DATA", str(tmp_path / "mine"))
    with pytest.raises(ValueError, match=r"Tried .*mine/pets, data/pets, \.\./shared/data/pets") as error:
        find_folder("pets")
    assert "\n" not in str(error.value)


def test_an_absolute_folder_is_taken_as_it_is(tmp_path):
    assert find_folder(str(tmp_path)) == tmp_path
    with pytest.raises(ValueError, match="nowhere"):
        find_folder(str(tmp_path / "nowhere"))


def test_a_relative_folder_does_not_climb_out(tmp_path, monkeypatch):
    (tmp_path / "secret").mkdir()
    monkeypatch.setenv("DISTILL_DATA", str(tmp_path / "data"))
    with pytest.raises(ValueError, match=r"'\.\.'"):
        find_folder("../secret")


def test_a_file_that_leads_out_of_its_folder_is_refused(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "own.jpg").write_bytes(b"x")
    (root / "alias.jpg").symlink_to(root / "own.jpg")
    assert inside(root, root / "own.jpg") == root / "own.jpg"
    assert inside(root, root / "alias.jpg") == root / "alias.jpg"
    for name in ("link.jpg", "../secret.jpg", "/etc/passwd"):
        with pytest.raises(ValueError, match="leads out"):
            inside(root, root / name)
