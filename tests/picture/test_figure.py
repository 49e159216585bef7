from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from distill.picture import draw_labels, draw_similarities
from distill.picture.figure import legible, save, styles
from tests.picture.seen import pixels

ROW = {"teacher": [(0.8, 0.7, 0.9)]}


def test_a_model_has_the_same_style_in_every_company() -> None:
    alone, together = styles(["transferred"]), styles(["teacher", "plain", "initialized", "transferred"])
    assert alone["transferred"] == together["transferred"]
    assert len({style.colour for style in together.values()}) == len({style.marker for style in together.values()}) == 4
    others = styles(["small", "teacher", "large"])
    assert others["teacher"] == together["teacher"]
    assert len({*others.values(), *together.values()}) == 6


def test_text_is_one_line_of_what_the_font_has() -> None:
    assert legible("Pleural_Thickening $x$") == "Pleural_Thickening $x$"
    assert legible("a\nb\t c\x07\u202e") == "a b c\ufffd\ufffd"
    assert legible("é胸ß") == "é\ufffdß"
    assert legible("x" * 50, 10) == "x" * 9 + "…"


def test_a_picture_is_the_same_whatever_the_users_settings_are_and_leaves_them(tmp_path: Path) -> None:
    draw_labels(tmp_path / "a.png", ["Mass"], ROW, metric="AUROC", title="run", origin="")
    hostile = {"text.usetex": True, "axes.facecolor": "red", "savefig.dpi": 10, "font.size": 30, "font.family": "none"}
    with matplotlib.rc_context(hostile):
        draw_labels(tmp_path / "b.png", ["Mass"], ROW, metric="AUROC", title="run", origin="")
        assert matplotlib.rcParams["text.usetex"] is True and matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_picture_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"before")

    def fail(self: Figure, target: Path, **settings: object) -> None:
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save(Figure(), path)
    assert path.read_bytes() == b"before"


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.picture.figure.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'distill\[report\]'"):
        draw_labels(tmp_path / "a.png", ["Mass"], ROW, metric="AUROC", title="run", origin="")


def test_similarities_are_drawn_under_a_title_that_is_no_mathematics(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    names = ["layer1", "layer2"]
    draw_similarities(path, [[1.0, 0.0], [0.0, 1.0]], rows=names, columns=names, marks=[(0, 0)], title="$\\frac{$")
    assert pixels(path, (68, 1, 84)) > 100  # viridis at 0
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]
