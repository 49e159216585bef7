"""The teacher's answers from the disk: as the live ones within rounding, through stops, processes and changes."""

import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from distill.data import Corpus, Mix
from distill.describe import describe
from distill.fit import fit_arm
from distill.heads import Linear
from distill.losses import KD, AttentionScores, CrossEntropy, HiddenState, Hint, MaskedLanguageModel, RKDDistance
from distill.pair import Teacher
from distill.plan import Term
from distill.prepare import Parts, load_splits, open_cache, prepare, sample_batch
from distill.recipe import Model, Recipe, from_json, to_json
from distill.run import Options, train
from distill.teacher_cache import Cache, Form, Rows, TeacherCache
from tests.end_to_end.test_text import recipe as text_recipe
from tests.processes import run_processes
from tests.test_fit import Stopped, StoppingBar, lines_of, same
from tests.tiny import Blobs, on_cpu, pair_recipe, parts_of, plain_recipe


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "teachers"


def cached(**changes: Any) -> Recipe:
    return pair_recipe(**{"teacher_cache": TeacherCache(views=2), "epochs": 4, "log_every": 1, **changes})


# Forms


@pytest.mark.parametrize(("kind", "share"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8), ("float32", 0.0)])
def test_a_tensor_comes_back_within_its_rounding(kind: str, share: float) -> None:
    values = torch.randn(5, 3, 4, 4) * 100
    form = Form(kind, (3, 4, 4))
    rows = form.pack(values)
    assert rows.shape == (5, form.bytes) and rows.dtype == torch.uint8
    torch.testing.assert_close(form.unpack(rows), values, rtol=share, atol=0)


def test_the_largest_logits_keep_their_probabilities_and_the_rest_its_mass() -> None:
    """By hand: of probabilities 0.5, 0.3, 0.15, 0.05 the two largest stay, and the others have 0.1 each."""
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log()
    form = Form("float32", (4,), top=2)
    again = form.unpack(form.pack(logits)).softmax(1)
    torch.testing.assert_close(again, torch.tensor([[0.1, 0.5, 0.1, 0.3]]))


def test_the_top_of_many_classes_takes_the_bytes_it_says() -> None:
    """16 values and places of two bytes and the rest: 66 bytes; 1.28 million examples take 84.5 MB a view."""
    assert Form("float16", (1000,), top=16).bytes == 66
    assert Form("float16", (40_000,), top=1).bytes == 2 + 4 + 2
    logits = torch.randn(3, 40_000)
    again = Form("float32", (40_000,), top=5).unpack(Form("float32", (40_000,), top=5).pack(logits))
    assert torch.equal(again.topk(5).indices, logits.topk(5).indices)


# Rows


def bytes_of(numbers: list[int]) -> Any:
    return np.array([[number % 256, 7] for number in numbers], np.uint8)


def test_rows_are_seen_by_others_once_they_are_kept(tmp_path: Path) -> None:
    one, other = Rows(tmp_path, 2, 10), Rows(tmp_path, 2, 10)
    one.add(np.array([3, 5]), bytes_of([3, 5]))
    other.add(np.array([9]), bytes_of([9]))
    one.refresh()
    assert one.count() == 0
    one.keep()
    other.refresh()
    assert other.has(np.array([3, 5, 9])).tolist() == [True, True, False]
    other.keep()
    again = Rows(tmp_path, 2, 10)
    assert again.count() == 3
    assert again.read(np.array([9, 3, 5])).tolist() == bytes_of([9, 3, 5]).tolist()


def test_rows_that_were_not_kept_are_lost_and_nothing_else(tmp_path: Path) -> None:
    one = Rows(tmp_path, 2, 10)
    one.add(np.array([1]), bytes_of([1]))
    one.keep()
    one.add(np.array([2]), bytes_of([2]))  # killed before it is kept
    assert Rows(tmp_path, 2, 10).has(np.array([1, 2])).tolist() == [True, False]


def test_a_shard_that_lost_rows_is_named_and_they_are_asked_anew(tmp_path: Path) -> None:
    one = Rows(tmp_path, 2, 10)
    one.add(np.array([1, 2, 3]), bytes_of([1, 2, 3]))
    one.keep()
    rows = next(tmp_path.glob("*.rows"))
    rows.write_bytes(rows.read_bytes()[:5])
    with pytest.warns(UserWarning, match=r"\.rows lacks 1 rows, which are asked of the teacher anew"):
        again = Rows(tmp_path, 2, 10)
    assert again.has(np.array([1, 2, 3])).tolist() == [True, True, False]


