"""The page in a real browser: nothing goes wrong or leaves it, all is drawn, sorts, tells and saves; for everybody."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distill.page import write_page
from tests.page.made import CLASSES, HOSTILE, full_run, splits_of

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make install")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no chromium: apt-get install chromium")
WIDTHS = (360, 1440)
# Of the terms in their plan: validation accuracy and nll, weighted terms, four raw ones, and three that are folded.
CURVES = 2 + 1 + 4 + 3
# Cost, gains by class, reliability, CKA before and after, the layer map, what terms are worth, time.
MARKS = 3 + 1 + 3 + 2 + 1 + 1 + 1


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = full_run(tmp_path_factory.mktemp("page") / "a <b>run")
    return write_page(run, splits_of(run))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


class Open:
    """A page that was opened, with all that it said and asked for."""

    def __init__(self, browser: Any, file: Path, width: int = 1440, theme: str = "light") -> None:
        size = {"width": width, "height": 900}
        self.context = browser.new_context(viewport=size, color_scheme=theme, accept_downloads=True)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Open]:
    found = Open(browser, file)
    yield found
    found.context.close()


def outside(urls: list[str]) -> list[str]:
    return [url for url in urls if not url.startswith(("data:", "blob:"))]


def test_nothing_goes_wrong_and_nothing_leaves_the_page(opened: Open, file: Path) -> None:
    opened.page.get_by_text("Learning rate, gradient norm, speed").click()
    opened.page.mouse.wheel(0, 20_000)
    assert opened.said == []
    assert outside(opened.asked) == [file.as_uri()]


def test_every_plot_is_drawn(opened: Open) -> None:
    for summary in opened.page.locator("summary").all():
        summary.click()
    plots = opened.page.locator(".plot svg")
    assert plots.count() == CURVES + MARKS
    boxes = [plot.bounding_box() for plot in plots.all()]
    assert all(box["width"] > 150 and box["height"] > 40 for box in boxes)
    drawn = opened.page.evaluate(
        "[...document.querySelectorAll('.plot svg')].map(svg => { const box = svg.getBBox();"
        " return [svg.querySelectorAll('.curve, .mark').length, box.width, box.height]; })"
    )
    assert all(marks > 0 and width > 100 and height > 20 for marks, width, height in drawn)
    assert "NaN" not in opened.page.evaluate("[...document.querySelectorAll('svg')].map(svg => svg.outerHTML).join()")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, file: Path, width: int, theme: str) -> None:
    found = Open(browser, file, width, theme)
    found.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    violations = axe.Axe().run(found.page).response["violations"]
    serious = [
        (one["id"], one["nodes"][0]["html"][:200], one["nodes"][0].get("failureSummary", "")[:300])
        for one in violations
        if one["impact"] in ("serious", "critical")
    ]
    found.context.close()
    assert serious == []


def test_a_phone_never_scrolls_sideways(browser: Any, file: Path) -> None:
    found = Open(browser, file, 360)
    found.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert found.page.evaluate("document.documentElement.scrollWidth") == 360
    found.context.close()


def test_a_header_sorts_by_click_and_by_key(opened: Open) -> None:
    table = opened.page.get_by_role("table", name="Gain by class")
    header = table.get_by_role("columnheader", name="gain, points")
    firsts = "table => [...table.tBodies[0].rows].map(row => row.cells[0].textContent)"

    def column() -> list[str]:
        return table.evaluate(firsts)

    assert header.get_attribute("aria-sort") == "none"
    header.get_by_role("button").click()
    assert (header.get_attribute("aria-sort"), column()) == ("descending", ["cat", "bee", HOSTILE])
    header.get_by_role("button").press("Enter")
    assert (header.get_attribute("aria-sort"), column()) == ("ascending", [HOSTILE, "bee", "cat"])
    name = table.get_by_role("columnheader", name="class")
    name.get_by_role("button").press("Space")
    assert column() == sorted(CLASSES, key=str.lower)
    assert (name.get_attribute("aria-sort"), header.get_attribute("aria-sort")) == ("ascending", "none")


def test_a_curve_tells_its_value_under_the_pointer_and_by_key(opened: Open) -> None:
    reading = opened.page.locator("#reading")
    plot = opened.page.get_by_role("group", name="Validation accuracy")
    plot.scroll_into_view_if_needed()
    box = plot.locator("svg").bounding_box()
    # The axis ends at 350 of 360: there is the last step, where the accuracy is 0.2 + 0.7 for every arm and seed.
    opened.page.mouse.move(box["x"] + box["width"] * 349 / 360, box["y"] + box["height"] / 2)
    assert "step 30" in reading.inner_text() and "transferred: 90%" in reading.inner_text()
    opened.page.mouse.move(5, 5)
    assert reading.is_hidden()
    plot.focus()
    opened.page.keyboard.press("ArrowLeft")  # from there to the epoch before: 0.2 + 0.7 * 20 / 30
    assert reading.inner_text().splitlines()[0] == "step 20"
    assert "transferred: 66.67%" in opened.page.locator("#said").inner_text()
    opened.page.keyboard.press("Escape")
    assert reading.is_hidden()


def test_a_mark_tells_what_it_is(opened: Open) -> None:
    plot = opened.page.get_by_role("group", name="Gain of the transferred student")
    plot.scroll_into_view_if_needed()
    plot.locator(".mark").first.hover()
    assert opened.page.locator("#reading").inner_text() == "cat: +5.00 (+3.00 to +7.00) points"
    assert plot.locator("title").count() == 0  # or the browser would show its own beside it


@pytest.mark.parametrize("kind", ["SVG", "PNG"])
def test_a_plot_can_be_saved(opened: Open, kind: str, tmp_path: Path) -> None:
    with opened.page.expect_download() as waiting:
        opened.page.get_by_role("button", name=f"Save Validation accuracy as {kind}").click()
    saved = tmp_path / "plot"
    waiting.value.save_as(saved)
    assert waiting.value.suggested_filename == f"validation-accuracy.{kind.lower()}"
    content = saved.read_bytes()
    assert content.startswith(b"<svg" if kind == "SVG" else b"\x89PNG") and len(content) > 3000
    if kind == "SVG":
        assert b"var(" not in content and b"stroke=" in content
    assert opened.said == []


def test_hostile_names_show_as_text_and_never_run(opened: Open) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    shown = opened.page.locator("body").inner_text()
    # In a class, a reason, the recipe, the printed plan, a tensor, a note, the origin, the machine, a caption.
    assert shown.count(HOSTILE) >= 12
    assert opened.page.locator("img[src='x'], [onerror]").count() == 0
    assert opened.page.evaluate("window.harmed") is None


def test_the_theme_follows_the_system_until_it_is_chosen(browser: Any, file: Path) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    found = Open(browser, file, theme="dark")
    dark = found.page.evaluate(colour)
    found.page.get_by_role("button", name="Light theme").click()
    light = found.page.evaluate(colour)
    found.context.close()
    assert (dark, light) == ("rgb(20, 23, 27)", "rgb(251, 250, 248)")


def test_without_a_script_all_is_still_there(browser: Any, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator(".plot svg").count() == CURVES + MARKS
    assert page.locator(".mark title").count() > 20
    assert page.get_by_role("button").count() == 0
    context.close()


def test_the_script_runs_by_its_hash_and_no_other_does(opened: Open) -> None:
    opened.page.evaluate(
        "const one = document.createElement('script'); one.textContent = 'window.harmed = 2'; document.body.append(one)"
    )
    assert opened.page.evaluate("window.harmed") is None
    assert len(opened.said) == 1 and "Content Security Policy" in opened.said[0]
