"""From a recipe to what one student is trained from: data, models that fit them, and the student at its start."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import nn

from distill.batch import Batch
from distill.data import Splits, TextSplits
from distill.heads import Contrast, Factors, Paraphraser
from distill.initialize import AverageLayers, CopyWeights, Coverage, SelectWeights, SkipLayers
from distill.models import Loaded, load_model, student_folder
from distill.pair import Teacher
from distill.plan import Plan, Term, teacher_taps
from distill.recipe import Model, Recipe, to_json
from distill.start import from_coverage, from_weights, measure_statistics, start_student
from distill.taps import Tapped, accepted_names
from distill.tokenize import Tokenizer, check_fit, load_tokenizer
from distill.view import Sees, TokensView

_DRY_RUN_EXAMPLES = 4


@dataclass(frozen=True)
class Parts:
    """What one trained student is made of.

    comparable: whether the teacher answers the same classes, so that its quality and agreement mean something; never
        where hidden tokens are guessed.
    started: names of the student's parameters that came from weights, its own or the teacher's.
    """

    recipe: Recipe
    splits: Splits | TextSplits
    student: nn.Module
    student_view: Sees
    teacher: nn.Module | None
    teacher_view: Sees
    comparable: bool
    coverage: Coverage | None
    notes: tuple[str, ...]
    started: frozenset[str] = frozenset()

    @property
    def masked(self) -> bool:
        """Whether the student guesses hidden tokens of texts that have no classes."""
        return isinstance(self.splits, TextSplits) and self.splits.masked

    @property
    def aligned(self) -> bool:
        """Whether both models cut an example into the same positions: not where each has its own tokens of a text."""
        return not (isinstance(self.student_view, TokensView) and self.student_view.side)


def load_splits(recipe: Recipe, seed: int, root: Path) -> Splits | TextSplits:
    """The recipe's data, with augmentation drawn from the seed; texts with the tokens of both models.

    Raises:
        ValueError: data are missing or damaged, a split is empty, or a model has no tokenizer; by name.
    """
    splits = recipe.data.load(seed, recipe.mix)
    for name, examples in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        if len(examples) == 0:
            raise ValueError(f"The {name} split of {type(recipe.data).__name__} is empty. Give it examples.")
    if isinstance(splits, TextSplits):
        return splits.encoded(_tokenizers(recipe, splits.train.texts, root))
    for role, model in (("student", recipe.student), ("teacher", recipe.teacher)):
        if model is not None and model.tokenizer is not None:
            raise ValueError(f"{role}.tokenizer has no effect on {type(recipe.data).__name__}, which is of images.")
    return splits


def prepare(recipe: Recipe, splits: Splits | TextSplits, seed: int, root: Path) -> Parts:
    """Load the models, check that they fit, and start the student from the teacher where the recipe says so.

    Raises:
        ValueError: weights are missing, or classes differ; each by name.
    """
    classes = len(splits.classes)
    masked = isinstance(splits, TextSplits) and splits.masked
    set_seed(seed)
    student, student_view = _load(recipe.student, splits, None if masked else classes, root, "student")
    sample = sample_batch(splits)
    if isinstance(splits, TextSplits) and masked:
        _check_tokens(recipe.student, student.model, student_view, sample, splits.tokenizer("student"))
    else:
        _check_classes(recipe.student, student.model, student_view, sample, classes)
    started = frozenset[str]() if recipe.student.weights is None else from_weights(student)
    if recipe.teacher is None:
        notes = (*splits.notes, *_notes(student))
        pair = student.model, student_view, None, student_view
        return Parts(recipe, splits, *pair, False, None, notes, started)
    kept = masked or recipe.teacher.weights is not None
    teacher, teacher_view = _load(recipe.teacher, splits, None if kept else classes, root, "teacher")
    with torch.no_grad():
        width = Teacher(teacher.model, ("logits",), view=teacher_view.module())(sample.inputs)["logits"].shape[-1]
    named = teacher.classes is not None
    comparable = not masked and width == classes and (not named or tuple(teacher.classes or ()) == splits.classes)
    if not masked:
        _check_teacher_classes(recipe, teacher, width, splits.classes, comparable)
    if width == classes and not comparable:
        _check_kept_classifier(recipe, teacher, splits.classes)
    _check_heads(recipe, len(splits.train))
    coverage, measured = None, tuple[str, ...]()
    if recipe.initialize is not None:
        spread, examples = partial(spread_batches, splits), len(splits.train)
        coverage = start_student(recipe.initialize, teacher.model, student.model, teacher_view, spread, examples)
        started |= from_coverage(coverage)
        if recipe.reestimate_batchnorm is not None:
            sizes = {"batches": recipe.reestimate_batchnorm, "batch_size": recipe.batch_size}
            measured = (measure_statistics(student.model, student_view, spread, examples, **sizes),)
    notes = (*splits.notes, *_notes(teacher, student), *_split_notes(recipe, root), *measured)
    both = student.model, student_view, teacher.model, teacher_view
    return Parts(recipe, splits, *both, comparable, coverage, notes, started)


def sample_batch(splits: Splits | TextSplits, examples: int = _DRY_RUN_EXAMPLES) -> Batch:
    """A few training examples for a dry run."""
    return batch_of(splits, range(min(examples, len(splits.train))))


def cost_batch(splits: Splits | TextSplits, examples: int) -> Batch:
    """Training examples to measure a model's cost with: texts are of `max_length` tokens."""
    collate = splits.longest if isinstance(splits, TextSplits) else splits.collate
    return collate([splits.train[(0, index)] for index in range(min(examples, len(splits.train)))])


