"""A general stage without labels on a tiny pair: trained, reported and resumed, then a classifier starts from it."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from distill.arms import arm_recipe
from distill.bar import Bar
from distill.batch import Batch
from distill.build import evaluation_loader, training_feed
from distill.data import Corpus, Reviews, TextSplits
from distill.data.reviews import write_reviews
from distill.fit import fit_arm
from distill.initialize import CopyWeights, SkipLayers
from distill.losses import KD, CrossEntropy, MaskedLanguageModel
from distill.models import load_model
from distill.models.weights import read_tensors
from distill.plan import Term
from distill.prepare import Parts, load_splits, prepare
from distill.recipe import AdamW, Model, Recipe, from_json, read_recipe, to_json
from distill.report import Report
from distill.run import Options, plan, train
from distill.terms import minilmv2_terms
from distill.tokenize import WordPiece
from distill.trainer.lines import SHARES
from tests.commands import ROOT
from tests.test_fit import Stopped, StoppingBar, lines_of, same
from tests.tiny import on_cpu
from tests.tiny_bert import transformers

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
LARGE = {**SMALL, "num_hidden_layers": 2}
WORDS = {"words": Term(MaskedLanguageModel())}
TIMED = ("examples_per_second", *SHARES)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs in which a teacher was trained on the corpus, a student by it, and a classifier from that."""
    root = tmp_path_factory.mktemp("general")
    files = write_reviews(train=160, validation=10, test=10, seed=0)
    texts = [line.split("\t")[0] for line in files["train.tsv"].split("\n")[1:] if line]
    (root / "corpus").mkdir()
    # Two files, and some texts that are longer than max_length.
    for number, some in enumerate((texts[:100], [*texts[100:], " . ".join(texts[:8])])):
        lines = [json.dumps({"id": place, "text": text}) for place, text in enumerate(some)]
        (root / "corpus" / f"part{number}.jsonl").write_text("\n\n".join(lines) + "\n")
    run(root, teacher_recipe(root))
    run(root, student_recipe(root))
    run(root, classifier_recipe(root))
    return root


def corpus(root: Path) -> Corpus:
    return Corpus(str(root / "corpus"), "*.jsonl", validation=20, test=21, max_length=24)


def teacher_recipe(root: Path) -> Recipe:
    return Recipe(
        name="large",
        data=corpus(root),
        student=Model("transformers:bert", arguments=LARGE, tokenizer=WordPiece(size=300)),
        plan=WORDS,
        optimizer=AdamW(lr=0.01),
        epochs=2,
        batch_size=20,
    )


def student_recipe(root: Path) -> Recipe:
    return Recipe(
        name="small",
        data=corpus(root),
        teacher=Model("transformers:bert", weights="runs/large", arguments=LARGE),
        student=Model("transformers:bert", arguments=SMALL),
        initialize=SkipLayers(),
        plan={**WORDS, **minilmv2_terms(2, 1, heads=4)},
        optimizer=AdamW(lr=0.01),
        epochs=2,
        batch_size=20,
        micro_batch_size=7,
        controls=("plain", "initialized"),
        log_every=2,
    )


def classifier_recipe(root: Path) -> Recipe:
    return Recipe(
        name="classifier",
        data=Reviews(train=40, validation=20, test=20, folder=str(root / "reviews"), max_length=24),
        student=Model("transformers:bert", weights="runs/small", arguments=SMALL),
        plan={"task": Term(CrossEntropy())},
        optimizer=AdamW(lr=0.01),
        epochs=1,
        batch_size=20,
    )


def run(root: Path, recipe: Recipe) -> Report:
    return train(recipe, Options(root=root), Console(file=io.StringIO()))


def parts_of(recipe: Recipe, root: Path) -> Parts:
    return prepare(recipe, load_splits(recipe, recipe.seed, root), recipe.seed, root)


