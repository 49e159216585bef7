"""Which terms pull the student the same way: each term's gradient at the last layer that all of them reach."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.measure import evaluating
from distill.pair import Learner, Teacher, answers_of
from distill.plan import Plan, compare


@dataclass(frozen=True)
class Shared:
    """The last layer with a weight matrix or kernel that every term reaches which reaches the student at all.

    layer: its path. parameters: its own, in the learner. terms: those terms, in the plan's order.
    """

    layer: str
    parameters: tuple[nn.Parameter, ...]
    terms: tuple[str, ...]


def shared_layer(teacher: Teacher | None, learner: Learner, plan: Plan, sample: Batch) -> Shared:
    """Where the terms' gradients can be compared, found by one backward pass of each term on a few examples.

    Raises:
        ValueError: fewer than two terms reach the student, or no layer is reached by all of them.
    """
    named = [(name, p) for name, p in learner.student.model.named_parameters() if p.requires_grad]
    reached: dict[str, set[str]] = {}
    with evaluating(learner), torch.enable_grad():
        targets = answers_of(teacher, sample.inputs)
        with _calls(learner.student.model) as calls:
            outputs = learner(sample.inputs, targets, sample)
        losses = compare(plan, outputs, targets, sample)
        for term, loss in losses.items():
            if plan[term].weight > 0 and loss.requires_grad:
                found = torch.autograd.grad(loss.sum(), [p for _, p in named], allow_unused=True, retain_graph=True)
                names = {name for (name, _), gradient in zip(named, found, strict=True) if gradient is not None}
                if names:
                    reached[term] = names
    if len(reached) < 2:
        raise ValueError(f"Gradients are compared between terms, and {len(reached)} of the plan reach the student.")
    common = set.intersection(*reached.values())
    if not common:
        raise ValueError(f"No layer of the student is reached by all of {', '.join(reached)}.")
    matrices = {name.rpartition(".")[0] for name, p in named if name in common and p.ndim > 1}
    layers = matrices or {name.rpartition(".")[0] for name in common}
    layer = max(layers, key=lambda path: calls.index(path) if path in calls else -1)
    own = [parameter for name, parameter in named if name in common and name.rpartition(".")[0] == layer]
    return Shared(layer, tuple(own), tuple(reached))


@contextmanager
def _calls(model: nn.Module) -> Iterator[list[str]]:
    """The paths of the model's modules in the order in which they are called meanwhile."""
    calls: list[str] = []

    def note(path: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, args, output: calls.append(path)

    handles = [module.register_forward_hook(note(path)) for path, module in model.named_modules()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


class Probe:
    """Adds up each term's gradient at the shared layer over the micro-batches of one update.

    The gradients come from `autograd.grad`, beside the one backward pass of the update, which they leave as it is: it
    neither adds to `.grad` nor wakes DDP's hooks. So each process holds its own share until `total`.
    """

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self._sums: Tensor | None = None

    def add(self, parts: Mapping[str, Tensor | float], scale: float) -> None:
        """Take in each term's weighted sum over a micro-batch; `scale` keeps small gradients above fp16's smallest."""
        rows = [self._row(parts[term], scale) for term in self.shared.terms]
        rows_TP = torch.stack(rows)
        self._sums = rows_TP if self._sums is None else self._sums + rows_TP

    def _row(self, part: Tensor | float, scale: float) -> Tensor:
        parameters = self.shared.parameters
        empty = torch.cat([torch.zeros_like(p, dtype=torch.float32).flatten() for p in parameters])
        if not (isinstance(part, Tensor) and part.requires_grad):
            return empty
        found = torch.autograd.grad(part * scale, parameters, retain_graph=True, allow_unused=True)
        flat = [
            (torch.zeros_like(p) if gradient is None else gradient).flatten().float() / scale
            for p, gradient in zip(parameters, found, strict=True)
        ]
        return torch.cat(flat)

    def total(self) -> Tensor:
        """This process's sums (terms, values)."""
        assert self._sums is not None
        return self._sums


def norms_and_cosines(gradients_TP: Tensor) -> tuple[Tensor, Tensor]:
    """The norm of each row (T,), and the cosines between rows (T, T); NaN where a row is zero."""
    norms_T = gradients_TP.norm(dim=1)
    return norms_T, gradients_TP @ gradients_TP.T / torch.outer(norms_T, norms_T)


def as_line(terms: Sequence[str], layer: str, norms_T: Tensor, cosines_TT: Tensor) -> dict[str, object]:
    """What the log holds: {"gradient_norms": {term: norm}, "gradient_cosines": {"a/b": cosine}, "gradient_layer"}."""
    cosines = cosines_TT.tolist()
    pairs = [(i, j) for i in range(len(terms)) for j in range(i + 1, len(terms))]
    known = {f"{terms[i]}/{terms[j]}": cosines[i][j] for i, j in pairs if cosines[i][j] == cosines[i][j]}
    norms = dict(zip(terms, norms_T.tolist(), strict=True))
    return {"gradient_layer": layer, "gradient_norms": norms, "gradient_cosines": known}
