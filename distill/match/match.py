"""A proposal which layer of the student learns from which layer of the teacher, with all that a recipe needs of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from rich.markup import escape
from rich.table import Table
from torch import nn

from distill.heads import Grid
from distill.losses.kinds import Loss
from distill.match.candidates import Candidate, candidates, few_of
from distill.match.joining import Joining, join, loss_for, refusal
from distill.match.padding import mask_of, same_tokens
from distill.match.pairing import pairs_of
from distill.match.similarities import Similarities, similarities
from distill.matching import Rule
from distill.plan import Term
from distill.taps import Inputs

_ARROWS = 4


@dataclass(frozen=True)
class Pair:
    """One arrow that is proposed: its name as a term, both taps, their CKA, the head that joins them, and the loss."""

    name: str
    student: Candidate
    teacher: Candidate
    cka: float
    joining: Joining
    loss: Loss

    @property
    def line(self) -> str:
        """What to paste into a recipe's plan; a comment where no head can join the two."""
        head = f", head={self.joining.written}" if self.joining.head else ""
        taps = f'student="{self.student.tap}", teacher="{self.teacher.tap}"'
        if self.joining.possible:
            return f'"{self.name}": Term({self.loss}, {taps}{head}),'
        return f"# {self.name}: {taps} can't meet, {self.joining.reason}"

    @property
    def term(self) -> Term:
        """The same as a term, for a recipe that is made in Python."""
        return Term(self.loss, student=self.student.tap, teacher=self.teacher.tap, head=self.joining.head)


@dataclass(frozen=True)
class Match:
    """The pairs that a rule chose, from the similarities of all candidates."""

    rule: Rule
    pairs: tuple[Pair, ...]
    similarities: Similarities

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines to paste into a recipe's plan, one for each pair."""
        return tuple(pair.line for pair in self.pairs)

    def terms(self) -> dict[str, Term]:
        """The pairs that can be joined, as terms of a plan: `plan={**terms, **match.terms()}`."""
        return {pair.name: pair.term for pair in self.pairs if pair.joining.possible}

    def table(self) -> Table:
        """One row for each pair, with CKA, shapes, head and its parameters."""
        table = Table(title=f"Layers that match, by rule {self.rule}", title_justify="left")
        for column in ("arrow", "student", "shape", "teacher", "shape", "CKA", "head", "parameters"):
            number = column in ("CKA", "parameters")
            table.add_column(column, overflow="fold", no_wrap=number, justify="right" if number else "left")
        for pair in self.pairs:
            sides = (cell for side in (pair.student, pair.teacher) for cell in (side.tap, _shape(side)))
            head = pair.joining.written or ("none needed" if pair.joining.possible else f"none: {pair.joining.reason}")
            cells = (pair.name, *sides, f"{pair.cka:.3f}", head, f"{pair.joining.parameters:,}")
            table.add_row(*map(escape, cells), style=None if pair.joining.possible else "yellow")
        return table

    def to_json(self) -> dict[str, Any]:
        """Plain values: the rule, the pairs, the lines, and CKA of all candidates (rows are the student's)."""
        found = self.similarities
        return {
            "rule": self.rule,
            "pairs": [
                {
                    "name": pair.name,
                    "student": pair.student.tap,
                    "student_shape": list(pair.student.shape),
                    "teacher": pair.teacher.tap,
                    "teacher_shape": list(pair.teacher.shape),
                    "cka": pair.cka,
                    "head": pair.joining.written or None,
                    "head_parameters": pair.joining.parameters,
                    "loss": str(pair.loss),
                    "reason": pair.joining.reason,
                }
                for pair in self.pairs
            ],
            "lines": list(self.lines),
            "student": [_plain(one) for one in found.student],
            "teacher": [_plain(one) for one in found.teacher],
            "cka": [list(row) for row in found.cka],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], loss: Loss) -> "Match":
        """What `to_json` wrote, each pair with this loss.

        Raises:
            KeyError, TypeError, ValueError: these are not such values.
        """
        students, teachers = (
            {one["tap"]: Candidate(one["tap"], tuple(one["shape"]), one["nonnegative"]) for one in values[side]}
            for side in ("student", "teacher")
        )
        pairs = tuple(
            Pair(
                pair["name"],
                students[pair["student"]],
                teachers[pair["teacher"]],
                pair["cka"],
                _joined(students[pair["student"]], teachers[pair["teacher"]], pair["reason"]),
                loss,
            )
            for pair in values["pairs"]
        )
        cka = tuple(tuple(row) for row in values["cka"])
        return cls(values["rule"], pairs, Similarities(tuple(students.values()), tuple(teachers.values()), cka))


