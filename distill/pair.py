"""The two modules of a run: the Teacher, which cannot change, and the Learner, which is everything that can."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from distill.taps import Inputs, Tapped

Value = Tensor | tuple[Tensor, ...]


class Teacher(nn.Module):
    """A frozen model and its taps: always in evaluation mode, without gradient, never prepared, never saved.

    `train()` does not reach it: a teacher whose BatchNorm or dropout went on would drift under the student. It stops
    behind the last tap that is asked for.
    """

    def __init__(self, model: nn.Module, taps: Iterable[str], *, view: nn.Module | None = None) -> None:
        super().__init__()
        self.tapped = Tapped(model.requires_grad_(False), taps, view=view, stop=True)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode, whatever is asked."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """{tap: tensor}, without gradient."""
        answers: dict[str, Tensor] = self.tapped(inputs)
        return answers


class Learner(nn.Module):
    """The student with its mapping heads: the one module that is prepared, trained and saved.

    student: the network with its taps.
    taps: for each term, the student's tap, or a tuple of them.
    heads: for each term that has one, its head; a ModuleList with one head a tap where the term has several taps.

    `unreached` names the parameters that no loss reaches; the dry run freezes them and writes them here.
    """

    def __init__(
        self, student: Tapped, taps: Mapping[str, str | tuple[str, ...]], heads: Mapping[str, nn.Module]
    ) -> None:
        super().__init__()
        self.student = student
        self.terms = dict(taps)
        self.heads = nn.ModuleDict(dict(heads))
        self.unreached: tuple[str, ...] = ()

    def forward(self, inputs: Inputs) -> dict[str, Value]:
        """{term: what its loss gets of the student}, behind the head."""
        outputs = self.student(inputs)
        return {term: self._mapped(term, gather_taps(outputs, taps)) for term, taps in self.terms.items()}

    def _mapped(self, term: str, value: Value) -> Value:
        if term not in self.heads:
            return value
        head = self.heads[term]
        if isinstance(value, Tensor):
            mapped: Tensor = head(value)
            return mapped
        assert isinstance(head, nn.ModuleList)
        return tuple(one(tensor) for one, tensor in zip(head, value, strict=True))


def gather_taps(outputs: Mapping[str, Tensor], taps: str | Sequence[str]) -> Value:
    """The tensor of one tap, or a tuple of tensors where a term has several."""
    return outputs[taps] if isinstance(taps, str) else tuple(outputs[tap] for tap in taps)