def test_the_report_is_of_hidden_tokens(place: Path) -> None:
    report = json.loads((place / "small" / "report.json").read_text())
    assert report["teacher"] is None and report["headline"] == "accuracy"
    assert {outcome["arm"] for outcome in report["outcomes"]} == {"transferred", "plain", "initialized"}
    for outcome in report["outcomes"]:
        assert outcome["agreement"] is None and outcome["divergence"] is None
        assert outcome["test"]["perplexity"] == pytest.approx(math.exp(outcome["test"]["nll"]))
        assert outcome["validation"]["nll"] < math.log(300)
    text = (place / "small" / "report.md").read_text()
    assert "accuracy is the share of hidden tokens that were guessed" in text
    assert all(f"| {outcome['test']['perplexity']:.4f} |" in text for outcome in report["outcomes"])
    assert "nobody can say from one seed" in text  # tokens of one text are no independent draws
    assert (
        "Corpus, hidden tokens, 120 training, 20 validation and 21 test examples"
        in (place / "small" / "plan.txt").read_text()
    )


def test_the_plan_is_printed_without_training(place: Path) -> None:
    out = io.StringIO()
    plan(replace(student_recipe(place), name="other"), Options(root=place), Console(file=out, width=200))
    assert "Stage train" in out.getvalue() and "before training" in out.getvalue()
    assert not (place / "other").exists()