def batch_of(splits: Splits | TextSplits, numbers: Sequence[int]) -> Batch:
    """The training examples of these numbers, as in the first epoch."""
    return splits.collate([splits.train[(0, number)] for number in numbers])


def spread_batches(splits: Splits | TextSplits, batches: int, size: int) -> Iterator[Batch]:
    """Batches of distinct training examples, each from all over the split, from its beginning to its end.

    They depend on the numbers alone, so every process sees the same.
    """
    assert batches * size <= len(splits.train)
    places = torch.linspace(0, len(splits.train) - 1, size * batches, dtype=torch.float64).round().long().tolist()
    return (batch_of(splits, places[first::batches]) for first in range(batches))


def _tokenizers(recipe: Recipe, texts: Sequence[str], root: Path) -> dict[str, Tokenizer]:
    """{side: tokenizer}, see `TokensView`. A student without a tokenizer of its own takes the teacher's."""
    teacher = None if recipe.teacher is None else _tokenizer(recipe.teacher, texts, root)
    student = _tokenizer(recipe.student, texts, root) or teacher
    if student is None or (recipe.teacher is not None and teacher is None):
        model = recipe.student if student is None else recipe.teacher
        assert model is not None
        raise ValueError(
            f"{model.source} has no tokenizer of its own. Give it one: Model(..., tokenizer=WordPiece()) is trained on "
            "the training texts, and a folder or a name is loaded."
        )
    if teacher is None or teacher.fingerprint == student.fingerprint:
        return {"": student}
    return {"student": student, "teacher": teacher}


def _tokenizer(model: Model, texts: Sequence[str], root: Path) -> Tokenizer | None:
    """The tokenizer that a model names, or brings; None where it does neither."""
    weights = None if model.weights is None else Path(_under_root(model.weights, root)).expanduser()
    folder = None if weights is None else student_folder(weights)
    if folder is not None:
        if model.tokenizer is not None:
            raise ValueError(
                f"tokenizer={model.tokenizer!r} has no effect on {model.source}: {model.weights} has the one that it "
                "was trained with. Leave it out."
            )
        return load_tokenizer(str(folder))
    if isinstance(model.tokenizer, str):
        return load_tokenizer(_under_root(model.tokenizer, root))
    if model.tokenizer is not None:
        return model.tokenizer.train(texts)
    kind, _, name = model.source.partition(":")
    return load_tokenizer(name) if kind == "transformers" and model.weights == "pretrained" else None


def _load(model: Model, splits: Splits | TextSplits, classes: int | None, root: Path, role: str) -> tuple[Loaded, Sees]:
    tokenizer = splits.tokenizer(role) if isinstance(splits, TextSplits) else None
    loaded = load_model(
        model.source,
        num_classes=classes,
        in_channels=splits.train[(0, 0)].image.shape[0] if isinstance(splits, Splits) else None,
        vocab_size=None if tokenizer is None else tokenizer.size,
        weights=None if model.weights is None else _under_root(model.weights, root),
        arguments=model.arguments,
        trust=model.trust,
        answers="tokens" if isinstance(splits, TextSplits) and splits.masked else "classes",
    )
    accepted = accepted_names(loaded.model)
    of_texts = accepted is not None and "input_ids" in accepted
    if accepted is not None and of_texts != isinstance(splits, TextSplits):
        kinds = ("images", "texts") if of_texts else ("texts", "images")
        raise ValueError(f"The data are {kinds[0]}, and {model.source} is a model of {kinds[1]}. Take another model.")
    if isinstance(splits, Splits):
        return loaded, model.view or loaded.view or splits.view
    if model.view is not None:
        raise ValueError(f"view of {model.source} is of images, and the data are texts. Leave it out.")
    assert tokenizer is not None
    check_fit(tokenizer, loaded.model, name=model.source, max_length=splits.max_length)
    return loaded, TokensView("" if "" in splits.tokenizers else role, splits.max_length)


def _notes(*models: Loaded) -> tuple[str, ...]:
    return tuple(model.note for model in models if model.note)


