"""What initializers share: a model's tensors by name, its classifier, and the one place that writes into a student."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.initialize.coverage import Coverage, How, TensorCoverage

_NAMED_IN_ERRORS = 3


@dataclass(frozen=True)
class Piece:
    """What one tensor of the student gets: values of its shape from the teacher's tensor `source`.

    source: of several the first; None for a layer that was added to do nothing.
    reason: what the values were made of, where `how` and `source` do not say so.
    """

    how: How
    source: str | None
    values: Tensor
    reason: str = ""


@dataclass(frozen=True)
class Left:
    """Why one tensor of the student gets nothing; `source` is the teacher's tensor that was meant, if there is one."""

    reason: str
    source: str | None = None


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """{name: tensor} of what a model saves: parameters, then buffers, each under every name that it has."""
    saved = model.state_dict()
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: tensor for name, tensor in named if name in saved}


def unique_tensors(model: nn.Module) -> dict[str, Tensor]:
    """`own_tensors` with a tensor of several names (tied weights) under its first one only."""
    first: dict[int, str] = {}
    tensors = own_tensors(model)
    for name, tensor in tensors.items():
        first.setdefault(id(tensor), name)
    return {name: tensors[name] for name in first.values()}


def classifier_path(model: nn.Module) -> str | None:
    """The path of a model's last linear layer in the order of its modules (its last convolution where it has none)."""
    paths = {
        kind: [path for path, module in model.named_modules() if isinstance(module, kind)]
        for kind in (nn.Linear, nn.Conv2d)
    }
    candidates = paths[nn.Linear] or paths[nn.Conv2d]
    return candidates[-1] if candidates else None


def by_name(
    name: str, tensor: Tensor, source: str, sources: Mapping[str, Tensor], dropped: str | None = None
) -> Piece | Left:
    """The teacher's tensor `source` for the student's `name`, whole, where there is one of the same shape.

    dropped: the path of a classifier that is to be left; None where none is.
    """
    if source not in sources:
        return Left("the teacher has no tensor of this name" if source == name else f"the teacher has no {source}")
    if sources[source].shape != tensor.shape:
        return Left(f"the teacher's is {tuple(sources[source].shape)}", source)
    if dropped is not None and name.rpartition(".")[0] == dropped:
        return Left("keep_classifier=False", source)
    return Piece("copied", source, sources[source])


def initialize(
    teacher: nn.Module, student: nn.Module, pieces: Mapping[str, Piece | Left], *, minimum: float, way_out: str
) -> Coverage:
    """Write the pieces into the student, other types and devices converted, and say what was done.

    pieces: one for each name of `unique_tensors(student)`.
    minimum: least share of the student's parameters that must come from the teacher; below it nothing is written.

    Raises:
        ValueError: the share is below the minimum; the message names it, the first tensors that did not fit and the way
            out.
    """
    targets, sources = unique_tensors(student), own_tensors(teacher)
    coverage = Coverage(tuple(_entry(name, tensor, pieces[name], sources) for name, tensor in targets.items()))
    if coverage.share < minimum:
        first = [tensor for tensor in coverage.left if tensor.kind == "parameter"][:_NAMED_IN_ERRORS]
        raise ValueError(
            f"The teacher covers {coverage.share:.1%} of the student's parameters, below minimum={minimum:g}. "
            f"First that did not fit: {'; '.join(map(str, first))}. {way_out}"
        )
    with torch.no_grad():
        for name, tensor in targets.items():
            piece = pieces[name]
            if isinstance(piece, Piece):
                tensor.copy_(piece.values)
    return coverage


def check_minimum(minimum: float) -> None:
    """Raises ValueError where a least share of parameters is no share."""
    if not 0.0 <= minimum <= 1.0:
        raise ValueError(f"minimum is a share of the student's parameters in [0, 1], got {minimum}.")


def _entry(name: str, tensor: Tensor, piece: Piece | Left, sources: Mapping[str, Tensor]) -> TensorCoverage:
    return TensorCoverage(
        name=name,
        kind="parameter" if isinstance(tensor, nn.Parameter) else "buffer",
        shape=tuple(tensor.shape),
        how=piece.how if isinstance(piece, Piece) else "left",
        source=piece.source,
        source_shape=None if piece.source is None else tuple(sources[piece.source].shape),
        reason=piece.reason,
    )
