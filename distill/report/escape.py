"""Text from outside, such as names and notes, made safe to show: it cannot mark up, hide or recolour anything."""

import re
import unicodedata

_SPACES = re.compile(r"\s+")
_MARKDOWN = re.compile(r"[\\`*_\[\]|~#]")
_BLOCK = re.compile(r"^(?:[-+=]|\d+(?=[.)]))")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def clean(text: str) -> str:
    """One line without control characters, direction marks and what else is not seen; white space is one space."""
    one_line = _SPACES.sub(" ", text)
    return "".join(character for character in one_line if not unicodedata.category(character).startswith("C"))


def markdown_text(text: str) -> str:
    """Cleaned text that Markdown, its tables and HTML show as it is, at the start of a line too."""
    text = _MARKDOWN.sub(r"\\\g<0>", clean(text).strip())
    text = "".join(_HTML.get(character, character) for character in text)
    return _BLOCK.sub(lambda found: found[0] + "\\" if found[0].isdigit() else "\\" + found[0], text)
