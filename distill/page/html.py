"""HTML and SVG out of Python values, where text is escaped unless it was made here."""

import html
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Attributes = Mapping[str, str | float | bool | None]
_VOID = ("br", "img", "meta", "input")


class Markup(str):
    """Text that is HTML already; only `tag`, `join` and constants of this package make it."""

    __slots__ = ()


Child = str | int | Markup | Iterable["Child"] | None


def visible(text: str) -> str:
    """The text without control characters, direction marks and what else is not seen; lines stay, a tab is a space."""
    if text.isascii() and text.isprintable():
        return text
    kept = (
        character
        for character in text.replace("\t", " ")
        if character == "\n" or not unicodedata.category(character).startswith("C")
    )
    return "".join(kept)


def escaped(text: str) -> Markup:
    """Text from outside as HTML that shows it as it is, also within an attribute's quotes."""
    return Markup(html.escape(visible(text), quote=True))


def join(children: Child) -> Markup:
    """Children one after the other; text that is no markup is escaped."""
    if children is None:
        return Markup("")
    if isinstance(children, Markup):
        return children
    if isinstance(children, str | int):
        return escaped(str(children))
    return Markup("".join(map(join, children)))


def tag(name: str, attributes: Attributes | None = None, *children: Child) -> Markup:
    """An element. An attribute that is None or False is left out, and one that is True has no value."""
    words = [name]
    for key, value in (attributes or {}).items():
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{escaped(number(value) if isinstance(value, float) else str(value))}"')
    start = f"<{' '.join(words)}>"
    return Markup(start if name in _VOID else f"{start}{join(children)}</{name}>")


def number(value: float) -> str:
    """A coordinate: one decimal, none where it is whole."""
    return f"{value:.1f}".removesuffix(".0")


def data(value: Any) -> Markup:
    """A block of JSON for the page's script; nothing in it can end the block."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(f'<script type="application/json">{text.replace("<", chr(92) + "u003c")}</script>')


def paragraphs(lines: Sequence[str | None]) -> Markup:
    """One paragraph a line; none for what is None or empty."""
    return join([tag("p", None, line) for line in lines if line])


def preformatted(text: str, label: str) -> Markup:
    """Text as it is, line for line, which may be scrolled by keyboard."""
    return tag("pre", {"tabindex": "0", "role": "region", "aria-label": label}, text)


def folded(summary: str, *children: Child) -> Markup:
    """What is shown when it is asked for."""
    return tag("details", None, tag("summary", None, summary), *children)
