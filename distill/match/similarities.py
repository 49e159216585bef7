"""The similarity of all candidate taps of a student with all of a teacher, in memory that the batches do not add to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.match.candidates import Candidate
from distill.match.padding import mask_of, text_gram_vector
from distill.measure import evaluating
from distill.similarity import CkaSums
from distill.taps import Inputs, Tapped


@dataclass(frozen=True)
class Similarities:
    """Linear CKA of each tap of the student (a row) with each tap of the teacher (a column)."""

    student: tuple[Candidate, ...]
    teacher: tuple[Candidate, ...]
    cka: tuple[tuple[float, ...], ...]


def similarities(
    teacher: nn.Module,
    student: nn.Module,
    batches: Iterable[Inputs],
    *,
    teacher_taps: Sequence[Candidate],
    student_taps: Sequence[Candidate],
    teacher_view: nn.Module | None = None,
    student_view: nn.Module | None = None,
) -> Similarities:
    """The minibatch estimate of linear CKA (see `distill.similarity`) over the batches of all processes.

    batches: those of this process, each of four or more examples; a process may have none. Both models are run in
    evaluation mode and without gradient, one after the other; the features of one batch and one model are held at a
    time, and of each tap the products of its examples. Padding of texts says nothing: see `distill.match.padding`.

    Raises:
        ValueError: a batch has fewer than four examples, or a tap gives values that are not finite.
    """
    taps, views = (student_taps, teacher_taps), (student_view, teacher_view)
    return _named(_sums(teacher, student, batches, taps, views).over_ranks(), *taps)


def similarities_here(
    teacher: nn.Module,
    student: nn.Module,
    batches: Iterable[Inputs],
    *,
    teacher_taps: Sequence[Candidate],
    student_taps: Sequence[Candidate],
    teacher_view: nn.Module | None = None,
    student_view: nn.Module | None = None,
) -> Similarities:
    """The same over the batches of this process alone, which the others need not call."""
    taps, views = (student_taps, teacher_taps), (student_view, teacher_view)
    return _named(_sums(teacher, student, batches, taps, views), *taps)


_Views = tuple[nn.Module | None, nn.Module | None]


def _sums(
    teacher: nn.Module,
    student: nn.Module,
    batches: Iterable[Inputs],
    taps: tuple[Sequence[Candidate], Sequence[Candidate]],
    views: _Views,
) -> CkaSums:
    """taps, views: the student's and the teacher's."""
    guide = Tapped(teacher, [one.tap for one in taps[1]])
    tapped = Tapped(student, [one.tap for one in taps[0]])
    sums = CkaSums.zeros(len(taps[0]), len(taps[1])).to(_device(student))
    try:
        with evaluating(teacher), evaluating(student), torch.no_grad():
            for inputs in batches:
                sums = sums + CkaSums.of_grams(_grams(tapped, inputs, views[0]), _grams(guide, inputs, views[1]))
    finally:
        guide.close()
        tapped.close()
    return sums


def _named(sums: CkaSums, student_taps: Sequence[Candidate], teacher_taps: Sequence[Candidate]) -> Similarities:
    sums = sums.to("cpu")
    for role, taps, own in (("student", student_taps, sums.student), ("teacher", teacher_taps, sums.teacher)):
        for one, value in zip(taps, own.tolist(), strict=True):
            if not torch.isfinite(torch.tensor(value)):
                raise ValueError(
                    f"Tap '{one.tap}' of the {role} gives values that are not finite. Check the {role}'s weights and "
                    "view."
                )
    return Similarities(tuple(student_taps), tuple(teacher_taps), tuple(map(tuple, sums.cka().tolist())))


def _grams(tapped: Tapped, inputs: Inputs, view: nn.Module | None) -> list[Tensor]:
    seen = inputs if view is None else view(inputs)
    features, mask = tapped(seen), mask_of(seen)
    return [text_gram_vector(features.pop(tap), mask) for tap in tapped.taps]


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
