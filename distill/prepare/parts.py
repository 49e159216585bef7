"""The models of a recipe that fit its data, and the student at its start."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import nn

from distill.data import Splits, TextSplits
from distill.initialize import Coverage
from distill.models import Loaded
from distill.pair import Teacher
from distill.prepare.batches import sample_batch, spread_batches
from distill.prepare.checks import (
    check_classes,
    check_heads,
    check_kept_classifier,
    check_losses,
    check_teacher_classes,
    check_tokens,
)
from distill.prepare.models import load, under_root
from distill.prepare.positives import balance_positives
from distill.recipe import Recipe, to_json
from distill.start import from_coverage, from_weights, measure_statistics, start_student
from distill.view import Sees, TokensView


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
    def several(self) -> bool:
        """Whether an example may have several labels."""
        return self.splits.several

    @property
    def headline(self) -> str:
        """The metric by which epochs are chosen and a transfer is judged."""
        return "auroc" if self.several else "accuracy"

    @property
    def aligned(self) -> bool:
        """Whether both models cut an example into the same positions: not where each has its own tokens of a text."""
        return not (isinstance(self.student_view, TokensView) and self.student_view.side)


def prepare(recipe: Recipe, splits: Splits | TextSplits, seed: int, root: Path) -> Parts:
    """Load the models, check that they fit, and start the student from the teacher where the recipe says so.

    Raises:
        ValueError: weights are missing, or classes differ; each by name.
    """
    classes = len(splits.classes)
    masked = isinstance(splits, TextSplits) and splits.masked
    check_losses(recipe, splits.several)
    recipe, weighed = balance_positives(recipe, splits)
    set_seed(seed)
    student, student_view = load(recipe.student, splits, None if masked else classes, root, "student")
    sample = sample_batch(splits)
    if isinstance(splits, TextSplits) and masked:
        check_tokens(recipe.student, student.model, student_view, sample, splits.tokenizer("student"))
    else:
        check_classes(recipe.student, student.model, student_view, sample, classes)
    started = frozenset[str]() if recipe.student.weights is None else from_weights(student)
    if recipe.teacher is None:
        notes = (*splits.notes, *weighed, *_notes(student))
        pair = student.model, student_view, None, student_view
        return Parts(recipe, splits, *pair, False, None, notes, started)
    kept = masked or recipe.teacher.weights is not None
    teacher, teacher_view = load(recipe.teacher, splits, None if kept else classes, root, "teacher")
    with torch.no_grad():
        width = Teacher(teacher.model, ("logits",), view=teacher_view.module())(sample.inputs)["logits"].shape[-1]
    named = teacher.classes is not None
    comparable = not masked and width == classes and (not named or tuple(teacher.classes or ()) == splits.classes)
    if not masked:
        check_teacher_classes(recipe, teacher, width, splits.classes, comparable)
    if width == classes and not comparable:
        check_kept_classifier(recipe, teacher, splits.classes)
    check_heads(recipe, len(splits.train))
    coverage, measured = None, tuple[str, ...]()
    if recipe.initialize is not None:
        spread, examples = partial(spread_batches, splits), len(splits.train)
        coverage = start_student(recipe.initialize, teacher.model, student.model, teacher_view, spread, examples)
        started |= from_coverage(coverage)
        if recipe.reestimate_batchnorm is not None:
            sizes = {"batches": recipe.reestimate_batchnorm, "batch_size": recipe.batch_size}
            measured = (measure_statistics(student.model, student_view, spread, examples, **sizes),)
    notes = (*splits.notes, *weighed, *_notes(teacher, student), *_split_notes(recipe, root), *measured)
    both = student.model, student_view, teacher.model, teacher_view
    return Parts(recipe, splits, *both, comparable, coverage, notes, started)


def _notes(*models: Loaded) -> tuple[str, ...]:
    return tuple(model.note for model in models if model.note)


def _split_notes(recipe: Recipe, root: Path) -> tuple[str, ...]:
    """A warning where the run that trained the teacher cut the same data otherwise."""
    assert recipe.teacher is not None
    file = Path(under_root(recipe.teacher.weights or "", root)) / "recipe.json"
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
