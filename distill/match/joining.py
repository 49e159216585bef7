"""The head that an arrow needs to bring the student's shape to the teacher's, if one can."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from distill.batch import Batch
from distill.heads import Conv1x1, Grid, Linear, Regressor
from distill.losses import HiddenState, Hint
from distill.losses.kinds import HonoursMask, Loss
from distill.match.candidates import Candidate

_RESIZING = 0.1
_IMPOSSIBLE = 100.0


@dataclass(frozen=True)
class Joining:
    """What joins two taps.

    head: None for equal shapes, which need none, and where no head can.
    parameters: of the head. reason: why no head can join them; empty where they can be joined.
    """

    head: Conv1x1 | Grid | Linear | Regressor | None = None
    parameters: int = 0
    reason: str = ""

    @property
    def possible(self) -> bool:
        """Whether the two taps can meet."""
        return not self.reason

    @property
    def cost(self) -> float:
        """What the pair's CKA must make up for to be chosen: a map that a head resizes 0.1, no head more than all CKA.

        With 0.1, layers of one resolution meet unless others are clearly more alike; it finds more of the kept blocks
        of a network of which some were left out (tests/test_match.py).
        """
        if not self.possible:
            return _IMPOSSIBLE
        return _RESIZING if isinstance(self.head, Regressor | Grid) else 0.0

    @property
    def written(self) -> str:
        """The head as it stands in a recipe; empty for none."""
        if self.head is None:
            return ""
        given = [(field, getattr(self.head, field.name)) for field in fields(self.head)]
        settings = ", ".join(f"{field.name}={value!r}" for field, value in given if value != field.default)
        return f"{type(self.head).__name__}({settings})"


def join(student: Candidate, teacher: Candidate) -> Joining:
    """The head for two taps, or why there is none.

    Maps (C, H, W) of one size take `Conv1x1`, of other sizes `Regressor`, without its ReLU where the teacher's values
    go below zero; embeddings (D) and tokens (T, D) of one length take `Linear`; what else lies on a grid, as a vision
    transformer's tokens do, takes `Grid`.
    """
    if student.shape == teacher.shape:
        return Joining()
    forms = len(student.shape), len(teacher.shape)
    if forms == (3, 3) and student.shape[1:] == teacher.shape[1:]:
        return _sized(Conv1x1(), student, teacher)
    if forms == (1, 1) or (forms == (2, 2) and student.shape[0] == teacher.shape[0]):
        return _sized(Linear(), student, teacher)
    if 1 in forms or not set(forms) <= {2, 3}:
        return Joining(reason=f"no head joins {_form(student)} and {_form(teacher)}")
    if forms == (3, 3) and (joining := _sized(Regressor(relu=teacher.nonnegative), student, teacher)).possible:
        return joining
    joining = _sized(Grid(), student, teacher)
    return joining if joining.possible else Joining(reason=f"no grid joins {_form(student)} and {_form(teacher)}")


def loss_for(features: Candidate, mask: Tensor | None) -> Loss:
    """`HiddenState` for tokens of padded texts, which have a mask (B, T); `Hint` for all else."""
    return Hint() if mask is None or len(features.shape) != 2 else HiddenState()


def refusal(loss: Loss, features: Candidate, mask: Tensor | None) -> str:
    """Why a loss does not compare two such features; empty where it does.

    mask: bool (B, T) of some texts; None where nothing is padded.
    """
    if mask is not None and len(features.shape) > 1 and not isinstance(loss, HonoursMask):
        return f"{type(loss).__name__} would count the padding of texts"
    examples = 2 if mask is None else len(mask)
    zeros, numbers = torch.zeros(examples, *features.shape), torch.arange(examples)
    try:
        loss(zeros, zeros, Batch(zeros, numbers, numbers, None if mask is None else mask.cpu()))
    except ValueError as error:
        return str(error).partition(". ")[0]
    return ""


def _sized(head: Conv1x1 | Grid | Linear | Regressor, student: Candidate, teacher: Candidate) -> Joining:
    try:
        with torch.device("meta"):  # neither memory nor random numbers
            module = head(torch.Size((2, *student.shape)), torch.Size((2, *teacher.shape)))
    except ValueError as error:
        assert isinstance(head, Regressor | Grid), error
        return Joining(reason=str(error).partition(". ")[0])
    return Joining(head, sum(parameter.numel() for parameter in module.parameters()))


def _form(candidate: Candidate) -> str:
    names = {1: "an embedding", 2: "tokens", 3: "a map"}
    size = "x".join(map(str, candidate.shape)) or "scalar"
    return f"{names.get(len(candidate.shape), 'a tensor')} {size}"
