import math
from pathlib import Path
from typing import NamedTuple

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from distill.picture import draw_reliability
from tests.picture.seen import HOSTILE, overlapping, pixels, texts

ORIGIN = "Synthetic chest phantoms drawn by a program, not radiographs."


class Five(NamedTuple):
    """A bin as the metrics give it."""

    low: float
    high: float
    count: int  # type: ignore[assignment]
    confidence: float
    frequency: float


def bins(*counts: int) -> list[Five]:
    size = 1 / len(counts)
    return [
        Five(at * size, (at + 1) * size, count, (at + 0.5) * size if count else math.nan, 0.5 if count else math.nan)
        for at, count in enumerate(counts)
    ]


def test_each_model_has_its_line_and_its_counts(tmp_path: Path, figures: list[Figure]) -> None:
    curves = {"teacher": bins(900, 0, 40, 7), "plain": bins(700, 100, 100, 47)}
    draw_reliability(tmp_path / "a.png", curves, title="chest", origin=ORIGIN)
    upper, lower = figures[0].axes
    lines = [line for line in upper.lines if len(line.get_xdata()) > 2]
    # The empty bin is left out; the places are the mean probabilities.
    assert [list(line.get_xdata()) for line in lines] == [[0.125, 0.625, 0.875], [0.125, 0.375, 0.625, 0.875]]
    assert [list(line.get_ydata()) for line in lines] == [[0.5] * 3, [0.5] * 4]
    hollow = [list(line.get_xdata()) for line in upper.lines if line.get_markerfacecolor() == "white"]
    assert hollow == [[0.875], []]
    counts = [[segment[:, 1].tolist() for segment in one.get_segments()] for one in lower.collections
              if isinstance(one, LineCollection)]  # fmt: skip
    assert counts == [[[900, 900], [40, 40], [7, 7]], [[700, 700], [100, 100], [100, 100], [47, 47]]]
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"] and pixels(tmp_path / "a.png", (230, 159, 0)) > 50


def test_the_picture_says_what_the_images_are_and_nothing_lies_over_anything(
    tmp_path: Path, figures: list[Figure]
) -> None:
    curves = {name: bins(900, 100, 40, 7) for name in ("teacher", "plain", "initialized", "transferred")}
    title = "chest-phantoms: calibration over all findings of the 1,024 test images of 388 patients"
    for origin in (ORIGIN, ""):
        draw_reliability(tmp_path / "a.png", curves, title=title, origin=origin)
        assert overlapping(figures[-1]) == []
        assert (pixels(tmp_path / "a.png", (165, 0, 38)) > 50) == (origin != "")
    assert ORIGIN in texts(figures[0])


def test_names_from_outside_are_plain_text(tmp_path: Path, figures: list[Figure]) -> None:
    curves = {name: bins(5, 50) for name in HOSTILE}
    draw_reliability(tmp_path / "a.png", curves, title=" ".join(HOSTILE), origin=" ".join(HOSTILE))
    legend = figures[0].axes[0].get_legend()
    assert legend is not None and len(legend.get_texts()) == len(HOSTILE)
    assert [text.get_text() for text in legend.get_texts()][:2] == ["$\\frac{$", "_hidden"]
    assert overlapping(figures[0]) == []


def test_a_model_without_predictions_is_no_error(tmp_path: Path) -> None:
    draw_reliability(tmp_path / "a.png", {"teacher": bins(0, 0)}, title="chest", origin="")
    assert pixels(tmp_path / "a.png", (255, 255, 255)) > 1000
