"""How good each model is at each label, with intervals: a forest plot as a PNG."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill.picture.figure import drawing, grid, head, legend, legible, save, styles

if TYPE_CHECKING:
    from matplotlib.artist import Artist

# Value, and the ends of its interval.
Estimate = tuple[float, float, float]


def draw_labels(
    path: Path,
    labels: Sequence[str],
    rows: Mapping[str, Sequence[Estimate]],
    *,
    metric: str,
    title: str,
    origin: str,
    chance: float | None = None,
) -> None:
    """Draw a dot with its interval for each label and each model, the first label at the top.

    rows: each model's (value, low, high) of every label. A value that is NaN is left out, and an interval that is NaN.
    metric: what the values are, in words. chance: the value of guessing, 0.5 for the AUROC, where there is one.
    origin: what the images are, where the picture must say so; empty else.

    Raises:
        ValueError: matplotlib is not installed.
    """
    assert labels and rows and all(len(values) == len(labels) for values in rows.values())
    with drawing():
        from matplotlib.figure import Figure

        step = 0.8 / len(rows)
        figure = Figure(figsize=(8.0, len(labels) * max(0.3, 0.15 * len(rows)) + 1.5), layout="constrained")
        axes = figure.subplots()
        for place in range(0, len(labels), 2):
            axes.axhspan(place - 0.5, place + 0.5, color="#F3F3F3", zorder=0, linewidth=0)
        if chance is not None:
            axes.axvline(chance, color="#555555", linestyle="--", linewidth=1.2)
        entries: dict[str, Artist] = {}
        for order, (model, style) in enumerate(styles(list(rows)).items()):
            known = [(place, *values) for place, values in enumerate(rows[model]) if not math.isnan(values[0])]
            places = [place + (order - (len(rows) - 1) / 2) * step for place, *_ in known]
            (entries[model],) = axes.plot(
                [value for _, value, _, _ in known], places, style.marker, color=style.colour, markersize=6
            )
            axes.hlines(
                places, [low for _, _, low, _ in known], [high for *_, high in known], color=style.colour, lw=1.6
            )
        for place in range(len(labels)):
            if all(math.isnan(values[place][0]) for values in rows.values()):
                axes.annotate(
                    "not defined", (1, place), (-6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                    ha="right", va="center", fontsize=9, color="#666666",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
                )  # fmt: skip
        axes.set_yticks(range(len(labels)), [legible(label, 40) for label in labels], parse_math=False)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(
            legible(metric, 50) + ("" if chance is None else f"  (dashed: chance, {chance:g})"), parse_math=False
        )
        axes.spines["right"].set_visible(False)
        grid(axes, "x")
        head(figure, title, origin)
        legend(axes, entries, 6.0)
        save(figure, path)
