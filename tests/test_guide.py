"""The guide to the losses says what their docstrings say."""

import io

import pytest
from rich.console import Console

import distill.losses
from distill.cli import run_command
from distill.guide import entries, entry, show, show_table


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run_command(["losses", *words]) == 0
    return capsys.readouterr().out


def test_every_loss_is_listed_with_all_that_one_chooses_by() -> None:
    names = [one.name for one in entries()]
    assert len(names) == len(set(names)) >= 35
    for one in entries():
        assert getattr(distill.losses, one.name).__doc__
        assert one.needs and one.paper and one.weight, one.name
        assert one.cost.partition(",")[0] in ("light", "moderate", "heavy"), one.name
        assert float(one.weight) > 0


@pytest.mark.parametrize(
    ("name", "weight", "paper", "cost"),
    [
        ("KD", "0.9", "Hinton et al. 2015, 1503.02531", "light"),
        ("RKDDistance", "25", "Park et al. 2019, 1904.05068", "moderate"),
        ("RKDAngle", "50", "Park et al. 2019, 1904.05068", "heavy"),
        ("Overhaul", "0.001", "Heo et al. 2019, 1904.01866", "light"),
        ("FSP", "1", "Yim et al. 2017", "moderate"),
        ("CrossEntropy", "1", "Szegedy et al. 2016, 1512.00567", "light"),
        ("LogitMSE", "1", "Ba and Caruana 2014, 1312.6184", "light"),
        ("BinaryCrossEntropy", "1", "Bishop 2006", "light"),
        ("SingularVectors", "1", "Lee et al. 2018, 1807.06819", "heavy"),
        ("LayerCKA", "1", "Kornblith et al. 2019, 1905.00414", "moderate"),
    ],
)
def test_an_entry_is_read_from_the_docstring(name: str, weight: str, paper: str, cost: str) -> None:
    one = entry(name)
    assert (float(one.weight), one.paper, one.cost.partition(",")[0]) == (float(weight), paper, cost)


def test_what_differs_between_two_losses_of_a_file_is_told_apart() -> None:
    assert "float (B, K)" in entry("BinaryCrossEntropy").needs
    assert "int (B,)" in entry("CrossEntropy").needs


def test_the_table_has_every_name_whole() -> None:
    for width in (80, 130):
        console = Console(file=io.StringIO(), width=width)
        show_table(console)
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        assert all(one.name in text for one in entries())


def test_one_loss_is_explained_with_settings_and_a_term_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "DKD", "PKT")
    for part in ("Zhao, Cui, Song, Qiu and Liang, 2022", "temperature=4.0", "Term(DKD(), weight=1)", "each example by"):
        assert part in text
    assert "Relates: the whole batch, over all processes." in text


def test_the_list_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "AttentionRelation" in printed(capsys)


def test_an_unknown_loss_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["losses", "SimilarityPreservin"]) == 2
    error = capsys.readouterr().err
    assert error == "distill: distill has no loss 'SimilarityPreservin'. Nearest: SimilarityPreserving.\n"


def test_hand_made_markup_in_a_docstring_stays_text() -> None:
    console = Console(file=io.StringIO(), width=200)
    show(["FSP"], console)
    assert isinstance(console.file, io.StringIO)
    assert "(B, C, H, W)" in console.file.getvalue()
