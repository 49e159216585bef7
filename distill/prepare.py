"""From a recipe to what one student is trained from: data, models that fit them, and the student at its start."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import nn

from distill.batch import Batch
from distill.data import Splits, collate
from distill.heads import Contrast, Factors, Paraphraser
from distill.initialize import AverageLayers, CopyWeights, Coverage, SelectWeights, SkipLayers
from distill.models import Loaded, load_model
from distill.pair import Teacher
from distill.plan import Plan, Term, teacher_taps
from distill.recipe import Model, Recipe, to_json
from distill.taps import Tapped
from distill.view import View

_DRY_RUN_EXAMPLES = 4


@dataclass(frozen=True)
class Parts:
    """What one trained student is made of.

    comparable: whether the teacher answers the same classes, so that its quality and agreement mean something.
    """

    recipe: Recipe
    splits: Splits
    student: nn.Module
    student_view: View
    teacher: nn.Module | None
    teacher_view: View
    comparable: bool
    coverage: Coverage | None
    notes: tuple[str, ...]


def load_splits(recipe: Recipe, seed: int) -> Splits:
    """The recipe's data, with augmentation drawn from the seed.

    Raises:
        ValueError: data are missing or damaged, or a split is empty; by name.
    """
    splits = recipe.data.load(seed, recipe.mix)
    for name, examples in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        if len(examples) == 0:
            raise ValueError(f"The {name} split of {type(recipe.data).__name__} is empty. Give it examples.")
    return splits


def prepare(recipe: Recipe, splits: Splits, seed: int, root: Path) -> Parts:
    """Load the models, check that they fit, and start the student from the teacher where the recipe says so.

    Raises:
        ValueError: weights are missing, or classes differ; each by name.
    """
    classes = len(splits.classes)
    set_seed(seed)
    student, student_view = _load(recipe.student, splits, classes, root)
    sample = sample_batch(splits)
    _check_classes(recipe.student, student.model, student_view, sample, classes)
    if recipe.teacher is None:
        return Parts(recipe, splits, student.model, student_view, None, student_view, False, None, _notes(student))
    teacher, teacher_view = _load(recipe.teacher, splits, None if recipe.teacher.weights else classes, root)
    with torch.no_grad():
        width = Teacher(teacher.model, ("logits",), view=teacher_view.module())(sample.inputs)["logits"].shape[-1]
    named = teacher.classes is not None
    comparable = width == classes and (not named or tuple(teacher.classes or ()) == splits.classes)
    _check_teacher_classes(recipe, teacher, width, splits.classes, comparable)
    if width == classes and not comparable:
        _check_kept_classifier(recipe, teacher, splits.classes)
    coverage = None if recipe.initialize is None else recipe.initialize(teacher.model, student.model)
    _check_heads(recipe, len(splits.train))
    notes = (*_notes(teacher, student), *_split_notes(recipe, root))
    return Parts(recipe, splits, student.model, student_view, teacher.model, teacher_view, comparable, coverage, notes)


def sample_batch(splits: Splits, examples: int = _DRY_RUN_EXAMPLES) -> Batch:
    """A few training examples for a dry run."""
    return collate([splits.train[(0, index)] for index in range(min(examples, len(splits.train)))])


def _load(model: Model, splits: Splits, classes: int | None, root: Path) -> tuple[Loaded, View]:
    channels = splits.train[(0, 0)].image.shape[0]
    loaded = load_model(
        model.source,
        num_classes=classes,
        in_channels=channels,
        weights=None if model.weights is None else _under_root(model.weights, root),
        arguments=model.arguments,
        trust=model.trust,
    )
    view = model.view or loaded.view or splits.view
    return loaded, view


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


def _check_classes(model: Model, student: nn.Module, view: View, sample: Batch, classes: int) -> None:
    tapped = Tapped(student, ("logits",), view=view.module()).eval()
    with torch.no_grad():
        shape = tuple(tapped(sample.inputs)["logits"].shape)
    student.train()
    if shape != (len(sample), classes):
        raise ValueError(
            f"Student {model.source} gives {shape[-1]} logits and the data has {classes} classes. "
            "Build it with as many outputs (arguments={'num_classes': ...})."
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
