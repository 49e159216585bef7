"""A log file gets about five lines, a terminal one that moves, other processes none; a title is only text."""

import io
import re

import pytest
from rich.console import Console

from distill.bar import Bar

QUALITY = {"accuracy": 0.75, "nll": 0.5}


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=120, force_terminal=terminal)


def text(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


def train(bar: Bar, *, epochs: int, first: int = 0, examples: int = 10) -> None:
    """Epochs of two steps, as `fit_arm` tells them to a bar."""
    with bar:
        bar.begin(epochs * examples)
        bar.tick(first * examples)
        for epoch in range(first, epochs):
            for _ in range(2):
                bar.tick(examples // 2)
            bar.line({"step": 2 * epoch, "epoch": epoch + 0.5, "loss": 1.5, "examples_per_second": 123.4})
            bar.line({"step": 2 * epoch, "epoch": epoch + 1, "validation": QUALITY})


@pytest.mark.parametrize(
    ("epochs", "printed"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (5, [1, 2, 3, 4, 5]),
        (30, [6, 12, 18, 24, 30]),
        (240, [48, 96, 144, 192, 240]),
    ],
)
def test_a_log_file_gets_about_five_lines(epochs: int, printed: list[int]) -> None:
    """By hand: a line at the end of the first epoch behind each fifth of all examples."""
    out = console(terminal=False)
    train(Bar(out, "digits", shows=True), epochs=epochs)
    assert text(out).splitlines() == [
        f"digits · epoch {epoch} · loss 1.5000 · validation 0.7500 · 123/s" for epoch in printed
    ]


def test_a_resumed_run_prints_the_lines_that_are_left() -> None:
    out = console(terminal=False)
    train(Bar(out, "digits", shows=True), epochs=30, first=13)
    epochs = [int(number) for number in re.findall(r"epoch (\d+)", text(out))]
    assert epochs[1:] == [18, 24, 30] and epochs[0] == 14


@pytest.mark.parametrize("terminal", [True, False])
def test_other_processes_show_nothing(terminal: bool) -> None:
    out = console(terminal=terminal)
    train(Bar(out, "digits", shows=False), epochs=7)
    assert text(out) == ""


def test_a_terminal_shows_the_bar_and_no_lines() -> None:
    out = console(terminal=True)
    train(Bar(out, "digits", shows=True), epochs=2)
    shown = text(out)
    assert "digits" in shown and "20/20" in shown and "loss 1.5000 · validation 0.7500 · 123/s" in shown
    assert "· epoch" not in shown


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    "title",
    [
        "[red]x[/red]",
        "[/]",
        "[link=file:///]x",
        "a{b}",
        "{task.fields}",
        "{",
        "50%",
        ":cat:",
        "x\\",
        "x\\[bold]",
    ],
)
def test_markup_braces_and_names_of_pictures_in_a_title_are_text(title: str, terminal: bool) -> None:
    out = console(terminal=terminal)
    train(Bar(out, title, shows=True), epochs=1)
    assert title in text(out)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("control", ["\x1b[2J", "\x9b2J", "\a", "\r", "\n", "\x7f", "\u202e"])
def test_control_characters_in_a_title_do_not_reach_the_terminal(control: str, terminal: bool) -> None:
    plain, out = console(terminal=terminal), console(terminal=terminal)
    train(Bar(plain, "a?b", shows=True), epochs=1)
    train(Bar(out, f"a{control}b", shows=True), epochs=1)
    assert text(out).count(control) == text(plain).count(control)
    assert "a" in text(out) and "b" in text(out)


def test_an_error_ends_the_bar() -> None:
    out = console(terminal=True)
    with pytest.raises(KeyboardInterrupt), Bar(out, "digits", shows=True) as bar:
        bar.begin(10)
        raise KeyboardInterrupt
    # The cursor, which the moving line hides, is back.
    assert text(out).rfind("\x1b[?25h") > text(out).rfind("\x1b[?25l")