# Runs


class Counting(nn.Module):
    """Counts the examples that a teacher is asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.count = 0
        model.register_forward_pre_hook(self.add)

    def add(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.count += len(args[0])


def trained(
    recipe: Recipe, folder: Path, *, stop: int | None = None, resume: bool = False
) -> tuple[dict[str, Tensor], int]:
    """The student's weights at the end, and how many examples the teacher was asked about in training."""
    parts = prepare(recipe, load_splits(recipe, recipe.seed, Path("runs")), recipe.seed, Path("runs"))
    assert parts.teacher is not None
    counting = Counting(parts.teacher)
    folder.mkdir(parents=True, exist_ok=True)
    fit_arm(parts, folder, on_cpu(), seed=recipe.seed, resume=resume, bar=StoppingBar(stop))
    return {name: tensor.clone() for name, tensor in parts.student.state_dict().items()}, counting.count


def raw(folder: Path) -> list[dict[str, float]]:
    return [line["raw"] for line in lines_of(folder) if "raw" in line]


CHANGES: dict[str, dict[str, Any]] = {
    "a pair with crops": {},
    "mixtures": {"mix": Mix(mixup=0.5)},
    "accumulation": {"micro_batch_size": 5},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_losses_are_the_live_teachers_within_rounding_and_it_is_asked_once_a_view(name: str, tmp_path: Path) -> None:
    """Four epochs of two views; the live run sees the same images, since its epochs come in the same two views."""
    recipe = cached(**CHANGES[name])
    first, asked = trained(recipe, tmp_path / "first")
    exact, _ = trained(replace(recipe, teacher_cache=TeacherCache(views=2, form="float32")), tmp_path / "exact")
    again, none = trained(recipe, tmp_path / "again")
    dry = 2 * 4  # connect's dry run, and the cache's own look at the shapes
    assert asked == 2 * 36 + dry and none == dry
    assert same(first, again)
    for close, live in zip(raw(tmp_path / "first"), raw(tmp_path / "exact"), strict=True):
        assert close == pytest.approx(live, rel=5e-3 if name != "bf16" else 2e-2)
    assert not same(first, exact)


def test_a_cache_in_float32_trains_as_the_live_teacher_on_the_same_views(tmp_path: Path) -> None:
    """One epoch, in which every view is new: a run without a cache sees the same."""
    recipe = cached(epochs=2, teacher_cache=TeacherCache(views=2, form="float32"))
    with_cache, _ = trained(recipe, tmp_path / "with")
    from_disk, asked = trained(recipe, tmp_path / "disk")
    without, _ = trained(replace(recipe, teacher_cache=None), tmp_path / "without")
    assert asked == 8
    assert same(with_cache, without) and same(from_disk, without)


@pytest.mark.parametrize("stop", [2, 4])
def test_a_run_that_stopped_while_it_filled_the_cache_goes_on_to_the_same_bits(stop: int, tmp_path: Path) -> None:
    recipe = cached(checkpoint_every=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_CACHE", str(tmp_path / "elsewhere"))
        straight, _ = trained(recipe, tmp_path / "straight")
    with pytest.raises(Stopped):
        trained(recipe, tmp_path / "stopped", stop=stop)
    resumed, asked = trained(recipe, tmp_path / "stopped", resume=True)
    assert same(resumed, straight)
    assert asked < 2 * 36


EXACT = {
    "student": Model("tests.every_loss:convolutions"),
    "plan": {
        "task": Term(CrossEntropy()),
        "kd": Term(KD()),
        "samples": Term(RKDDistance(), 1.0, "embedding", "embedding"),
    },
    "teacher_cache": TeacherCache(views=2, form="float32"),
    "micro_batch_size": 2,
    "batch_size": 11,
}


def in_process(folder: Path) -> tuple[dict[str, Tensor], int]:
    os.environ["DISTILL_CACHE"] = str(folder / "cache")
    trained(cached(**EXACT), folder / "first")
    return trained(cached(**EXACT), folder / "again")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_fill_one_cache_and_read_each_others_rows(processes: int, tmp_path: Path) -> None:
    """A student without BatchNorm, ragged batches and micro-batches: what one process alone trains."""
    found = run_processes(in_process, processes, tmp_path, tmp_path)
    alone, _ = trained(cached(**EXACT), tmp_path / "alone")
    for student, asked in found:
        assert asked == 8 and same(student, found[0][0])
    torch.testing.assert_close(found[0][0], alone, rtol=1e-5, atol=1e-5)


# What is noticed


def opened(recipe: Recipe, change: Callable[[Parts], None] = lambda parts: None) -> tuple[Cache, str]:
    parts = parts_of(recipe)
    assert parts.teacher is not None
    change(parts)
    taps = ("logits", "layer1", "embedding")
    teacher = Teacher(parts.teacher, taps, view=parts.teacher_view.module())
    return open_cache(parts, teacher, sample_batch(parts.splits), seed=recipe.seed, precision="no")


def other_weights(parts: Parts) -> None:
    assert parts.teacher is not None
    next(parts.teacher.parameters()).data[0] += 1


@pytest.mark.parametrize(
    ("changes", "change", "what"),
    [
        ({}, other_weights, "the teacher's weights"),
        ({"data": Blobs(augment=False), "teacher_cache": TeacherCache()}, lambda parts: None, "the data"),
        ({"mix": Mix(mixup=0.5)}, lambda parts: None, "the examples or their transforms"),
        ({"seed": 1}, lambda parts: None, "the seed of what is drawn"),
    ],
)
def test_what_answers_depend_on_makes_a_new_cache_and_is_named(
    changes: dict[str, Any], change: Callable[[Parts], None], what: str, tmp_path: Path
) -> None:
    recipe = cached()
    trained(recipe, tmp_path / "run")
    before, sentence = opened(recipe)
    assert before.kept() == 72 and "72 of 72 are there" in sentence
    after, sentence = opened(replace(recipe, **changes), change)
    assert after.folder != before.folder and after.kept() == 0
    assert "It is a new one, since " in sentence and what in sentence


def test_the_plan_says_what_the_cache_takes_and_saves(tmp_path: Path) -> None:
    recipe = cached()
    text = " ".join(describe(parts_of(recipe), on_cpu()).split())
    # logits 3, layer1 8x6x6 and the embedding 16, two bytes each
    assert "2 views of 36 examples, 614 bytes each, 43.2 KiB at" in text and "0 of 72 are there." in text
    assert "The teacher is asked in 2 of 4 epochs at most." in text
    trained(recipe, tmp_path / "run")
    assert "asked in 0 of 4 epochs" in " ".join(describe(parts_of(recipe), on_cpu()).split())


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (
            lambda: cached(data=Blobs(augment=False)),
            r"views=2 has no effect on Blobs, in which nothing is drawn\. Write 1",
        ),
        (
            lambda: cached(teacher_cache=TeacherCache(2, top=3)),
            r"top=3 has no effect: there are 3 logits\. Leave it out",
        ),
        (
            lambda: cached(
                plan={"hint": Term(Hint(), student="layer1", teacher="layer1", head=pair_recipe().plan["hint"].head)},
                teacher_cache=TeacherCache(2, top=1),
            ),
            "top=1 has no effect: no term reads the teacher's logits",
        ),
        (
            lambda: replace(plain_recipe(), teacher_cache=TeacherCache()),
            "teacher_cache has no effect without a teacher",
        ),
        (lambda: cached(shard_teacher=True), "teacher_cache has no effect with shard_teacher"),
        (lambda: TeacherCache(views=0), r"views must be at least 1, got 0"),
        (lambda: TeacherCache(top=0), r"top must be at least 1, got 0"),
    ],
)
def test_a_setting_without_effect_is_refused(recipe: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        describe(parts_of(recipe()), on_cpu())


def test_a_teacher_that_its_form_does_not_hold_is_named(tmp_path: Path) -> None:
    recipe = cached(plan={"task": Term(CrossEntropy()), "kd": Term(KD())})
    parts = parts_of(recipe)
    assert parts.teacher is not None
    with torch.no_grad():
        parts.teacher.fc.bias.fill_(1e5)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"'logits' is NaN, infinite or above what float16 holds\. .*bfloat16"):
        fit_arm(parts, tmp_path, on_cpu(), seed=0, resume=False, bar=StoppingBar(None))


