"""Whatever text comes from outside is shown as it is, and nothing of it becomes part of the page."""

import json
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from distill.page.html import Markup, data, escaped, join, tag


class Reader(HTMLParser):
    """What a browser would make of a piece of HTML: its tags and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


@given(st.text(alphabet=st.characters(exclude_categories=["C"])))
def test_any_text_and_attribute_comes_back_as_it_was(words: str) -> None:
    reader = read(tag("p", {"title": words}, words, tag("b", None, words)))
    assert [name for name, _ in reader.tags] == ["p", "b"]
    assert reader.tags[0][1] == [("title", words)]
    assert reader.text == words * 2


@given(st.text())
def test_a_block_of_data_cannot_be_left_and_says_the_same(words: str) -> None:
    block = data({"name": words})
    inner = block.removeprefix('<script type="application/json">').removesuffix("</script>")
    assert "<" not in inner
    assert json.loads(inner) == {"name": words}


def test_what_is_not_seen_is_left_out_and_lines_stay() -> None:
    turned = "a\u202eb\x1b[31mc\u200bd\x00e\ud800f\n\tg"
    assert escaped(turned) == "ab[31mcdef\n g"


def test_markup_is_kept_and_its_children_are_escaped() -> None:
    assert join([Markup("<b>"), "<i>", ["&", None, 3]]) == "<b>&lt;i&gt;&amp;3"
    assert tag("input", {"disabled": True, "hidden": False, "id": None, "x": 1.25}) == '<input disabled x="1.2">'
