"""A run's folder is one run's at a time."""

from pathlib import Path

import pytest

from distill.folder import holding


def test_a_folder_is_held_by_one_run_and_free_behind_it(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    with holding(folder):
        with holding(tmp_path / "runs" / "other"):
            pass
        again = pytest.raises(ValueError, match=r"Another run is at work in .*one\. Wait until it ends, or choose")
        with again, holding(folder):
            pass
    with holding(folder):
        pass


def test_a_place_that_cant_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    refused = pytest.raises(ValueError, match=r"can't be written: .*Choose another folder with --root")
    with refused, holding(tmp_path / "runs" / "one"):
        pass