def match(
    teacher: nn.Module,
    student: nn.Module,
    batches: Sequence[Inputs],
    *,
    rule: Rule = "auto",
    arrows: int | None = None,
    most: int = 24,
    teacher_view: nn.Module | None = None,
    student_view: nn.Module | None = None,
    loss: Loss | None = None,
) -> Match:
    """Pairs of layers to learn from each other, from linear CKA between all candidate taps on a few batches.

    batches: inputs of four or more examples each, the same on every process, which share them out. rule: see
    `pairs_of`. arrows: how many pairs; None for four, or as many as fit. most: how many taps of each model are
    compared (see `candidates`). teacher_view, student_view: turn the inputs into what each model sees. loss: what
    compares each pair; None for `Hint`, or `HiddenState` between tokens of padded texts.

    By the rule "auto" a pair that no head can join, or that the loss refuses, is proposed only where there is no other,
    and maps of different sizes, which need a head that resizes, only where their CKA is 0.1 above that of others.

    The student is compared as it stands: of one that is neither trained nor started from the teacher, CKA tells what
    random layers keep of the input, not what they will learn. Texts are padded as the inputs' `attention_mask` says,
    and padding says nothing; tokens of models that cut texts otherwise can't be joined.

    Raises:
        ValueError: no batch, or one of fewer than four examples; more arrows than taps; a tap that is not finite.
    """
    if not batches:
        raise ValueError("Layers are matched on batches of examples, got none. Give at least one.")
    students = candidates(student, batches[0], view=student_view, most=most)
    teachers = candidates(teacher, batches[0], view=teacher_view, most=most)
    arrows = min(_ARROWS, len(students), len(teachers)) if arrows is None else arrows
    pairs_of(rule, [[0.0] * len(teachers)] * len(students), arrows)  # refuses before the work
    found = similarities(
        teacher,
        student,
        _share(batches),
        teacher_taps=teachers,
        student_taps=students,
        teacher_view=teacher_view,
        student_view=student_view,
    )
    few = few_of(batches[0])
    ours, theirs = (
        few if student_view is None else student_view(few),
        few if teacher_view is None else teacher_view(few),
    )
    mask = mask_of(ours)
    losses = [loss_for(one, mask) if loss is None else loss for one in teachers]
    known = loss is None and mask is None
    reasons = ["" if known else refusal(one, features, mask) for one, features in zip(losses, teachers, strict=True)]
    cut = "" if same_tokens(ours, theirs) else "the two models cut a text into other tokens"
    joinings = [
        [
            _joined(one, other, reason or cut * (len(other.shape) > 1), of_texts=mask is not None)
            for other, reason in zip(teachers, reasons, strict=True)
        ]
        for one in students
    ]
    chosen = pairs_of(rule, found.cka, arrows, [[joining.cost for joining in row] for row in joinings])
    pairs = tuple(
        Pair(
            f"match{number}",
            students[s],
            teachers[t],
            found.cka[s][t],
            joinings[s][t],
            losses[t],
        )
        for number, (s, t) in enumerate(chosen, 1)
    )
    return Match(rule, pairs, found)


def _joined(student: Candidate, teacher: Candidate, reason: str, *, of_texts: bool = False) -> Joining:
    """The head that joins the two, if neither a head nor a reason is in the way."""
    joining = join(student, teacher)
    if of_texts and isinstance(joining.head, Grid):
        joining = Joining(reason="the words of a text lie on no grid")
    return Joining(reason=reason) if joining.possible and reason else joining


def _plain(candidate: Candidate) -> dict[str, Any]:
    return {"tap": candidate.tap, "shape": list(candidate.shape), "nonnegative": candidate.nonnegative}


def _share(batches: Sequence[Inputs]) -> Sequence[Inputs]:
    """This process's batches."""
    if dist.is_available() and dist.is_initialized():
        return batches[dist.get_rank() :: dist.get_world_size()]
    return batches


def _shape(candidate: Candidate) -> str:
    return "x".join(map(str, candidate.shape)) or "scalar"
