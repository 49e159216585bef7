import math
from pathlib import Path

import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from distill.picture import draw_labels
from tests.picture.seen import HOSTILE, overlapping, pixels, texts

ORIGIN = "Synthetic chest phantoms drawn by a program, not radiographs."
NAN = (math.nan, math.nan, math.nan)
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip


def test_each_value_has_its_dot_and_its_interval_and_what_is_not_defined_is_left_out(
    tmp_path: Path, figures: list[Figure]
) -> None:
    rows = {
        "teacher": [(0.9, 0.8, 0.95), NAN, (0.7, math.nan, math.nan)],
        "plain": [(0.8, 0.7, 0.9), NAN, (0.6, 0.5, 0.7)],
    }
    draw_labels(tmp_path / "a.png", FINDINGS[:3], rows, metric="AUROC", title="chest", origin=ORIGIN, chance=0.5)
    (axes,) = figures[0].axes
    dots = [line for line in axes.lines if line.get_marker() not in ("None", "")]
    assert [list(line.get_xdata()) for line in dots] == [[0.9, 0.7], [0.8, 0.6]]
    # Two models stand 0.4 of a label apart, around it.
    assert [list(line.get_ydata()) for line in dots] == [[-0.2, 1.8], [0.2, 2.2]]
    ends = [[segment[:, 0].tolist() for segment in one.get_segments() if len(segment)] for one in axes.collections
            if isinstance(one, LineCollection)]  # fmt: skip
    assert ends[1] == [[0.7, 0.9], [0.5, 0.7]] and ends[0][0] == [0.8, 0.95]
    assert texts(figures[0]).count("not defined") == 1
    chance = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in chance] == [[0.5, 0.5]]
    assert axes.get_ylim() == (2.5, -0.5)  # the first label at the top
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"] and pixels(tmp_path / "a.png", (230, 159, 0)) > 50


def test_without_chance_there_is_no_such_line(tmp_path: Path, figures: list[Figure]) -> None:
    draw_labels(tmp_path / "a.png", ["Mass"], {"teacher": [NAN]}, metric="precision", title="chest", origin="")
    assert [line for line in figures[0].axes[0].lines if line.get_linestyle() == "--"] == []


@pytest.mark.parametrize("models", [1, 4])
def test_the_picture_says_what_the_images_are_and_nothing_lies_over_anything(
    models: int, tmp_path: Path, figures: list[Figure]
) -> None:
    rows = {name: [(0.8, 0.7, 0.9)] * 14 for name in ("teacher", "plain", "initialized", "transferred")[:models]}
    draw_labels(tmp_path / "a.png", FINDINGS, rows, metric="AUROC", title="chest " * 30, origin=ORIGIN, chance=0.5)
    assert overlapping(figures[0]) == []
    assert ORIGIN in texts(figures[0]) and pixels(tmp_path / "a.png", (165, 0, 38)) > 50


def test_names_from_outside_are_plain_text(tmp_path: Path, figures: list[Figure]) -> None:
    rows = {name: [(0.8, 0.7, 0.9)] * len(HOSTILE) for name in HOSTILE}
    whole = " ".join(HOSTILE)
    draw_labels(tmp_path / "a.png", HOSTILE, rows, metric=whole, title=whole, origin=whole)
    legend = figures[0].axes[0].get_legend()
    assert legend is not None and len(legend.get_texts()) == len(HOSTILE)
    assert figures[0].axes[0].get_yticklabels()[0].get_text() == "$\\frac{$"
    assert overlapping(figures[0]) == []
