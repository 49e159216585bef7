"""Where models look, over the images themselves: rows of examples and columns of models as a PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from distill.picture.figure import drawing, head, legible, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CELL = 2.3
# The image stays to be seen where a map is highest.
_STRONGEST = 0.65
# Stands out from grey, on black and on white.
_MAP = "autumn_r"
_EXTENT = (0.0, 1.0, 1.0, 0.0)


class MapRow(NamedTuple):
    """One example and one label of it, with each model's map and probability of that label.

    image: uint8 (C, H, W), grey or colour. label: what is asked about, in words.
    boxes: where it is, (left, top, right, bottom) in shares of width and height; none where nobody has marked it.
    maps: for each model (H, W) in [0, 1], of any resolution. probabilities: for each model, in [0, 1].
    """

    image: Tensor
    label: str
    boxes: Sequence[tuple[float, float, float, float]]
    maps: Sequence[Tensor]
    probabilities: Sequence[float]


def draw_maps(path: Path, rows: Sequence[MapRow], *, models: Sequence[str], title: str, origin: str) -> None:
    """Draw each example as it is, with its boxes, and beside it with each model's map over it.

    rows: at least one; about six fit a page. models: their names, in the order of each row's maps.
    origin: what the images are, where the picture must say so; empty else.

    Raises:
        ValueError: matplotlib is not installed.
    """
    assert rows and all(len(row.maps) == len(row.probabilities) == len(models) for row in rows)
    with drawing():
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize
        from matplotlib.figure import Figure

        columns = 1 + len(models)
        size = (_CELL * columns + 0.9, (_CELL + 0.35) * len(rows) + 0.6)
        figure = Figure(figsize=size, layout="constrained")
        cells = figure.subplots(len(rows), columns, squeeze=False)
        for row, (first, *others) in zip(rows, cells, strict=True):
            _draw_image(first, row)
            first.set_title(legible(row.label, 30), fontsize=10, parse_math=False)
            for cell, values, probability in zip(others, row.maps, row.probabilities, strict=True):
                _draw_image(cell, row)
                shown = values.float().nan_to_num(0.0).cpu().numpy()
                cell.imshow(
                    shown,
                    alpha=_STRONGEST * shown,
                    cmap=_MAP,
                    vmin=0,
                    vmax=1,
                    extent=_EXTENT,
                    aspect=cell.get_aspect(),
                    interpolation="bilinear",
                )
                blank = "" if shown.max() > 0 else ", map is empty"
                cell.set_title(f"probability {probability:.2f}{blank}", fontsize=10)
        for cell, name in zip(cells[0], ("image", *models), strict=True):
            name = legible(name, 24)
            cell.set_title(f"{name}\n{cell.get_title()}", fontsize=10, parse_math=False)
        bar = figure.colorbar(
            ScalarMappable(Normalize(0, 1), _MAP), ax=cells.ravel().tolist(), shrink=min(1.0, 1.6 / len(rows)),
            fraction=0.03, label="share of the map's maximum",
        )  # fmt: skip
        bar.outline.set_visible(False)
        head(figure, title, origin)
        save(figure, path)


def _draw_image(axes: "Axes", row: MapRow) -> None:
    from matplotlib.patches import Rectangle

    image = row.image.cpu()
    height, width = image.shape[-2:]
    pixels = image.permute(1, 2, 0) if len(image) == 3 else image.float().mean(0)
    axes.imshow(
        pixels.numpy(), cmap="gray", vmin=0, vmax=255, extent=_EXTENT, aspect=height / width, interpolation="bilinear"
    )
    axes.set(xticks=[], yticks=[])
    axes.set_axis_off()
    for left, top, right, bottom in row.boxes:
        for colour, line in (("black", 2.8), ("#56FFFF", 1.4)):
            axes.add_patch(
                Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=line)
            )
