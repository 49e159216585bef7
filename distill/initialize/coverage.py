"""What became of each of the student's tensors when it was started from a teacher."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Literal, get_args

from rich.table import Table

How = Literal["copied", "selected", "averaged", "grown", "left"]
Kind = Literal["parameter", "buffer"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorCoverage:
    """One tensor of the student.

    kind: a parameter is trained, a buffer (BatchNorm's statistics) is not; only parameters count for the share.
    how: copied whole; selected (a part of the teacher's tensor); averaged (the mean of several blocks' tensors); grown
        (a larger tensor that does the same, or one that makes an added layer do nothing); or left at its own
        initialisation.
    source, source_shape: the teacher's tensor that was meant, of several the first; None where the teacher has none.
    reason: why it was left, or what it was made of where `how` and `source` do not say so; else empty.
    """

    name: str
    kind: Kind
    shape: Shape
    how: How
    source: str | None = None
    source_shape: Shape | None = None
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.shape}" + (f", {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Coverage:
    """Each tensor of the student in the order of its modules, and the share of its parameters that the teacher gave."""

    tensors: tuple[TensorCoverage, ...]

    @property
    def parameters(self) -> int:
        """Number of the student's parameters, each element counted once."""
        return sum(prod(tensor.shape) for tensor in self.tensors if tensor.kind == "parameter")

    @property
    def covered(self) -> int:
        """Number of the student's parameters that came from the teacher."""
        return sum(prod(tensor.shape) for tensor in self.tensors if tensor.kind == "parameter" and _is_given(tensor))

    @property
    def share(self) -> float:
        """Covered parameters over all of the student's, in [0, 1]."""
        return self.covered / self.parameters if self.parameters else 0.0

    @property
    def left(self) -> tuple[TensorCoverage, ...]:
        """The tensors that stay at their own initialisation."""
        return tuple(tensor for tensor in self.tensors if tensor.how == "left")

    def __str__(self) -> str:
        count = {how: sum(tensor.how == how for tensor in self.tensors) for how in get_args(How)}
        rarer = "".join(f"{count[how]} {how}, " for how in ("averaged", "grown") if count[how])
        return (
            f"{self.share:.1%} of the student's {self.parameters:,} parameters from the teacher "
            f"({count['copied']} tensors copied, {count['selected']} selected, {rarer}{count['left']} left)"
        )

    def table(self) -> Table:
        """One row a tensor, with what was left and why, under a title that gives the share."""
        table = Table(title=str(self), title_justify="left")
        for column in ("student", "shape", "teacher", "shape", "how"):
            table.add_column(column, overflow="fold")
        for tensor in self.tensors:
            table.add_row(
                tensor.name,
                str(tensor.shape),
                tensor.source or "-",
                "-" if tensor.source_shape is None else str(tensor.source_shape),
                f"{tensor.how}: {tensor.reason}" if tensor.reason else tensor.how,
                style="yellow" if tensor.how == "left" else None,
            )
        return table

    def to_json(self) -> dict[str, Any]:
        """Plain values for a report: the totals, and one entry a tensor."""
        tensors = [asdict(tensor) for tensor in self.tensors]
        for tensor in tensors:
            for key in ("shape", "source_shape"):
                tensor[key] = None if tensor[key] is None else list(tensor[key])
        return {"share": self.share, "covered": self.covered, "parameters": self.parameters, "tensors": tensors}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Coverage":
        """The coverage that gave these values; the totals follow from the tensors."""
        return cls(tuple(_tensor_from_json(tensor) for tensor in values["tensors"]))


def _is_given(tensor: TensorCoverage) -> bool:
    """Whether the values are the teacher's; a layer that was added to do nothing has none of them."""
    return tensor.how != "left" and tensor.source is not None


def _tensor_from_json(values: Mapping[str, Any]) -> TensorCoverage:
    source_shape = values["source_shape"]
    shapes = {"shape": tuple(values["shape"]), "source_shape": None if source_shape is None else tuple(source_shape)}
    return TensorCoverage(**{**values, **shapes})
