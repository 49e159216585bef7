"""The page of every kind of run: what is missing is told with its reason, and a large run's page stays small."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from distill.compare import analyse
from distill.compare import to_json as comparison_to_json
from distill.data import TextSplits
from distill.data.texts import TextExamples, TextPart
from distill.finished import Finished, read_run
from distill.page import report, write_page
from distill.page.thumbnails import shown
from distill.report import Report
from distill.run import Options, train
from tests.page.made import comparison_of, full_run, run_of, splits_of
from tests.page.test_html import read
from tests.report.made import report as made_report
from tests.tiny import pair_recipe, plain_recipe
from tests.tiny_labels import labels_recipe


def page_of(run: Finished, **how: Any) -> str:
    return write_page(run, splits_of(run), **how).read_text()


def words(page: str) -> str:
    """The page's text without its style, its script and its data."""
    return read(page.partition("<body>")[2].rpartition("<script>")[0]).text


def trained(recipe: Any, root: Path) -> Finished:
    train(recipe, Options(root), Console(file=io.StringIO()))
    return read_run(root / recipe.name, ("tests",))


def compared(run: Finished) -> Finished:
    (run.folder / "compare.json").write_text(comparison_to_json(analyse(run)))
    return run


def test_the_verdict_stands_first_and_a_transfer_that_hurt_is_said_there(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    hurt = made_report({"plain": (0.95, 0.96, 0.95), "transferred": (0.90, 0.91, 0.90)}, name=run.report.name)
    text = words(page_of(replace(run, report=hurt)))
    first = text[text.index("Report of a run") :]
    assert first.index("The transfer hurt: test accuracy -5.00 points, 95% interval") < first.index("Quality and cost")


def test_without_a_comparison_the_page_says_what_is_missing_and_how_it_is_made(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs" / "pair")
    text = words(page_of(run))
    assert (
        "Gains by class, Reliability, Like the teacher?, Layers alike (CKA), Where models differ."
        "The models were not compared yet. distill compare runs/pair makes it."
    ) in text
    assert "distill compare runs/pair --ablate trains one run for each term without it." in text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "compare.json can't be read: Not JSON of a comparison"),
        (None, "compare.json is of another run, or of other seeds. distill compare runs/pair makes it."),
    ],
)
def test_a_comparison_that_is_damaged_or_of_another_run_is_not_shown(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    run = run_of(tmp_path / "runs" / "pair")
    other = comparison_to_json(comparison_of(run.report, run="another"))
    (run.folder / "compare.json").write_text(other if content is None else content)
    assert reason in words(page_of(run))


def test_a_log_that_is_gone_is_told_and_the_others_are_drawn(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    (run.folder / "arms" / "plain-1" / "metrics.jsonl").unlink()
    text = words(page_of(run))
    assert "plain-1/metrics.jsonl can't be read: No such file or directory." in text
    assert "Validation accuracy" in text
    for log in run.folder.rglob("metrics.jsonl"):
        log.unlink()
    assert "There are no curves to draw." in words(page_of(run))


def test_examples_whose_data_changed_are_told_of_without_their_pictures(tmp_path: Path) -> None:
    run = full_run(tmp_path / "run")
    comparison = comparison_of(run.report)
    moved = tuple(replace(one, index=one.index + 1_000) for one in comparison.differing)
    (run.folder / "compare.json").write_text(comparison_to_json(replace(comparison, differing=moved)))
    page = page_of(run)
    assert (
        "The examples themselves can't be shown: test example 1000 is not among the data's 12: they have changed"
        in words(page)
    )
    assert "data:image" not in page.partition("<body>")[2].rpartition("<script>")[0]
    assert "They were not asked for." in words(page_of(run, with_examples=False))


def test_pictures_are_taken_in_and_nothing_outside_the_folder_is(tmp_path: Path) -> None:
    run = run_of(
        tmp_path / "run", pictures=(("Drawn.", "pictures/drawn.png"), ("Stolen.", "../secret.png"), ("No.", "bad.png"))
    )
    (run.folder / "pictures").mkdir()
    Image.new("RGB", (40, 20), "red").save(run.folder / "pictures" / "drawn.png")
    Image.new("RGB", (40, 20), "red").save(tmp_path / "secret.png")
    (run.folder / "bad.png").write_text("<svg onload=alert(1)>")
    page = page_of(run)
    assert page.count("data:image/png") == 1 and 'alt="Drawn."' in page
    assert "Stolen.: ../secret.png is no file of the run's folder." in words(page)
    assert "No.: bad.png can't be read." in words(page)


def test_hidden_words_have_perplexity_and_no_classes(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    guesses = {"accuracy": 0.4, "nll": 1.5, "perplexity": math.exp(1.5)}
    outcomes = tuple(replace(one, test=guesses, validation=guesses, agreement=None) for one in run.report.outcomes)
    masked = replace(run.report, outcomes=outcomes, teacher=None)
    text = words(page_of(replace(run, report=masked)))
    assert "The run guesses hidden words: there are no classes to compare by, and no answers are kept." in text
    assert "4.4817" in text


# Real runs, of every kind


def test_a_real_run_shows_its_own_images_and_its_gains(tmp_path: Path) -> None:
    run = compared(trained(pair_recipe(controls=("plain",), repeats=2, allow_chance_teacher=True), tmp_path))
    page = write_page(run).read_text()
    differing = analyse(run).differing
    assert page.count('class="pixels"') == len({one.index for one in differing}) > 0
    assert all(f"no. {one.index}" in page for one in differing)
    text = words(page)
    assert all(f"Save {name}" not in text for name in ("task", "kd"))  # buttons come with the script
    assert {"task", "kd", "hint", "samples"} <= set(text.split())


def test_one_seed_without_a_teacher(tmp_path: Path) -> None:
    text = words(write_page(trained(plain_recipe(), tmp_path)).read_text())
    assert "Trained without a teacher: there is no transfer to judge." in text
    assert "A run without a teacher has no terms of a transfer." in text
    assert "Nothing: the student started from its own initialisation, or from weights of its own." in text


def test_several_labels_have_their_tables_and_gains_by_finding(tmp_path: Path) -> None:
    recipe = labels_recipe(controls=("plain",), allow_chance_teacher=True)
    text = words(write_page(compared(trained(recipe, tmp_path))).read_text())
    assert "AUROC by label" in text and "Gain of the transfer by label" in text
    assert "Gain of the transferred student over its control" in text
    assert "of the label on which they differ most" in text
    assert "of each label's probability, all labels together" in text
    assert "gain in AUROC, points" in text and "McNemar" not in text


def test_the_command_makes_the_page_anew_and_prints_its_place(tmp_path: Path) -> None:
    run = trained(plain_recipe(), tmp_path)
    out = io.StringIO()
    report([str(run.folder), "--allow-import", "tests"], Console(file=out, width=400))
    assert out.getvalue() == f"Report: {run.folder / 'report.html'}\n"
    before = (run.folder / "report.html").read_bytes()
    report([str(run.folder), "--allow-import", "tests"], Console(file=io.StringIO()))
    assert (run.folder / "report.html").read_bytes() == before


def test_the_command_names_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not the folder of a run: it has no recipe\.json"):
        report([str(tmp_path)], Console(file=io.StringIO()))


# Parts


def test_texts_are_cut_and_large_images_are_small() -> None:
    part = TextExamples(TextPart(["a" * 1_000, "short"], torch.tensor([0, 1])))
    texts = TextSplits(part, part, part, ("no", "yes"), 16, "longest")
    found = shown(texts, [1, 0, 1])
    assert (found[1].text, len(found[0].text)) == ("short", 281)
    with pytest.raises(ValueError, match="test example 2 is not among the data's 2"):
        shown(texts, [2])


@pytest.mark.parametrize(("size", "kind"), [(8, "png"), (96, "png"), (500, "jpeg")])
def test_a_picture_is_at_most_a_thumbnail(size: int, kind: str) -> None:
    class Big:
        test = type("Test", (), {"__len__": lambda self: 1, "__getitem__": lambda self, key: Big})()
        image = torch.randint(0, 255, (3, size, 2 * size // 2), dtype=torch.uint8)

    found = shown(Big(), [0])[0]  # type: ignore[arg-type]
    assert found.picture.startswith(f"data:image/{kind};base64,")
    assert max(found.width, found.height) == min(size, 96)
    assert len(found.picture) < 40_000


@pytest.mark.slow
def test_a_large_run_stays_under_five_megabytes(tmp_path: Path) -> None:
    """100,000 log lines of 50 terms, 1,000 classes, 64 taps a side, nine students."""
    terms = tuple(f"term_{number}" for number in range(50))
    names = tuple(f"class {number} of many" for number in range(1_000))
    run = run_of(tmp_path / "run", terms=terms)
    raw = dict.fromkeys(terms, 0.12345)
    line = json.dumps({"raw": raw, "weighted": raw, "learning_rate": 0.1, "gradient_norm": 1.5, "stage": "train"})
    with (run.folder / "metrics.jsonl").open("w") as file:
        for step in range(100_000):
            file.write(f'{{"step": {step}, "epoch": 1, {line[1:].replace("0.12345", str(step % 977 / 977), 1)}\n')
    taps = tuple(f"encoder.layer.{number}.output" for number in range(64))
    values = tuple(tuple(row * column / 4096 for column in range(64)) for row in range(64))
    comparison = comparison_of(run.report, classes=names)
    cka = comparison.cka
    assert cka is not None
    large = replace(cka, student=taps, teacher=taps, before=values, after=values)
    (run.folder / "compare.json").write_text(comparison_to_json(replace(comparison, cka=large, differing=())))
    path = write_page(run)
    assert path.stat().st_size < 5_000_000
    text = words(path.read_text())
    assert "term_49" in text and "class 999 of many" in text
    assert "Evenly chosen from 64 x 64; compare.json has all." in text


def test_a_report_of_another_version_of_the_arms_is_drawn_too(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    assert isinstance(run.report, Report)
    both = {"plain": (0.9,), "initialized": (0.92,), "transferred": (0.95,)}
    one = made_report(both, name=run.report.name, teacher_cost=None)
    text = words(page_of(replace(run, report=one)))
    assert "The teacher's cost was not measured." in text
    assert "Whether the transfer helped nobody can say from one seed" in text
