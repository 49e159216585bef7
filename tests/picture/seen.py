"""What the pictures of this folder are looked at with."""

from itertools import combinations
from pathlib import Path

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

# Malformed mathematics, a name that legends leave out, glyphs that no font here has, controls, and length.
HOSTILE = (
    "$\\frac{$",
    "_hidden",
    "胸部 \N{SKULL}\U0001fac1",
    "a\nb\tc\x07\u202e",
    "<b>&amp;%s{0}\\n</b>",
    "long " * 100,
    "",
)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in _seen(figure)]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts of which one lies over the other, and texts that leave the figure."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in _seen(figure)]
    pairs = [(one, other) for (one, first), (other, second) in combinations(boxes, 2) if first.overlaps(second)]
    left, _, right, _ = figure.bbox.padded(1.0).extents
    return pairs + [(one, "the edge") for one, box in boxes if box.x0 < left or box.x1 > right]


def pixels(path: Path, colour: tuple[int, int, int]) -> int:
    """How many pixels of a picture have exactly this colour."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        colours = image.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    return sum(count for count, one in colours if one == colour)


def _seen(figure: Figure) -> list[Text]:
    """All texts but those at ticks, of which matplotlib keeps some outside the axes that it does not draw."""
    ticks = {id(text) for axis in figure.findobj(Axis) for text in axis.findobj(Text) if text is not axis.label}
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and id(text) not in ticks]
    return [text for text in texts if text.get_visible() and text.get_text()]
