"""The page as a whole: one file that asks nothing of a network, with its style and script inside."""

import base64
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

from distill.page import closing, inside, opening, quality, training
from distill.page.gathered import Gathered
from distill.page.html import Child, Markup, join, paragraphs, tag
from distill.page.pictures import pictures


class Section(NamedTuple):
    """A part of the page: its place in the address, its title, and what draws it."""

    place: str
    title: str
    drawn: Callable[[Gathered], Markup]


_SECTIONS = (
    Section("numbers", "Quality and cost", opening.headline),
    Section("curves", "Learning curves", training.curves),
    Section("cost", "Quality against cost", quality.cost),
    Section("classes", "Gains by class", quality.classes),
    Section("reliability", "Reliability", quality.reliability),
    Section("likeness", "Like the teacher?", quality.likeness),
    Section("alike", "Layers alike (CKA)", inside.alike),
    Section("layers", "Layer map", inside.layers),
    Section("examples", "Where models differ", inside.examples),
    Section("terms", "What each term is worth", quality.ablations),
    Section("time", "Time of training", training.time),
    Section("pictures", "Pictures", pictures),
    Section("runs", "Every run", lambda found: closing.every_run(found.run.report)),
    Section("recipe", "Recipe, and again", closing.recipe),
    Section("made", "Made with", lambda found: closing.made_with(found.run.report)),
)


def document(found: Gathered) -> str:
    """The page's HTML."""
    report = found.run.report
    missing = _missing(found)
    drawn = [(one, markup) for one in _SECTIONS if one.place not in missing and (markup := one.drawn(found))]
    if missing:
        titles = [one.title for one in _SECTIONS if one.place in missing]
        lack = Section(
            "missing", "Not on this page", lambda found: paragraphs([f"{', '.join(titles)}.", found.no_comparison])
        )
        drawn.append((lack, lack.drawn(found)))
    body = join([opening.verdict(found), *(markup for _, markup in drawn)])
    parts = [(one.place, one.title, markup) for one, markup in drawn]
    parts.append(("words", "Words", closing.glossary(body)))
    links = [tag("li", None, tag("a", {"href": f"#{place}"}, title)) for place, title, _ in parts]
    contents = tag("nav", {"aria-label": "Contents"}, tag("ul", None, links))
    head = tag("h1", None, tag("span", {"class": "kind"}, "Report of a run"), report.name)
    sections = [
        tag("section", {"id": place, "aria-labelledby": f"{place}-title"},
            tag("h2", {"id": f"{place}-title"}, title), markup)
        for place, title, markup in parts
    ]  # fmt: skip
    theme = tag("button", {"id": "theme", "type": "button", "hidden": True}, "Dark")
    main = tag("main", {"id": "main"}, tag("header", None, head, opening.verdict(found)), sections)
    skip = tag("a", {"class": "skip", "href": "#main"}, "To the report")
    saying = (
        tag("div", {"id": "reading", "hidden": True}),
        tag("p", {"id": "said", "class": "unseen", "role": "status"}),
    )
    return _whole(report.name, join([skip, theme, tag("div", {"class": "page"}, contents, main), *saying]))


def _missing(found: Gathered) -> tuple[str, ...]:
    """Places of the sections of which there is nothing to show without a comparison."""
    if found.comparison is not None:
        return ()
    without = ("reliability", "likeness", "alike", "examples")
    return without if found.run.report.by_label is not None else ("classes", *without)


def _whole(name: str, body: Child) -> str:
    style, script = (_own(file) for file in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    head = [
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        tag("meta", {"name": "referrer", "content": "no-referrer"}),
        tag("title", None, f"{name}: report"),
        Markup(f"<style>{style}</style>"),
    ]
    page = tag(
        "html", {"lang": "en"}, tag("head", None, head), tag("body", None, body, Markup(f"<script>{script}</script>"))
    )
    return f"<!DOCTYPE html>\n{page}\n"


def _own(file: str) -> str:
    """The text of a file of this package."""
    return files("distill.page").joinpath(file).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What lets the browser run this text and nothing else."""
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