def test_a_cache_that_can_not_be_written_stops_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"teacher cache .*can't be written: Not a directory\. .*\$DISTILL_CACHE"):
        trained(cached(), tmp_path / "run")


def test_what_is_as_long_as_a_text_is_kept_at_full_length_and_read_at_the_batch_s() -> None:
    form = Form("float32", (5, 2, 5), lengths=(0, 2))
    values = torch.randn(4, 3, 2, 3)
    rows = form.pack(values)
    assert rows.shape == (4, form.bytes) and form.bytes == 4 * 5 * 2 * 5
    assert torch.equal(form.unpack(rows, 3), values)
    longer = form.unpack(rows, 4)
    assert longer.shape == (4, 4, 2, 4) and torch.equal(longer[:, :3, :, :3], values)
    assert longer[:, 3].eq(0).all() and longer[..., 3].eq(0).all()
    assert torch.equal(form.unpack(rows, 2), values[:, :2, :, :2])


LAYER = "bert.encoder.layer.0"
OF_TOKENS = {
    "task": Term(CrossEntropy()),
    "kd": Term(KD()),
    "tokens": Term(HiddenState(), 1.0, LAYER, LAYER, Linear()),
    "scores": Term(AttentionScores(), 1.0, f"{LAYER}.attention.self:scores", f"{LAYER}.attention.self:scores"),
}


