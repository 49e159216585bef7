"""Whether probabilities keep what they promise: a reliability diagram as a PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from distill.picture.figure import drawing, grid, head, legend, save, styles

if TYPE_CHECKING:
    from matplotlib.artist import Artist

# Of 20 predictions the observed frequency has a standard error of up to a tenth.
FEW = 20


class Bin(Protocol):
    """A model's predictions between two probabilities: their count, mean probability, and the share that held."""

    @property
    def low(self) -> float: ...  # noqa: D102

    @property
    def high(self) -> float: ...  # noqa: D102

    @property
    def count(self) -> int: ...  # noqa: D102

    @property
    def confidence(self) -> float: ...  # noqa: D102

    @property
    def frequency(self) -> float: ...  # noqa: D102


def draw_reliability(path: Path, curves: Mapping[str, Sequence[Bin]], *, title: str, origin: str) -> None:
    """Draw each model's observed frequency over its predicted probability, and below how many predictions there are.

    curves: each model's bins, from the lowest; empty bins are left out. Bins of few predictions are hollow.
    origin: what the images are, where the picture must say so; empty else.

    Raises:
        ValueError: matplotlib is not installed.
    """
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.0, 7.1), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot([0, 1], [0, 1], linestyle="--", color="#777777", linewidth=1.2)
        entries: dict[str, Artist] = {}
        for model, style in styles(list(curves)).items():
            bins = [one for one in curves[model] if one.count > 0]
            places, heights = [one.confidence for one in bins], [one.frequency for one in bins]
            (line,) = upper.plot(
                places, heights, color=style.colour, marker=style.marker, markersize=7, lw=1.4, clip_on=False, zorder=3
            )
            few = [at for at, one in enumerate(bins) if one.count < FEW]
            upper.plot(
                [places[at] for at in few], [heights[at] for at in few], style.marker, color=style.colour,
                markersize=7, markerfacecolor="white", clip_on=False, zorder=3,
            )  # fmt: skip
            for drawn in upper.lines:
                drawn.set_in_layout(False)  # half a marker may lie outside, which is no reason to move the axes
            entries[model] = line
            lower.hlines(
                [one.count for one in bins], [one.low for one in bins], [one.high for one in bins], style.colour, lw=2.2
            )
        most = max([1000, *(one.count for bins in curves.values() for one in bins)])
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="observed frequency")
        lower.set(yscale="log", ylim=(0.7, 1.5 * most), ylabel="predictions\n(log scale)")
        lower.set_xlabel(f"predicted probability\n(dashed: what it promises; hollow: fewer than {FEW} predictions)")
        for axes in (upper, lower):
            grid(axes, "both")
        head(figure, title, origin)
        legend(upper, entries, 5.0)
        save(figure, path)
