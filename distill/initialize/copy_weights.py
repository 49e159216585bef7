"""The student's tensors as the teacher's of the same name and shape."""

from dataclasses import dataclass

from torch import nn

from distill.initialize.coverage import Coverage
from distill.initialize.tensors import Left, Piece, check_minimum, initialize, own_tensors, unique_tensors


@dataclass(frozen=True)
class CopyWeights:
    """Copies every parameter and every saved buffer whose name and shape are the same in both models.

    The rest is left as it is and listed: a classifier for other classes, or a layer that the teacher does not have. A
    student of the teacher's architecture is a full copy.

    minimum: least share of the student's parameters that must be copied.

    Raises:
        ValueError: less than `minimum` of the student's parameters fit.
    """

    minimum: float = 0.5

    def __post_init__(self) -> None:
        check_minimum(self.minimum)

    def __call__(self, teacher: nn.Module, student: nn.Module) -> Coverage:
        """Copy, and say what was copied."""
        sources = own_tensors(teacher)
        pieces: dict[str, Piece | Left] = {}
        for name, tensor in unique_tensors(student).items():
            if name not in sources:
                pieces[name] = Left("the teacher has no tensor of this name")
            elif sources[name].shape != tensor.shape:
                pieces[name] = Left(f"the teacher's is {tuple(sources[name].shape)}", name)
            else:
                pieces[name] = Piece("copied", name, sources[name])
        way_out = "Use SelectWeights() for a narrower or shallower student, or lower minimum."
        return initialize(teacher, student, pieces, minimum=self.minimum, way_out=way_out)