def test_texts_keep_what_their_tokens_are_worth_and_learn_from_it_as_from_the_teacher(tmp_path: Path) -> None:
    # In three epochs a text is read in batches of other lengths than that in which it was written.
    live, _ = trained_text(text_recipe(plan=OF_TOKENS, epochs=3), tmp_path / "live")
    recipe = text_recipe(plan=OF_TOKENS, epochs=3, teacher_cache=TeacherCache(form="float32"))
    filling, asked = trained_text(recipe, tmp_path / "first")
    reading, dry = trained_text(recipe, tmp_path / "again")
    assert asked > dry
    for name, tensor in live.items():
        # Texts are as long as their batch, whose length decides how sums are added up.
        torch.testing.assert_close(filling[name], tensor, rtol=0, atol=1e-5)
        torch.testing.assert_close(reading[name], tensor, rtol=0, atol=1e-5)


def test_the_plan_tells_what_tokens_take_at_the_longest_text() -> None:
    recipe = text_recipe(plan=OF_TOKENS, teacher_cache=TeacherCache())
    parts = prepare(recipe, load_splits(recipe, 0, Path("runs")), 0, Path("runs"))
    length, heads, width = recipe.data.max_length, 2, 16
    values = 2 + length * width + heads * length * length  # logits, a layer, and its attention
    assert f"{len(parts.splits.train)} examples, {2 * values / 1024:.1f} KiB each" in " ".join(
        describe(parts, on_cpu()).split()
    )


def test_answers_to_hidden_words_are_not_kept(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(
        "\n".join(f"the plot of film {number} is set in a town" for number in range(60))
    )
    recipe = text_recipe(
        data=Corpus(str(tmp_path), "*.txt", validation=10, test=10, max_length=24),
        plan={"words": Term(MaskedLanguageModel()), "tokens": OF_TOKENS["tokens"]},
        teacher_cache=TeacherCache(),
    )
    with pytest.raises(ValueError, match="teacher_cache keeps no answers to hidden words"):
        describe(prepare(recipe, load_splits(recipe, 0, Path("runs")), 0, Path("runs")), on_cpu())


def trained_text(recipe: Recipe, folder: Path) -> tuple[dict[str, Tensor], int]:
    parts = prepare(recipe, load_splits(recipe, 0, Path("runs")), 0, Path("runs"))
    assert parts.teacher is not None
    calls: list[None] = []
    parts.teacher.register_forward_pre_hook(lambda module, args, named: calls.append(None), with_kwargs=True)
    folder.mkdir(parents=True)
    fit_arm(parts, folder, on_cpu(), seed=0, resume=False, bar=StoppingBar(None))
    return dict(parts.student.state_dict()), len(calls)


def test_a_recipe_with_a_cache_goes_through_json_and_its_controls_have_none(tmp_path: Path) -> None:
    recipe = cached(controls=("plain",), allow_chance_teacher=True)
    assert from_json(to_json(recipe), allow_import=("tests",)) == recipe
    report = train(recipe, Options(root=tmp_path), Console(file=io.StringIO()))
    assert [outcome.arm for outcome in report.outcomes] == ["transferred", "plain"]
