"""Scores of several sources with their intervals, a panel for each score, as a PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from distill.picture.figure import drawing, grid, head, legible, save


def draw_ranking(
    path: Path, names: Sequence[str], panels: Mapping[str, Sequence[tuple[float, float, float]]], *, title: str
) -> None:
    """Draw each score's value and interval of every source, the sources from above in the order given.

    Raises:
        ValueError: matplotlib is not installed.
    """
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(2.0 + 1.9 * len(panels), 1.2 + 0.4 * len(names)), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        places = list(range(len(names)))
        for one, (score, values) in zip(axes, panels.items(), strict=True):
            for place, (value, low, high) in zip(places, values, strict=True):
                one.plot([low, high], [place, place], color="#0072B2", linewidth=1.6)
                one.plot([value], [place], "o", color="#0072B2", markersize=5)
            one.set_title(score, fontsize=10)
            one.tick_params(axis="x", labelsize=8)
            one.locator_params(axis="x", nbins=3)
            grid(one, "both")
        axes[0].set_yticks(places, [legible(name, 40) for name in names], parse_math=False)
        axes[0].invert_yaxis()
        head(figure, title, "")
        save(figure, path)
