"""Quality over cost, with what no other beats on both, as a PNG."""

from collections.abc import Sequence
from pathlib import Path

from distill.picture.figure import drawing, grid, head, legible, save


def draw_pareto(path: Path, spots: Sequence[tuple[str, float, float]], *, x: str, y: str, title: str) -> None:
    """Draw named points, and join those that no other beats: none is at once cheaper and better.

    spots: name, cost above zero, quality.

    Raises:
        ValueError: matplotlib is not installed.
    """
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 4.6), layout="constrained")
        axes = figure.subplots()
        front = sorted((cost, quality) for _, cost, quality in spots if not _beaten(cost, quality, spots))
        axes.plot([one[0] for one in front], [one[1] for one in front], "--", color="#777777", linewidth=1.2)
        for name, cost, quality in spots:
            beaten = _beaten(cost, quality, spots)
            axes.plot([cost], [quality], "o", color="#0072B2", markerfacecolor="white" if beaten else "#0072B2")
            axes.annotate(
                legible(name, 48),
                (cost, quality),
                xytext=(6, 4),
                textcoords="offset points",
                fontsize=9,
                parse_math=False,
            )
        axes.set(xscale="log", xlabel=x, ylabel=y)
        axes.margins(x=0.25, y=0.45)  # names of equal quality lean over each other's heads
        grid(axes, "both")
        head(figure, title, "")
        save(figure, path)


def _beaten(cost: float, quality: float, spots: Sequence[tuple[str, float, float]]) -> bool:
    others = ((other, better) for _, other, better in spots if (other, better) != (cost, quality))
    return any(other <= cost and better >= quality for other, better in others)
