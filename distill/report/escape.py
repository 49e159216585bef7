"""Text from outside, such as names and notes, made safe to show: it cannot mark up, hide or recolour anything."""

import re
import unicodedata

_SPACES = re.compile(r"\s+")
# An underscore inside a word marks nothing up.
_MARKDOWN = re.compile(r"[\\`*\[\]|~#]|(?<![^\W_])_|_(?![^\W_])")
# What makes a list, a rule or a heading of a line that begins with it.
_BLOCK = re.compile(r"^(\d*)([-+=.)])")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def clean(text: str) -> str:
    """One line without control characters, direction marks and what else is not seen; white space is one space."""
    one_line = _SPACES.sub(" ", text)
    return "".join(character for character in one_line if not unicodedata.category(character).startswith("C"))


def markdown_text(text: str) -> str:
    """Cleaned text that Markdown and HTML show as it is, within a line, a heading or a table's cell."""
    text = _MARKDOWN.sub(r"\\\g<0>", clean(text).strip())
    return "".join(_HTML.get(character, character) for character in text)


def markdown_line(text: str) -> str:
    """The same where the text begins a line or a list's item."""
    return _BLOCK.sub(r"\1\\\2", markdown_text(text))
