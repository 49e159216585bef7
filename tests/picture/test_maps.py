import math
from pathlib import Path

import torch
from matplotlib.figure import Figure

from distill.picture import MapRow, draw_maps
from tests.picture.seen import HOSTILE, overlapping, pixels, texts

ORIGIN = "Synthetic chest phantoms drawn by a program, not radiographs."
BOX = (0.25, 0.25, 0.5, 0.75)


def row(models: int, *, channels: int = 1, label: str = "Mass", size: tuple[int, int] = (8, 8)) -> MapRow:
    """A mid-grey image; each model looks at its upper left quarter, with a map of its own resolution."""
    maps = []
    for model in range(models):
        values = torch.zeros(2 * (model + 1), 2 * (model + 1))
        values[: model + 1, : model + 1] = 1.0
        maps.append(values)
    image = torch.full((channels, *size), 128, dtype=torch.uint8)
    return MapRow(image, label, [BOX], maps, [0.25] * models)


def test_the_image_its_box_and_a_map_for_each_model_are_drawn(tmp_path: Path, figures: list[Figure]) -> None:
    path = tmp_path / "a.png"
    draw_maps(path, [row(2), row(2, channels=3)], models=("teacher", "plain"), title="chest", origin=ORIGIN)
    cells = [axes for axes in figures[0].axes if axes.images]
    titles = [axes.get_title() for axes in cells]
    assert titles == ["image\nMass", "teacher\nprobability 0.25", "plain\nprobability 0.25", "Mass"] + 2 * [
        "probability 0.25"
    ]
    assert [len(axes.images) for axes in cells] == [1, 2, 2] * 2
    assert all(axes.patches[-1].get_bbox().extents.tolist() == list(BOX) for axes in cells)
    # All cells of a row show the whole image at one size, whatever the map's resolution.
    assert all(axes.images[-1].get_extent() == [0.0, 1.0, 1.0, 0.0] for axes in cells)
    assert len({tuple(axes.get_position().size.round(6)) for axes in cells}) == 1
    # 0.65 of red over grey 128 is 0.35 * 128 + 0.65 * 255 = 210.55, and 0.35 * 128 = 44.8; blended in eight bits.
    assert sum(pixels(path, (red, 45, 45)) for red in (209, 210, 211)) > 1000
    assert pixels(path, (128, 128, 128)) > 10_000


def test_the_picture_says_what_the_images_are_and_nothing_lies_over_anything(
    tmp_path: Path, figures: list[Figure]
) -> None:
    row_of_four = row(4, label="Pleural_Thickening", size=(6, 9))
    for origin in (ORIGIN, ""):
        models = ("teacher", "plain", "initialized", "transferred")
        draw_maps(tmp_path / "a.png", [row_of_four], models=models, title="chest " * 30, origin=origin)
        assert overlapping(figures[-1]) == []
        assert (pixels(tmp_path / "a.png", (165, 0, 38)) > 50) == (origin != "")
    assert ORIGIN in texts(figures[0])


def test_an_empty_map_is_said_to_be_empty(tmp_path: Path, figures: list[Figure]) -> None:
    first = row(2)
    maps = [torch.zeros(2, 2), torch.full((2, 2), math.nan)]
    empty = first._replace(maps=maps, probabilities=[0.5, math.nan], boxes=[])
    draw_maps(tmp_path / "a.png", [empty], models=("teacher", "plain"), title="chest", origin="")
    assert [text for text in texts(figures[0]) if "empty" in text] == [
        "teacher\nprobability 0.50, map is empty",
        "plain\nprobability nan, map is empty",
    ]
    assert overlapping(figures[0]) == []


def test_names_from_outside_are_plain_text(tmp_path: Path, figures: list[Figure]) -> None:
    rows, whole = [row(3, label=label) for label in HOSTILE[3:5]], " ".join(HOSTILE)
    draw_maps(tmp_path / "a.png", rows, models=HOSTILE[:3], title=whole, origin=whole)
    assert "$\\frac{$\nprobability 0.25" in texts(figures[0])
    assert overlapping(figures[0]) == []
