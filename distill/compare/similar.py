"""How alike the layers of student and teacher are, before the transfer and after it."""

from dataclasses import replace

from torch import nn

from distill.compare.comparison import Cka
from distill.data import Splits, TextSplits
from distill.finished import Finished
from distill.match import Similarities, candidates, similarities_here
from distill.matched import match_batches
from distill.prepare import Parts, load_splits, prepare
from distill.prepare.models import load

_BATCHES, _TAPS = 4, 16


def layers(run: Finished, splits: Splits | TextSplits | None = None) -> Cka:
    """CKA of every layer of the student with every layer of its teacher, at the start and of what was trained.

    The start is made anew, as the run made it under its first seed. It takes 64 training examples.

    splits: the run's data; None reads them.

    Raises:
        ValueError: data, teacher or student can't be had, or there are too few examples; by name.
    """
    recipe, seed = run.recipe, run.recipe.seed
    splits = splits if splits is not None else load_splits(recipe, seed, run.root)
    parts = prepare(recipe, splits, seed, run.root)
    # Absolute, since `runs/...` would be read as the name of a run.
    trained = replace(recipe.student, weights=str(run.student().resolve()), trust=False)
    after, _ = load(trained, splits, None if parts.masked else len(splits.classes), run.root, "student")
    batches = [batch.inputs for batch in match_batches(splits, _BATCHES)]
    views = {"teacher_view": parts.teacher_view.module(), "student_view": parts.student_view.module()}
    assert parts.teacher is not None
    found = candidates(parts.student, batches[0], view=views["student_view"], most=_TAPS)
    of_teacher = candidates(parts.teacher, batches[0], view=views["teacher_view"], most=_TAPS)

    def measured(student: nn.Module) -> Similarities:
        assert parts.teacher is not None
        return similarities_here(parts.teacher, student, batches, teacher_taps=of_teacher, student_taps=found, **views)

    start, end = measured(parts.student), measured(after.model)
    names = tuple(one.tap for one in found), tuple(one.tap for one in of_teacher)
    return Cka(*names, start.cka, end.cka, _count(parts))


def _count(parts: Parts) -> int:
    return sum(len(batch) for batch in match_batches(parts.splits, _BATCHES))
