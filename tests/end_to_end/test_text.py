"""Recipes of texts as a user runs them: every kind of pair, what is left behind, and what does not go together."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from distill.build import make_accelerator, stage_trainer, training_feed
from distill.data import Mix, TextPart, TextSettings, TextSplits
from distill.initialize import CopyWeights, SkipLayers
from distill.losses import KD, CrossEntropy, HiddenState, LogitMSE
from distill.models import load_model
from distill.plan import Term, compare
from distill.prepare import batch_of, load_splits, prepare
from distill.recipe import AdamW, Model, Recipe, Stage
from distill.report import Report
from distill.run import Options, plan, train
from distill.terms import distilbert_terms, minilmv2_terms, tinybert_prediction_terms, tinybert_terms
from distill.tokenize import WordPiece, Words
from tests.processes import run_processes

transformers = pytest.importorskip("transformers")

GOOD, BAD = ("fine", "bright", "lovely", "warm"), ("dull", "grim", "cold", "weak")


@dataclass(frozen=True)
class Moods(TextSettings):
    """Made-up texts of 1 to 9 words, of which a last one in GOOD or BAD decides: 48 to train on, and 16 and 16."""

    max_length: int = 24
    unlabelled: bool = False

    def load(self, seed: int, mix: Mix | None) -> TextSplits:
        """The splits."""
        self.check_no_mix(mix)
        train, validation, test = (self._part(first, size) for first, size in ((0, 48), (48, 16), (64, 16)))
        if self.unlabelled:
            train = TextPart(train.texts, torch.where(torch.arange(48) % 3 == 0, -1, train.labels))
        return self.splits(train=train, validation=validation, test=test, classes=("bad", "good"))

    def _part(self, first: int, size: int) -> TextPart:
        filler = ["the", "plot", "of", "this", "long", "film", "is", "set", "in", "a", "town"]
        texts, labels = [], []
        for number in range(first, first + size):
            label = number % 2
            words = [*filler[: number % 9], (BAD, GOOD)[label][number // 2 % 4]]
            texts.append(" ".join(words))
            labels.append(label)
        return TextPart(texts, torch.tensor(labels))


SIZE = {
    "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 24,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
TEACHER = Model("transformers:bert", arguments={**SIZE, "num_hidden_layers": 4}, tokenizer=WordPiece(size=60))
STUDENT = Model("transformers:bert", arguments={**SIZE, "num_hidden_layers": 2})
DISTILBERT = Model(
    "transformers:distilbert",
    arguments={"dim": 16, "n_heads": 2, "n_layers": 2, "hidden_dim": 32, "max_position_embeddings": 24},
)
TASK = {"task": Term(CrossEntropy(), weight=0.5)}
SOFT = {**TASK, "kd": Term(KD(temperature=2.0), weight=0.5)}


def recipe(**changes: Any) -> Recipe:
    base = Recipe(
        name="moods",
        data=Moods(),
        teacher=TEACHER,
        student=STUDENT,
        plan=SOFT,
        optimizer=AdamW(lr=3e-3),
        epochs=1,
        batch_size=16,
        allow_chance_teacher=True,  # the teachers here are fresh
    )
    return replace(base, **changes)


def run(one: Recipe, root: Path) -> Report:
    return train(one, Options(root), Console(quiet=True))


PAIRS = {
    "bert to fewer layers": recipe(initialize=SkipLayers(), plan={**SOFT, **minilmv2_terms(4, 2, heads=2)}),
    "bert to narrower": recipe(
        student=Model("transformers:bert", arguments={**SIZE, "hidden_size": 8, "num_hidden_layers": 2}),
        plan={**TASK, **tinybert_terms(4, 2)},
    ),
    "bert to distilbert": recipe(
        student=DISTILBERT,
        initialize=CopyWeights(names="bert-to-distilbert"),
        plan={**TASK, **distilbert_terms(4, 2, student="distilbert")},
    ),
    "bert to bilstm": recipe(
        student=Model("distill.models.text:bilstm", arguments={"width": 8, "embedding": 8}, tokenizer=Words()),
        plan={**TASK, "logits": Term(LogitMSE())},
    ),
    "bert to bilstm of its own tokens": recipe(
        student=Model("distill.models.text:bilstm", arguments={"width": 8, "embedding": 8}),
        plan={**TASK, "tokens": Term(HiddenState(), student="lstm", teacher="bert.encoder.layer.3")},
    ),
    "bert to word cnn": recipe(
        student=Model("distill.models.text:word_cnn", arguments={"width": 8, "embedding": 8}, tokenizer=Words()),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_trains_from_start_to_report(name: str, tmp_path: Path) -> None:
    report = run(PAIRS[name], tmp_path)
    assert report.outcomes[0].steps == 3
    assert report.student_cost.multiply_adds
    for line in (tmp_path / "moods" / "metrics.jsonl").read_text().splitlines():
        assert "NaN" not in line
    assert (tmp_path / "moods" / "student" / "tokenizer.json").exists()


def test_a_student_learns_and_goes_on_as_a_teacher(tmp_path: Path) -> None:
    """After twenty epochs the last word is read; a student of its weights keeps the teacher's tokens and answers."""
    first = recipe(name="teacher", teacher=None, student=TEACHER, plan=TASK, epochs=20, allow_chance_teacher=False)
    assert run(first, tmp_path).outcomes[0].test["accuracy"] > 0.9
    taught = replace(TEACHER, weights="runs/teacher", tokenizer=None)
    second = recipe(teacher=taught, initialize=SkipLayers(), controls=("plain", "initialized"), epochs=2)
    report = run(replace(second, allow_chance_teacher=False), tmp_path)
    assert report.teacher is not None and report.teacher["test"]["accuracy"] > 0.9
    assert {outcome.arm for outcome in report.outcomes} == {"transferred", "plain", "initialized"}
    with pytest.raises(ValueError, match=r"tokenizer=.* has no effect on transformers:bert: runs/teacher has the one"):
        load_splits(recipe(teacher=replace(taught, tokenizer=WordPiece())), 0, tmp_path)


