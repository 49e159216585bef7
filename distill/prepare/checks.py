"""What must fit between a recipe's models and its data, each named where it does not."""

import torch
from torch import nn

from distill.batch import Batch
from distill.heads import Contrast, Factors, Paraphraser
from distill.initialize import AverageLayers, CopyWeights, SelectWeights, SkipLayers
from distill.losses import Asymmetric, BinaryCrossEntropy
from distill.losses.kinds import Exclusive, Task
from distill.models import Loaded
from distill.plan import Plan, Term, student_taps, teacher_taps
from distill.recipe import Model, Recipe
from distill.taps import Tapped
from distill.tokenize import Tokenizer
from distill.view import Sees


def check_classes(model: Model, student: nn.Module, view: Sees, sample: Batch, classes: int) -> None:
    """Refuse a student that does not give one logit a class."""
    shape = _logits(student, view, sample)
    if shape != (len(sample), classes):
        raise ValueError(
            f"Student {model.source} gives {shape[-1]} logits and the data has {classes} classes. "
            "Build it with as many outputs (arguments={'num_classes': ...})."
        )


def check_tokens(model: Model, student: nn.Module, view: Sees, sample: Batch, tokenizer: Tokenizer) -> None:
    """Refuse a student that does not give each position of a text logits for all tokens."""
    shape = _logits(student, view, sample)
    if shape[:-1] != sample.labels.shape or shape[-1] < tokenizer.size:
        raise ValueError(
            f"Student {model.source} gives logits {shape} and the data hide tokens, {tuple(sample.labels.shape)} of "
            f"{tokenizer.size}. Take a masked language model: 'transformers:bert' without the weights of a classifier."
        )


def check_teacher_classes(
    recipe: Recipe, teacher: Loaded, width: int, classes: tuple[str, ...], comparable: bool
) -> None:
    """Refuse to compare answers to other classes; a teacher of `width` classes may still give its inner taps."""
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


def check_losses(recipe: Recipe, several: bool) -> None:
    """Refuse losses over classes of which an example has one where it may have several labels, and the reverse."""
    for stage in recipe.all_stages():
        for name, term in stage.plan.items():
            kind, of_logits = type(term.loss).__name__, "logits" in student_taps({name: term})
            if several and isinstance(term.loss, Exclusive) and of_logits:
                instead = "BinaryCrossEntropy()" if isinstance(term.loss, Task) else "MultiLabelKD()"
                raise ValueError(
                    f"Term '{name}': {kind} takes the logits for classes of which an example has one, and an example "
                    f"of {type(recipe.data).__name__} has several labels. Write {instead}."
                )
            # Mixing makes soft labels of classes, each of which is a label of its own to these losses.
            if not several and recipe.mix is None and isinstance(term.loss, Asymmetric | BinaryCrossEntropy):
                raise ValueError(
                    f"Term '{name}': {kind} is for examples of several labels, and an example of "
                    f"{type(recipe.data).__name__} has one class. Write CrossEntropy()."
                )


def check_kept_classifier(recipe: Recipe, teacher: Loaded, classes: tuple[str, ...]) -> None:
    """Refuse a start from a classifier whose classes are as many, but others."""
    start = recipe.initialize
    if isinstance(start, CopyWeights | SkipLayers | AverageLayers | SelectWeights) and start.keep_classifier:
        raise ValueError(
            f"{_first_difference(recipe, teacher, classes)} Write {type(start).__name__}(keep_classifier=False), so "
            "that the student does not start from its classifier."
        )


def check_heads(recipe: Recipe, examples: int) -> None:
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


def _first_difference(recipe: Recipe, teacher: Loaded, classes: tuple[str, ...]) -> str:
    assert recipe.teacher is not None
    pairs = zip(teacher.classes or (), classes, strict=True)
    number, (theirs, ours) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
    return f"Teacher {recipe.teacher.source} and the data name class {number} differently: {theirs!r} and {ours!r}."


def _paraphrases(term: Term | None, head: Factors) -> bool:
    return term is not None and term.head in (Paraphraser(head.rate), head)


def _logits(student: nn.Module, view: Sees, sample: Batch) -> tuple[int, ...]:
    """The shape of the student's answer; it is left in training."""
    tapped = Tapped(student, ("logits",), view=view.module()).eval()
    with torch.no_grad():
        shape = tuple(tapped(sample.inputs)["logits"].shape)
    tapped.close()
    student.train()
    return shape
