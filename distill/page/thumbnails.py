"""The examples that models answer differently, as small pictures or as texts, read through the run's data."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from distill.data import Splits, TextSplits

SIDE = 96
MOST = 40
_TEXT = 280


@dataclass(frozen=True)
class Shown:
    """One example: a picture as a data URI and its sides in pixels, or a text; the other is empty."""

    picture: str = ""
    width: int = 0
    height: int = 0
    text: str = ""


def shown(splits: Splits | TextSplits, numbers: Sequence[int]) -> dict[int, Shown]:
    """{number: example} of up to 40 of the test examples.

    Raises:
        ValueError: a number that is not in the test split, as where the data have changed since; or an image that
            can't be read.
    """
    wanted = list(dict.fromkeys(numbers))[:MOST]
    beyond = [number for number in wanted if not 0 <= number < len(splits.test)]
    if beyond:
        raise ValueError(f"test example {beyond[0]} is not among the data's {len(splits.test)}: they have changed")
    if isinstance(splits, TextSplits):
        return {number: Shown(text=_text(splits.test.texts[number])) for number in wanted}
    return {number: _picture(splits.test[(0, number)].image) for number in wanted}


def _text(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT].rstrip()}…"


def _picture(image: torch.Tensor) -> Shown:
    """PNG of small images, which must stay sharp; JPEG of larger ones."""
    pixels = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1]
    array = pixels.permute(1, 2, 0).numpy()
    drawn = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    small = max(drawn.size) <= SIDE
    drawn.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    drawn.save(out, "PNG" if small else "JPEG", **({"optimize": True} if small else {"quality": 80}))
    kind = "png" if small else "jpeg"
    return Shown(f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}", *drawn.size)