@pytest.mark.parametrize("student", [STUDENT, DISTILBERT], ids=["bert", "distilbert"])
def test_the_student_s_folder_is_one_of_transformers(student: Model, tmp_path: Path) -> None:
    one = recipe(student=student)
    run(one, tmp_path)
    folder = tmp_path / "moods" / "student"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert model.config.id2label == {0: "bad", 1: "good"}
    texts = ["the plot is lovely", "grim", "", "🙂 电影很好 a town"]
    ours = load_model(student.source, num_classes=2, in_channels=None, weights=str(folder), arguments=student.arguments)
    given = tokenizer(texts, padding=True, return_tensors="pt")
    encoded = load_splits(one, 0, tmp_path).tokenizer("student").encode(texts, 24)  # type: ignore[union-attr]
    assert [encoded.text(number).tolist() for number in range(4)] == tokenizer(texts)["input_ids"]
    with torch.no_grad():
        taken = {key: given[key] for key in ("input_ids", "attention_mask")}
        torch.testing.assert_close(model(**taken).logits, ours.model.eval()(**taken).logits, rtol=0, atol=1e-5)


def losses_of(one: Recipe) -> Mapping[int, Mapping[str, float]]:
    """{text: {term: its loss}} over one epoch, without training."""
    parts = prepare(one, load_splits(one, 0, Path("runs")), 0, Path("runs"))
    accelerator = make_accelerator(one)
    trainer, learner = stage_trainer(parts, one.all_stages()[0], accelerator, 0)
    feed, found = training_feed(parts, accelerator, 0), {}
    learner.eval()
    for _, window in feed(0):
        for batch in window:
            assert trainer.teacher is not None
            targets = trainer.teacher(batch.inputs)
            with torch.no_grad():
                losses = compare(one.all_stages()[0].plan, learner(batch.inputs, targets, batch), targets, batch)
            for row, index in enumerate(batch.index.tolist()):
                found[index] = {name: float(loss[row]) for name, loss in losses.items()}
    accelerator.free_memory()
    return found


def test_padding_changes_no_loss_of_any_text() -> None:
    """Buckets, batches by chance and padding to the longest allowed give each text the same losses."""
    plan = {**SOFT, **minilmv2_terms(4, 2, heads=2), **tinybert_terms(4, 2, head=None)}
    buckets, longest, whole = (
        losses_of(recipe(data=Moods(padding=padding), plan=plan))  # type: ignore[arg-type]
        for padding in ("buckets", "longest", "max_length")
    )
    assert set(buckets) == set(range(48))
    for index, losses in buckets.items():
        assert longest[index] == pytest.approx(losses, abs=1e-5, rel=1e-5)
        assert whole[index] == pytest.approx(losses, abs=1e-5, rel=1e-5)


