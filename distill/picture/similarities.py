"""How alike the layers of two models are: a heat map as a PNG."""

from collections.abc import Sequence
from pathlib import Path

from distill.picture.figure import check_pictures, save


def draw_similarities(
    path: Path,
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    marks: Sequence[tuple[int, int]],
    title: str,
) -> None:
    """Draw the CKA, in [0, 1], of each layer of the student (a row) with each of the teacher (a column).

    rows, columns: the layers' names, first layer at the top and on the left. marks: positions (row, column) of the
    pairs that were chosen, numbered from 1 in their order.

    Raises:
        ValueError: matplotlib is not installed.
    """
    check_pictures()
    from matplotlib.figure import Figure

    cell, label = 0.34, 0.075
    width = cell * len(columns) + label * max(map(len, rows)) + 1.8
    height = cell * len(rows) + label * max(map(len, columns)) + 1.2
    figure = Figure(figsize=(max(width, 5.0), max(height, 3.5)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="viridis", vmin=0.0, vmax=1.0, aspect="equal")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xlabel("teacher, first layer on the left")
    axes.set_ylabel("student, first layer at the top")
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    for number, (row, column) in enumerate(marks, 1):
        for colour, line in (("black", 3.0), ("white", 1.4)):
            axes.plot(column, row, "s", markersize=19, markerfacecolor="none", markeredgecolor=colour, mew=line)
        text = axes.text(column, row, str(number), ha="center", va="center", fontsize=9, color="black", weight="bold")
        text.set_bbox({"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "none"})
    figure.colorbar(image, ax=axes, label="linear CKA", shrink=0.8)
    save(figure, path)
