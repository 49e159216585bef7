import io
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console

from distill.initialize import Coverage, TensorCoverage
from distill.report import Report, markdown, render
from distill.report.escape import clean, markdown_line, markdown_text
from distill.report.summary import explain_recovered
from distill.report.units import count, milliseconds, percent, points, size, times
from tests.report.made import ALIKE, HELPED, HURT, TEACHER, cost, one_seed, report

HOSTILE = "[red]a|b[/red] <script>alert(1)</script> `c` *d* _e_ ![f](g) :smile: \x1b[31m\x07\u202eh\x00\r\ni \\"

WHOLE = report({**HELPED, "initialized": (0.92, 0.93, 0.935)})


def shown(made: Report, width: int = 100, *, terminal: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, force_terminal=terminal).print(render(made))
    return out.getvalue()


def rows_of(text: str) -> list[str]:
    """The rows of the terminal's table, with single spaces."""
    _, table = text.split("─\n")
    return [" ".join(line.split()) for line in table.split("\n\n")[0].splitlines()]


def tokens_of(text: str) -> list[Token]:
    """All tokens of Markdown with tables, strike-through and HTML, those within lines too."""
    parsed = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    return [token for block in parsed for token in (block, *(block.children or ()))]


def cells_of(text: str) -> list[list[str]]:
    """The cells of each line of Markdown's first table."""
    lines = text.split("\n\n")
    table = next(part for part in lines if part.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_a_terminal_whole(width: int):
    biggest = cost(parameters=1_030 * 1024 // 4, multiply_adds=999_000_000_000, seconds=1.234)
    wide = report({"plain": (0.0, 1.0, 0.0), "transferred": (0.0, 1.0, 1.0)}, student_cost=biggest)
    for made in (WHOLE, wide):
        text = shown(made, width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        assert len(rows_of(text)) == 1 + len(made.arms)


def test_the_table_has_a_row_for_the_teacher_and_each_arm():
    rows = rows_of(shown(WHOLE))
    assert [row.split()[0] for row in rows] == ["teacher", "plain", "initialized", "transferred"]
    assert rows[0] == "teacher 98.00 - 1.24 M 123 M 4.71 MiB 8.00 64.0"
    assert rows[1] == "plain 91.00 ± 1.00 87.50 78.0 k 12.3 M 305 KiB 2.00 16.0"
    assert rows[3] == "transferred 95.00 ± 1.00 87.50 78.0 k 12.3 M 305 KiB 2.00 16.0"


def test_markdown_has_the_same_cells():
    head, _, teacher, *_, transferred = cells_of(markdown(WHOLE))
    assert head[1:] == [
        "test accuracy %", "agreement with teacher %", "parameters", "multiply-adds", "file size", "ms for 1",
        "ms for 32",
    ]  # fmt: skip
    assert teacher == ["teacher", "98.00", "-", "1.24 M", "123 M", "4.71 MiB", "8.00", "64.0"]
    assert transferred == ["transferred", "95.00 ± 1.00", "87.50", "78.0 k", "12.3 M", "305 KiB", "2.00", "16.0"]


def test_a_hurt_transfer_is_said_in_the_first_line():
    long = replace(report(HURT), name="n" * 200)
    for made in (long, one_seed(gained=10, lost=30, same=160)):
        assert shown(made, 80).splitlines()[0].startswith("The transfer hurt: test accuracy")
        assert markdown(made).splitlines()[0].startswith("# The transfer hurt: ")


def test_markdown_says_how_and_where_the_numbers_came_about():
    coverage = Coverage(
        (
            TensorCoverage("a.weight", "parameter", (3, 4), "copied", "a.weight", (3, 4)),
            TensorCoverage("b.weight", "parameter", (4,), "left"),
        )
    )
    text = markdown(replace(WHOLE, coverage=coverage.to_json()))
    for part in (
        "# The transfer helped: digits\n",
        "Beyond the teacher's weights",
        # 98 % less 91 % are 7 points, of which the transfer recovered 4.
        "Of the 7.00 points from the plain student to its teacher the transfer recovered 57%.",
        "mean ± standard deviation over 3 seeds",
        "Epochs were chosen on the validation examples; the test examples were read once",
        "15.8 times the parameters, 10.0 times the multiply-adds",
        "4.0 times the time for one example",
        "0.800 and 8.00 ms (teacher), 0.200 and 2.00 ms (student)",
        "Seeds: 0, 1, 2",
        "75.0% of the student's 16 parameters from the teacher (1 tensors copied, 0 selected, 1 left)",
        "torch 2.11.0",
        "cores 2, cpu A CPU, memory 8.00 GiB",
        "- The last linear is fresh.",
        "| transferred | 2 | 12.00% | 97.00% | 96.00% | 5.00% | 0.3000 | 99.00% | 0.2500 | 17 of 20 | 460 | 12.5 |",
    ):
        assert part in text, part


def test_what_each_student_answered_before_training_is_told_where_one_started_from_weights():
    """By hand: the seeds begin at 10, 11 and 12 %."""
    coverage = Coverage((TensorCoverage("w", "parameter", (4, 4), "copied", "w", (4, 4)),)).to_json()
    started = replace(WHOLE, coverage=coverage)
    line = "Start: validation accuracy 11.00% (plain), 11.00% (initialized), 11.00% (transferred) before training."
    assert line in " ".join(shown(started).split()) and markdown_text(line) in markdown(started)
    old = tuple(replace(outcome, start=None) for outcome in WHOLE.outcomes)
    for made in (replace(WHOLE, coverage=None), replace(started, outcomes=old)):
        assert "before training" not in shown(made) + markdown(made)
    assert "| transferred | 2 | - | 97.00% |" in markdown(replace(WHOLE, outcomes=old))


def test_recovered_share_says_when_there_was_no_gap_or_when_it_grew():
    weak = {**TEACHER, "test": {**TEACHER["test"], "accuracy": 0.90}}
    assert explain_recovered(report(HELPED, teacher=weak)) == (
        "There was no gap to recover: the plain student is 1.00 points ahead of its teacher."
    )
    # Plain has 95 %, the teacher 98 %, the transferred student 91 %: 4 points lost beside a gap of 3.
    assert explain_recovered(report(HURT)) == "The 3.00 points from the plain student to its teacher grew by 133%."
    # Half a point of a gap of 7, while the interval holds zero.
    assert explain_recovered(report(ALIKE)) == (
        "Of the 7.00 points from the plain student to its teacher the transfer recovered 7%. That may be chance."
    )
    assert explain_recovered(report({"transferred": (0.9, 0.9)})) is None


def test_missing_pieces_are_dashes_and_are_explained():
    bare = report(
        {"transferred": (0.94,)}, teacher=None, teacher_cost=None, student_cost=cost(multiply_adds=None), notes=()
    )
    bare = replace(bare, outcomes=tuple(replace(one, agreement=None, divergence=None) for one in bare.outcomes))
    for text in (shown(bare), markdown(bare)):
        assert 'controls=("plain",)' in text.replace("\n", " ")
        assert "teacher needs" not in text and "recover" not in text and "None" not in text and "nan" not in text
    assert cells_of(markdown(bare))[-1] == ["transferred", "94.00", "-", "78.0 k", "-", "305 KiB", "2.00", "16.0"]
    assert "## Notes" not in markdown(bare)


def test_a_teacher_of_other_classes_has_costs_and_no_quality():
    other = report(HELPED, teacher=None)
    assert cells_of(markdown(other))[2][:4] == ["teacher", "-", "-", "1.24 M"]
    assert "recover" not in shown(other) and shown(other).startswith("The transfer helped")


def test_one_seed_has_no_deviation():
    text = shown(one_seed(gained=30, lost=10, same=160))
    assert "±" not in text and "one seed" in text


def test_a_run_without_a_teacher_shows_its_student():
    text = shown(report({"plain": (0.9, 0.92)}))
    assert text.startswith("Trained without a teacher") and "91.00 ± 1.41" in text
    assert "Agreement:" not in text


def test_no_difference_is_the_title_of_markdown():
    assert markdown(report(ALIKE)).startswith("# The transfer made no difference: digits\n")


def test_hostile_names_mark_nothing_up_in_a_terminal():
    hostile = report(HELPED, name=HOSTILE, notes=(HOSTILE,), versions={HOSTILE: HOSTILE}, machine={HOSTILE: HOSTILE})
    text = shown(hostile, 300)
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text
    # In the title and in the note, where lines may break.
    assert " ".join(text.split()).count(" ".join(clean(HOSTILE).split())) == 2
    coloured = shown(hostile, 300, terminal=True)
    assert "\x1b[31m" not in coloured


def test_hostile_names_mark_nothing_up_in_markdown():
    hostile = report(HELPED, name=HOSTILE, notes=(HOSTILE,), versions={HOSTILE: HOSTILE}, machine={HOSTILE: HOSTILE})
    tame = [token.type for token in tokens_of(markdown(report(HELPED, versions={"a": "b"}, machine={"a": "b"})))]
    found = tokens_of(markdown(hostile))
    assert {token.type for token in found} <= {*tame, "text_special"}
    shown_text = "".join(token.content for token in found if token.type in ("text", "text_special"))
    assert shown_text.count(clean(HOSTILE).strip()) == 6


@pytest.mark.parametrize(
    "text",
    [
        "- item",
        "1. first",
        "12) twelfth",
        "+ plus",
        "---",
        "===",
        "# head",
        "> quote",
        "__init__",
        "a_b",
        "~~x~~",
        "a\\",
    ],
)
def test_a_line_that_looks_like_a_block_is_text(text: str):
    found = tokens_of(markdown_line(text))
    assert [token.type for token in found if token.nesting == 1] == ["paragraph_open"]
    assert "".join(token.content for token in found if token.type in ("text", "text_special")) == text


def test_a_cell_keeps_its_borders():
    table = f"| a | b |\n| --- | --- |\n| {markdown_text('x|y')} | {markdown_text('back' + chr(92))} |"
    cells = [token.content for token in tokens_of(table) if token.type == "inline"]
    assert cells == ["a", "b", "x|y", "back\\\\"]


def test_names_stay_readable_in_markdown():
    assert markdown_text("calibration_error 2.11.0+cu130, 90.00 (x-y)") == "calibration_error 2.11.0+cu130, 90.00 (x-y)"


def test_units():
    assert [count(n) for n in (0, 999, 1000, 78_042, 999_499, 999_500, 25_557_032)] == [
        "0", "999", "1.00 k", "78.0 k", "999 k", "1.00 M", "25.6 M",
    ]  # fmt: skip
    assert [size(n) for n in (0, 1023, 1024, 319_488, 1024**2, 46_830_571, 3 * 1024**3)] == [
        "0 B", "1023 B", "1.00 KiB", "312 KiB", "1.00 MiB", "44.7 MiB", "3.00 GiB",
    ]  # fmt: skip
    assert [milliseconds(s) for s in (0.0000512, 0.000213, 0.00999, 0.0123, 1.2345)] == [
        "0.051", "0.213", "9.99", "12.3", "1,234",
    ]  # fmt: skip
    assert (percent(0.90125), percent(float("nan"))) == ("90.12", "-")
    assert (points(0.04), points(-0.000001), points(-0.0123)) == ("+4.00", "+0.00", "-1.23")
    assert [times(ratio) for ratio in (0.85, 1.0, 9.84, 120.4)] == ["0.850", "1.0", "9.8", "120"]
