"""The two modules of a run: the Teacher, which cannot change, and the Learner, which is everything that can."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.heads import ReadsMask
from distill.taps import Inputs, Tapped

Value = Tensor | tuple[Tensor, ...]
Taps = str | tuple[str, ...]


# No term can have this name, which is no identifier.
BALANCE = "balance of the terms"


class Met(NamedTuple):
    """What a loss gets of both sides; from the forward of a learner, where a head maps both."""

    student: Value
    teacher: Value | None


class Teacher(nn.Module):
    """A frozen model and its taps: always in evaluation mode, without gradient, never prepared, never saved.

    `train()` does not reach it: a teacher whose BatchNorm or dropout went on would drift under the student. It stops
    behind the last tap that is asked for.

    precision: float32 or bf16, whatever is around; the answers are then float32. None follows what is around.
    """

    def __init__(self, model: nn.Module, taps: Iterable[str], *, view: nn.Module | None = None) -> None:
        super().__init__()
        self.precision: torch.dtype | None = None
        self.tapped = Tapped(model.requires_grad_(False), taps, view=view, stop=True)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode, whatever is asked."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """{tap: tensor}, without gradient."""
        if self.precision is None:
            return self.tapped.answers(inputs)
        device = (inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            answers = self.tapped.answers(inputs)
        return {tap: tensor.float() for tap, tensor in answers.items()}


class Learner(nn.Module):
    """The student with its mapping heads, and all else that is learned: the one module that is prepared and trained.

    student: the network with its taps.
    taps: for each term, the student's tap, or a tuple of them.
    heads: for each term that has one, its head; a ModuleList with one head a tap where each tap has its own.
    meetings: for each term whose head maps the teacher's side too, the teacher's taps.
    balance: weighs the terms against each other; None where their weights are fixed.

    `unreached` names the parameters that no loss reaches; the dry run freezes them and writes them here.
    """

    def __init__(
        self,
        student: Tapped,
        taps: Mapping[str, Taps],
        heads: Mapping[str, nn.Module],
        meetings: Mapping[str, Taps] | None = None,
        balance: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.terms = dict(taps)
        self.heads = nn.ModuleDict(dict(heads))
        self.meetings = dict(meetings or {})
        self.balance = balance
        self.unreached: tuple[str, ...] = ()

    def forward(
        self, inputs: Inputs, targets: Mapping[str, Tensor] | None = None, batch: Batch | None = None
    ) -> dict[str, Value | Met]:
        """{term: what its loss gets of the student}, behind the head.

        targets, batch: the teacher's answers and the whole batch, for heads that map both sides; those give `Met`. What
        a balance learns stands under `BALANCE`, since whatever is learned passes through this forward.
        """
        outputs = self.student.answers(inputs)
        values = {
            term: self._mapped(term, gather_taps(outputs, taps), targets, batch) for term, taps in self.terms.items()
        }
        return values if self.balance is None else {**values, BALANCE: self.balance()}

    def _mapped(
        self, term: str, value: Value, targets: Mapping[str, Tensor] | None, batch: Batch | None
    ) -> Value | Met:
        if term not in self.heads:
            return value
        head = self.heads[term]
        if term in self.meetings:
            assert targets is not None and batch is not None
            return Met(*head(value, gather_taps(targets, self.meetings[term]), batch))
        mask = None if batch is None else batch.mask
        if isinstance(head, nn.ModuleList):
            return tuple(_through(one, tensor, mask) for one, tensor in zip(head, value, strict=True))
        mapped: Value = _through(head, value, mask)
        return mapped


def _through(head: nn.Module, value: Value, mask: Tensor | None) -> Any:
    """What a head makes of the student's value; of one tap's it is a tensor."""
    return head(value, mask) if isinstance(head, ReadsMask) else head(value)


def gather_taps(outputs: Mapping[str, Tensor], taps: str | Sequence[str]) -> Value:
    """The tensor of one tap, or a tuple of tensors where a term has several."""
    return outputs[taps] if isinstance(taps, str) else tuple(outputs[tap] for tap in taps)


def answers_of(teacher: Teacher | None, inputs: Inputs) -> dict[str, Tensor]:
    """The teacher's answers {tap: tensor}; none where there is no teacher, or no tap that is asked for."""
    if teacher is None or not teacher.tapped.taps:
        return {}
    answers: dict[str, Tensor] = teacher(inputs)
    return answers
