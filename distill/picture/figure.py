"""What all pictures share: their look, whatever a user's settings are; texts from outside; and whole files only."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
_FONT = "DejaVu Sans"  # comes with matplotlib
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_LONGEST = 400


class Style(NamedTuple):
    """How a model is drawn in every picture."""

    colour: str
    marker: str


# Colours that the colour-blind tell apart (Okabe and Ito, 2008), and markers for print without colour.
_KNOWN: Mapping[str, Style] = {
    "teacher": Style("#000000", "D"),
    "plain": Style("#E69F00", "o"),
    "initialized": Style("#CC79A7", "s"),
    "transferred": Style("#0072B2", "^"),
}
_OTHERS = (Style("#009E73", "v"), Style("#56B4E9", "P"), Style("#D55E00", "X"), Style("#F0E442", "p"))


def check_pictures() -> None:
    """Refuse what would end in a picture where none can be drawn.

    Raises:
        ValueError: matplotlib is not installed; names the extra that brings it.
    """
    if find_spec("matplotlib") is None:
        raise ValueError("Pictures need matplotlib, which is not installed. Get it with pip install 'distill[report]'.")


def styles(models: Sequence[str]) -> dict[str, Style]:
    """Each model's style: teacher and the run's arms have always the same, others what is left, in their order."""
    others = [model for model in models if model not in _KNOWN]
    return {
        model: _KNOWN[model] if model in _KNOWN else _OTHERS[others.index(model) % len(_OTHERS)] for model in models
    }


@contextmanager
def drawing() -> Iterator[None]:
    """Inside, matplotlib has its own defaults and one known font, and puts the user's settings back afterwards.

    Raises:
        ValueError: matplotlib is not installed.
    """
    check_pictures()
    from matplotlib import rc_context, style

    with style.context("default"), rc_context({"font.family": _FONT, "axes.spines.top": False, "font.size": 10}):
        yield


def legible(text: str, most: int = _LONGEST) -> str:
    """One line that the font can show: at most so many characters, and a sign in place of what it has no glyph for."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont(_FONT))
    line = " ".join(text.split())
    line = line if len(line) <= most else f"{line[: most - 1]}…"
    return "".join(one if one.isprintable() and font.get_char_index(ord(one)) else _UNKNOWN for one in line)


def head(figure: "Figure", title: str, origin: str) -> None:
    """Write the title above, and below, where it is not empty, what the images are; the figure grows by their lines."""
    width, height = figure.get_size_inches()
    above = textwrap.wrap(legible(title), max(20, int(width * 9)))
    below = textwrap.wrap(legible(origin), max(20, int(width * 11)))
    figure.set_size_inches(width, height + 0.2 * len(above) + 0.18 * len(below))
    figure.suptitle("\n".join(above), x=0.01, ha="left", fontsize=12, parse_math=False)
    if below:
        figure.supxlabel("\n".join(below), x=0.01, ha="left", fontsize=10, color="#A50026", parse_math=False)


def legend(axes: "Axes", entries: Mapping[str, "Artist"], width: float) -> None:
    """A line of models above the axes, or several where the names need more than so many inches."""
    names = [legible(name, 40) for name in entries]
    inches = [0.45 + 0.08 * len(name) for name in names]
    columns = len(names) if sum(inches) <= width else max(1, int(width / max(inches)))
    # matplotlib 3.9 leaves out names that begin with an underscore, and all read dollars as mathematics, until told.
    drawn = axes.legend(
        list(entries.values()), ["model"] * len(names), loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns,
        frameon=False, fontsize=10, borderaxespad=0.3, handletextpad=0.4, handlelength=1.5, columnspacing=1.2,
    )  # fmt: skip
    for text, name in zip(drawn.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def save(figure: "Figure", path: Path) -> None:
    """Write the picture to a file beside its own, and put it in place when it is whole."""
    draft = path.with_name(f".{path.name}.draft")
    figure.savefig(draft, format="png", dpi=DPI)
    draft.replace(path)


def grid(axes: "Axes", axis: str) -> None:
    """Thin lines behind what is drawn, along one axis or "both"."""
    axes.grid(axis=axis, color="#DDDDDD", linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
