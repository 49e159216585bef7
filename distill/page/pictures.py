"""Pictures that the run drew itself, such as where the models look, taken into the page."""

import base64
import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from distill.page.gathered import Gathered
from distill.page.html import Child, Markup, join, tag

_MOST_BYTES = 1_200_000
_WIDEST = 1_000


def pictures(found: Gathered) -> Markup:
    """Every picture of the report with its caption; of what can't be shown, why. Empty where there is none."""
    left, parts = _MOST_BYTES, list[Child]()
    for caption, file in found.run.report.pictures:
        drawn = _read(found.run.folder, file)
        if isinstance(drawn, str):
            parts.append(tag("p", None, f"{caption}: {drawn}"))
        elif len(drawn) > left:
            parts.append(tag("p", None, f"{caption}: {file} in the run's folder, too large to take in here."))
        else:
            left -= len(drawn)
            source = f"data:image/png;base64,{base64.b64encode(drawn).decode()}"
            image = tag("img", {"src": source, "alt": caption, "class": "whole"})
            parts.append(tag("figure", {"class": "picture"}, image, tag("figcaption", None, caption)))
    return join(parts)


def _read(folder: Path, file: str) -> bytes | str:
    """The picture as PNG of at most 1,000 pixels across, or why there is none; nothing outside the folder is read."""
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()):
        return f"{file} is no file of the run's folder."
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
            if image.width > _WIDEST:
                image.thumbnail((_WIDEST, 20 * _WIDEST))
            out = io.BytesIO()
            image.convert("RGB").quantize(128).save(out, "PNG", optimize=True)
            return out.getvalue()
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError):
        return f"{file} can't be read."