def _split_notes(recipe: Recipe, root: Path) -> tuple[str, ...]:
    """A warning where the run that trained the teacher cut the same data otherwise."""
    assert recipe.teacher is not None
    file = Path(_under_root(recipe.teacher.weights or "", root)) / "recipe.json"
    if recipe.teacher.weights is None or not file.is_file():
        return ()
    theirs, ours = json.loads(file.read_text()).get("data", {}), json.loads(to_json(recipe))["data"]
    cuts = [key for key in ("validation", "test", "split_seed") if theirs.get(key) != ours.get(key)]
    if theirs.get("type") != ours["type"] or not cuts:
        return ()
    different = ", ".join(f"{key} {theirs.get(key)} for {ours.get(key)}" for key in cuts)
    return (
        f"Warning: the teacher's run cut {ours['type']} otherwise ({different}), so it may have been trained on this "
        "run's validation and test examples. Give both the same data settings.",
    )


def _under_root(weights: str, root: Path) -> str:
    """`runs/NAME` names a run: it lies in the folder of runs, wherever the user put that."""
    first, _, rest = weights.partition("/")
    return str(root / rest) if first == "runs" and rest else weights


def _check_classes(model: Model, student: nn.Module, view: Sees, sample: Batch, classes: int) -> None:
    tapped = Tapped(student, ("logits",), view=view.module()).eval()
    with torch.no_grad():
        shape = tuple(tapped(sample.inputs)["logits"].shape)
    student.train()
    if shape != (len(sample), classes):
        raise ValueError(
            f"Student {model.source} gives {shape[-1]} logits and the data has {classes} classes. "
            "Build it with as many outputs (arguments={'num_classes': ...})."
        )


def _check_tokens(model: Model, student: nn.Module, view: Sees, sample: Batch, tokenizer: Tokenizer) -> None:
    tapped = Tapped(student, ("logits",), view=view.module()).eval()
    with torch.no_grad():
        shape = tuple(tapped(sample.inputs)["logits"].shape)
    tapped.close()
    student.train()
    if shape[:-1] != sample.labels.shape or shape[-1] < tokenizer.size:
        raise ValueError(
            f"Student {model.source} gives logits {shape} and the data hide tokens, {tuple(sample.labels.shape)} of "
            f"{tokenizer.size}. Take a masked language model: 'transformers:bert' without the weights of a classifier."
        )


def _check_teacher_classes(
    recipe: Recipe, teacher: Loaded, width: int, classes: tuple[str, ...], comparable: bool
) -> None:
    reads_logits = any("logits" in teacher_taps(stage.plan) for stage in recipe.all_stages())
    if comparable or not reads_logits:
        return
    assert recipe.teacher is not None
    if width != len(classes):
        raise ValueError(
            f"Teacher {recipe.teacher.source} answers {width} classes and the data has {len(classes)}, so their "
            f"logits can't be "
            "compared. Fine-tune the teacher on these classes first, or use its inner taps only."
        )
    raise ValueError(f"{_first_difference(recipe, teacher, classes)} Give both the same classes in the same order.")


def _check_kept_classifier(recipe: Recipe, teacher: Loaded, classes: tuple[str, ...]) -> None:
    """Refuse a start from a classifier whose classes are as many, but others."""
    start = recipe.initialize
    if isinstance(start, CopyWeights | SkipLayers | AverageLayers | SelectWeights) and start.keep_classifier:
        raise ValueError(
            f"{_first_difference(recipe, teacher, classes)} Write {type(start).__name__}(keep_classifier=False), so "
            "that the student does not start from its classifier."
        )


def _first_difference(recipe: Recipe, teacher: Loaded, classes: tuple[str, ...]) -> str:
    assert recipe.teacher is not None
    pairs = zip(teacher.classes or (), classes, strict=True)
    number, (theirs, ours) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
    return f"Teacher {recipe.teacher.source} and the data name class {number} differently: {theirs!r} and {ours!r}."


def _check_heads(recipe: Recipe, examples: int) -> None:
    """Refuse heads that depend on what no shape tells: the number of examples, or the stage before."""
    before: Plan = {}
    for stage in recipe.all_stages():
        for name, term in stage.plan.items():
            head = term.head
            if isinstance(head, Contrast) and head.examples not in (None, examples):
                raise ValueError(
                    f"Term '{name}': Contrast's bank has {head.examples} rows and the training split has {examples} "
                    f"examples. Write Contrast(examples={examples})."
                )
            if isinstance(head, Factors) and not _paraphrases(before.get(name), head):
                raise ValueError(
                    f"Term '{name}': Factors takes its paraphraser from the stage before. Put a stage in front with "
                    f"Term(Hint(), head=Paraphraser(rate={head.rate})) under the same name '{name}'."
                )
        before = stage.plan


def _paraphrases(term: Term | None, head: Factors) -> bool:
    return term is not None and term.head in (Paraphraser(head.rate), head)
