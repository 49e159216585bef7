"""Sources ranked before training: each score's kind of labels, intervals, what is said of the order, and bad input."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from distill.cli import run_command
from distill.losses import CrossEntropy
from distill.plan import Term
from distill.rank import SCORES, Candidate, Scored, knn, ranked, score, scored
from distill.rank.candidate import Seen
from distill.rank.scores import Score
from distill.recipe import SGD, Model, Recipe, to_json
from distill.run import Options, train
from distill.transferability import h_score, leep, logme
from tests.end_to_end.test_text import TEACHER as TEXTS
from tests.end_to_end.test_text import recipe as text_recipe
from tests.tiny import STUDENT, TEACHER, Blobs, pair_recipe
from tests.tiny_labels import labels_recipe

FRESH = [Candidate("wide", TEACHER), Candidate("narrow", STUDENT)]


def seen(features: torch.Tensor, labels: torch.Tensor, probabilities: torch.Tensor | None = None) -> Seen:
    return Seen("one", features, probabilities, labels, None, 0.1)


# Scores


def test_neighbours_vote_by_hand() -> None:
    """Two directions far from each other, three examples each, of which one is labelled as the others are.

    Its two nearest are of the other class, so it is wrong; each of the other two has one neighbour of either class, of
    which its own kind is nearer.
    """
    angles = torch.tensor([0.0, 0.02, 0.3, 3.1, 3.12, 3.14])
    features = torch.stack([angles.cos(), angles.sin()], 1)
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    assert knn(features, labels, neighbours=2) == pytest.approx(5 / 6)
    assert knn(features, torch.tensor([0, 0, 0, 1, 1, 1]), neighbours=2) == 1.0


def test_neighbours_of_several_labels_are_ranked_by_their_share() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [-1.0, 0.0], [-1.0, 0.1], [-1.0, 0.2]])
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [math.nan, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    assert knn(features, labels[:, :1], neighbours=2) == 1.0
    assert 0.0 <= knn(features, labels, neighbours=2) <= 1.0


def test_scores_are_the_published_functions_and_halves_are_the_same_for_all() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (60,), generator=draw)
    features = torch.randn(60, 5, generator=draw) + labels[:, None]
    answers = torch.randn(60, 4, generator=draw).double().softmax(1)
    found = scored(seen(features, labels, answers), seed=1, resamples=6)
    assert found.scores["logme"].value == logme(features, labels)
    assert found.scores["leep"].value == leep(answers, labels)
    assert set(found.scores) == set(SCORES) and all(len(one.halves) == 6 for one in found.scores.values())
    again = scored(seen(features, labels, answers), seed=1, resamples=6)
    assert again.scores == found.scores
    one = found.scores["logme"]
    spread = torch.tensor(one.halves, dtype=torch.float64).std()
    assert one.high - one.value == pytest.approx(1.96 * float(spread)) == pytest.approx(one.value - one.low)


def test_half_samples_spread_as_the_score_itself_does_over_data_sets() -> None:
    """The mean H-score of a hundred draws of 200 examples, against what one of them says of its own spread."""
    draw = torch.Generator().manual_seed(3)

    def data() -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(0, 2, (200,), generator=draw)
        return torch.randn(200, 3, generator=draw) + labels[:, None], labels

    true = torch.tensor([h_score(*data()) for _ in range(100)]).std()
    told = []
    for _ in range(5):
        one = scored(seen(*data()), seed=0, resamples=40).scores["h_score"]
        told.append((one.high - one.value) / 1.96)
    assert sum(told) / 5 == pytest.approx(float(true), rel=0.35)


def test_several_labels_are_scored_label_by_label() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = (torch.randn(80, 2, generator=draw) > 0).float()
    labels[3, 0] = math.nan
    features = torch.randn(80, 4, generator=draw) + labels.nan_to_num().sum(1, keepdim=True)
    answers = torch.randn(80, 3, generator=draw).double().softmax(1)
    found = scored(seen(features, labels, answers), seed=0, resamples=2)
    known = ~labels[:, 0].isnan()
    by_hand = [leep(answers[known], labels[known, 0].long()), leep(answers, labels[:, 1].long())]
    assert found.scores["leep"].value == pytest.approx(sum(by_hand) / 2)
    assert all(math.isfinite(one.value) for one in found.scores.values())


# What is said


def source(name: str, **values: float) -> Scored:
    scores = {
        key: Score(values.get(key, 0.0), 0.0, 0.0, (values.get(key, 0.0), values.get(key, 0.0) + 0.01))
        for key in SCORES
    }
    return Scored(name, scores, None, 4, 0.1, 0.1)


def test_a_clear_order_stands_out_and_scores_that_disagree_are_named() -> None:
    order = ranked([source("b", logme=1.0), source("a", logme=2.0, transrate=-1.0)], "logme")
    assert [one.name for one in order.sources] == ["a", "b"]
    assert order.sentences[0].startswith("a stands out by LogME: 1 above b, give or take ")
    assert order.sentences[1].startswith("Scores disagree about the best source: a by LogME, but b (TransRate)")


def test_no_source_stands_out_where_the_first_two_can_not_be_told_apart() -> None:
    first, second = source("a", logme=1.001), source("b", logme=1.0)
    halves = Score(1.0, 0.9, 1.1, (0.9, 1.1))
    order = ranked([first, replace(second, scores={**second.scores, "logme": halves})], "logme")
    assert order.sentences[0].startswith("No source stands out by LogME: a is 0.001 above b, give or take ")


def test_a_missing_score_can_not_order() -> None:
    lacking = source("a")
    why = Score(math.nan, math.nan, math.nan, why="it answers several labels, which are no classes")
    with pytest.raises(ValueError, match=r"a has no LEEP: it answers several labels.*Take another --by"):
        ranked([replace(lacking, scores={**lacking.scores, "leep": why}), source("b")], "leep")


# Sources


def test_a_trained_source_is_above_one_at_random(tmp_path: Path) -> None:
    plan = {"task": Term(CrossEntropy())}
    trained = Recipe(
        name="taught", data=Blobs(), student=TEACHER, plan=plan, optimizer=SGD(lr=0.1), epochs=15, batch_size=12
    )
    train(trained, Options(tmp_path), Console(file=io.StringIO()))
    own = Candidate("taught", replace(TEACHER, weights=str(tmp_path / "taught")))
    found = score(pair_recipe(), [own, *FRESH], tmp_path, resamples=2)
    assert ranked(found, "logme").sources[0].name == "taught"
    assert found[0].accuracy is not None and found[0].accuracy > 0.6 and found[1].accuracy is None


def test_every_kind_of_target_can_be_ranked(tmp_path: Path) -> None:
    shallow = replace(TEXTS, arguments={**TEXTS.arguments, "num_hidden_layers": 1})
    pairs = ((labels_recipe(), (TEACHER, STUDENT)), (text_recipe(), (TEXTS, shallow)))
    for recipe, models in pairs:
        sources = [Candidate(str(place), model) for place, model in enumerate(models)]
        found = score(recipe, sources, tmp_path, resamples=2)
        assert all(math.isfinite(one.scores["logme"].value) for one in found)


def test_the_same_model_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="other and wide are the same model with the same weights"):
        score(pair_recipe(), [FRESH[0], Candidate("other", TEACHER)], tmp_path, resamples=2)


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run_command(["rank", *words, "--allow-import", "tests"])
    return code, *capsys.readouterr()


def test_the_command_prints_writes_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.json").write_text(to_json(pair_recipe()))
    train(pair_recipe(allow_chance_teacher=True), Options(tmp_path), Console(file=io.StringIO()))
    files = ["--out", str(tmp_path / "rank.json"), "--plot", str(tmp_path / "rank.png")]
    sources = ["--sources", "tests.tiny:net", str(tmp_path / "pair")]
    code, out, _ = told([str(tmp_path / "recipe.json"), *sources, *files, "--resamples", "3"], capsys)
    assert code == 0 and "2 sources by LogME" in out and "stands out" in out
    kept = json.loads((tmp_path / "rank.json").read_text())
    assert {one["name"] for one in kept["sources"]} == set(sources[1:]) and "machine" in kept
    assert (tmp_path / "rank.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--sources", "tests.tiny:net"], "--sources needs two or more to rank."),
        (["--sources", "tests.tiny:net", "tests.tiny:net"], "tests.tiny:net is named twice."),
        (
            ["--sources", "tests.tiny:net", "runs/none"],
            "runs/none is neither a model nor the folder of a complete run.",
        ),
        (["--sources", "tests.tiny:net", "tests.tiny:nett"], "nett"),
        (["--sources", "tests.tiny:net", "x:y@", "--by", "lucky"], "invalid choice: 'lucky'"),
        ([], "the following arguments are required: --sources"),
    ],
)
def test_what_can_not_be_ranked_is_a_line(
    words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.json").write_text(to_json(pair_recipe()))
    code, _, error = told([str(tmp_path / "recipe.json"), *words], capsys)
    assert code == 2 and line in error and error.count("\n") == 1


def test_model_and_weights_are_one_word() -> None:
    from distill.rank import candidate

    found = candidate("torchvision:resnet18@DEFAULT", Path("runs"))
    assert found.model == Model("torchvision:resnet18", weights="DEFAULT")