def trained() -> Tensor:
    """The student after one epoch in ragged batches and micro-batches, all of its parameters in one row."""
    plan = {**SOFT, **minilmv2_terms(4, 2, heads=2)}
    one = recipe(plan=plan, batch_size=11, micro_batch_size=3)
    parts = prepare(one, load_splits(one, 0, Path("runs")), 0, Path("runs"))
    accelerator = make_accelerator(one)
    trainer, _ = stage_trainer(parts, one.all_stages()[0], accelerator, 0)
    for progress, window in training_feed(parts, accelerator, 0)(0):
        trainer.step(window, progress)
    accelerator.free_memory()
    return torch.cat([parameter.detach().flatten() for parameter in parts.student.parameters()])


@pytest.mark.slow
def test_two_processes_make_the_same_student_of_texts_as_one(tmp_path: Path) -> None:
    first, second = run_processes(trained, 2, tmp_path)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, trained(), rtol=1e-4, atol=2e-5)


def test_texts_without_a_label_teach_by_the_soft_answers_alone(tmp_path: Path) -> None:
    found = losses_of(recipe(data=Moods(unlabelled=True)))
    assert all((losses["task"] == 0) == (index % 3 == 0) for index, losses in found.items())
    assert all(losses["kd"] > 0 for losses in found.values())
    report = run(recipe(data=Moods(unlabelled=True)), tmp_path)
    assert any("16 of 48 training texts have no label" in note for note in report.notes)


def test_a_teacher_s_tokens_can_be_compared_with_the_student_s_only_where_they_are_the_same() -> None:
    student = Model("distill.models.text:bilstm", arguments={"width": 8, "embedding": 8}, tokenizer=Words())
    hidden = Term(HiddenState(), student="lstm", teacher="bert.encoder.layer.3")
    one = recipe(student=student, plan={**TASK, "states": hidden})
    with pytest.raises(ValueError, match=r"Term 'states' compares token by token \('lstm'\).*different tokenizers"):
        plan(one, Options(), Console(quiet=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"teacher": None, "plan": TASK, "allow_chance_teacher": False},
            r"transformers:bert has no tokenizer of its own\. Give it one: Model\(\.\.\., tokenizer=WordPiece\(\)\)",
        ),
        (
            {"student": Model("distill.models.cifar:resnet8")},
            "The data are texts, and distill.models.cifar:resnet8 is a model of images",
        ),
        (
            {"student": replace(STUDENT, arguments={**STUDENT.arguments, "vocab_size": 10})},
            r"tokenizer .* does not fit transformers:bert: it has tokens up to \d+, and the model embeds 10",
        ),
        ({"data": Moods(max_length=40)}, r"Texts of 40 tokens .* do not fit transformers:bert, which has 24 positions"),
        ({"mix": Mix(mixup=0.2)}, "mix blends images, and Moods gives texts"),
    ],
)
def test_what_does_not_fit_texts_is_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        plan(recipe(**changes), Options(), Console(quiet=True))
    assert "\n" not in str(caught.value)


def test_two_stages_as_tinybert_has_them(tmp_path: Path) -> None:
    stages = (
        Stage("hints", tinybert_terms(4, 2, head=None), 1, AdamW(lr=3e-3)),
        Stage("prediction", tinybert_prediction_terms(), 1, AdamW(lr=3e-3)),
    )
    one = Recipe(
        name="tinybert",
        data=Moods(),
        teacher=TEACHER,
        student=STUDENT,
        stages=stages,
        batch_size=16,
        allow_chance_teacher=True,
    )
    lines = run(one, tmp_path)
    assert lines.outcomes[0].epochs == 2
    assert "hidden_1" in (tmp_path / "tinybert" / "metrics.jsonl").read_text()


def test_a_batch_is_a_recipe_s_own(tmp_path: Path) -> None:
    splits = load_splits(recipe(), 0, tmp_path)
    batch = batch_of(splits, [0, 8])
    assert isinstance(batch.inputs, Mapping)
    assert batch.inputs["input_ids"].shape[0] == 2 and batch.mask is not None