def test_what_is_reported_is_the_mean_over_the_hidden_tokens_that_transformers_gives(place: Path) -> None:
    parts = parts_of(student_recipe(place), place)
    model = transformers.AutoModelForMaskedLM.from_pretrained(place / "small" / "student").eval()
    assert isinstance(parts.splits, TextSplits)
    losses, right = [], []
    for number in range(len(parts.splits.test)):
        batch = parts.splits.collate([parts.splits.test[(3, number)]])
        assert not isinstance(batch.inputs, torch.Tensor)
        with torch.no_grad():
            logits = model(**batch.inputs).logits[0]
        hidden = batch.labels[0] != -100
        losses += torch.nn.functional.cross_entropy(logits[hidden], batch.labels[0, hidden], reduction="none").tolist()
        right += (logits[hidden].argmax(1) == batch.labels[0, hidden]).tolist()
    report = json.loads((place / "small" / "report.json").read_text())
    (outcome,) = (one for one in report["outcomes"] if one["arm"] == "transferred")
    assert outcome["test"]["nll"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert outcome["test"]["accuracy"] == pytest.approx(sum(right) / len(right))


def test_the_words_stay_tied_to_the_decoder(place: Path) -> None:
    tensors = read_tensors(place / "small" / "student" / "model.safetensors")
    words = tensors["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(words, tensors["cls.predictions.decoder.weight"])
    model = load_model(
        "transformers:bert", num_classes=None, in_channels=None, weights=str(place / "small"), arguments=SMALL
    ).model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight, words)


def test_a_classifier_starts_from_the_encoder_and_its_tokenizer(place: Path) -> None:
    parts = parts_of(classifier_recipe(place), place)
    before = read_tensors(place / "small" / "student" / "model.safetensors")
    own = parts.student.state_dict()
    for name, tensor in own.items():
        if name.startswith("bert.") and "pooler" not in name:
            assert torch.equal(tensor, before[name]), name
    assert own["classifier.weight"].shape == (2, 16)
    (note,) = (note for note in parts.notes if "encoder" in note)
    assert note.startswith("transformers:bert has its encoder from runs/small") or "small" in note
    assert "its classifier and its pooler are fresh" in note
    assert "classifier.weight" not in parts.started and "bert.embeddings.LayerNorm.weight" in parts.started
    one, other = (
        json.loads((place / name / "student" / "tokenizer.json").read_text()) for name in ("small", "classifier")
    )
    assert one == other
    assert transformers.AutoModelForSequenceClassification.from_pretrained(place / "classifier" / "student")


def test_a_classifier_teaches_a_general_student_by_its_inner_taps(place: Path) -> None:
    recipe = replace(
        student_recipe(place),
        teacher=Model("transformers:bert", weights="runs/classifier", arguments=SMALL),
        initialize=CopyWeights(),
        plan={**WORDS, **minilmv2_terms(1, 1, heads=4)},
        controls=(),
        name="from-classifier",
    )
    parts = parts_of(recipe, place)
    assert not parts.comparable and parts.teacher is not None
    assert parts.coverage is not None
    report = run(place, recipe)
    assert report.teacher is None and report.teacher_cost is not None


def test_a_classifier_is_no_student_of_a_general_stage(place: Path) -> None:
    recipe = replace(
        teacher_recipe(place), student=Model("transformers:bert", weights="runs/classifier", arguments=SMALL)
    )
    with pytest.raises(ValueError, match=r"Student transformers:bert gives logits \(4, 2\) and the data hide tokens"):
        parts_of(recipe, place)


def test_two_tokenizers_are_refused_by_name(place: Path) -> None:
    recipe = student_recipe(place)
    recipe = replace(recipe, student=replace(recipe.student, tokenizer=WordPiece(size=200)))
    with pytest.raises(ValueError, match=r"two tokenizers \(WordPiece\(size=200.*large.*\)\. Leave out"):
        load_splits(recipe, 0, place)


def test_a_control_without_words_of_its_own_guesses_them(place: Path) -> None:
    recipe = replace(student_recipe(place), plan=minilmv2_terms(2, 1, heads=4))
    assert arm_recipe(recipe, "plain").plan == {"task": Term(MaskedLanguageModel())}


def test_the_student_of_the_recipe_is_the_one_that_the_next_recipe_starts_from() -> None:
    general, task = (
        read_recipe(ROOT / "recipes" / "sentiment" / f"{name}.py") for name in ("wikipedia_general", "sst2")
    )
    assert general.student == task.student
    assert from_json(to_json(general)) == general


def test_the_recipe_comes_back_from_json(place: Path) -> None:
    assert from_json(to_json(student_recipe(place))) == student_recipe(place)


def fitted(root: Path, folder: Path, bar: Bar, *, resume: bool = False) -> tuple[object, list[dict[str, object]]]:
    parts = parts_of(replace(student_recipe(root), controls=()), root)
    folder.mkdir(exist_ok=True)
    fit_arm(parts, folder, on_cpu(), seed=0, resume=resume, bar=bar)
    lines = [{key: value for key, value in line.items() if key not in TIMED} for line in lines_of(folder)]
    return {name: tensor.clone() for name, tensor in parts.student.state_dict().items()}, lines


def test_a_stopped_run_resumes_to_the_same_bits(place: Path, tmp_path: Path) -> None:
    straight = fitted(place, tmp_path / "straight", StoppingBar())
    with pytest.raises(Stopped):
        fitted(place, tmp_path / "stopped", StoppingBar(9))
    resumed = fitted(place, tmp_path / "stopped", StoppingBar(), resume=True)
    assert same(resumed[0], straight[0]) and resumed[1] == straight[1]


def batches(parts: Parts, workers: int) -> list[Batch]:
    parts = replace(parts, recipe=replace(parts.recipe, workers=workers))
    feed = training_feed(parts, on_cpu(), 0)
    trained = [batch for epoch in (0, 1) for _, window in feed(epoch) for batch in window]
    return [*trained, *evaluation_loader(parts, "validation", on_cpu())]


def test_two_workers_give_the_same_batches_as_none(place: Path) -> None:
    parts = parts_of(student_recipe(place), place)
    alone, shared = batches(parts, 0), batches(parts, 2)
    assert len(alone) == len(shared) > 30
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one.labels, other.labels) and torch.equal(one.index, other.index)
        assert same(dict(one.inputs), dict(other.inputs))  # type: ignore[arg-type]


def test_a_classifier_learns_soft_answers_from_a_start_without_labels(place: Path) -> None:
    """The student of the general stage beside a teacher of the classes: one tokenizer, one set of tokens."""
    recipe = replace(
        classifier_recipe(place),
        teacher=Model("transformers:bert", weights="runs/classifier", arguments=SMALL),
        plan={"kd": Term(KD())},
    )
    parts = parts_of(recipe, place)
    assert parts.comparable and parts.aligned
