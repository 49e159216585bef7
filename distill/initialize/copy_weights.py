"""The student's tensors as the teacher's of the same name and shape, or of the name that a map gives."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from distill.initialize.coverage import Coverage
from distill.initialize.names import map_names, name_map
from distill.initialize.tensors import (
    Left,
    Piece,
    by_name,
    check_minimum,
    classifier_path,
    initialize,
    own_tensors,
    unique_tensors,
)


@dataclass(frozen=True)
class CopyWeights:
    """Copies every parameter and every saved buffer whose name and shape are the same in both models.

    The rest is left as it is and listed: a classifier for other classes, or a layer that the teacher does not have. A
    student of the teacher's architecture is a full copy.

    minimum: least share of the student's parameters that must be copied.
    names: where the models name the same layers differently, {the student's name: the teacher's}, or the name of a
        built-in map: "bert-to-distilbert", "roberta-to-distilbert", "bert-to-roberta", "roberta-to-bert". A name
        stands for all tensors that begin with it, and a `*` for one part of it: {"blocks.*.fc": "layer.*.dense"}. An
        empty name leaves a tensor as it is. Tensors that no entry fits are taken by their own names.
    blocks: where a `*` is a block's number, the teacher's block for each of the student's; DistilBERT started from
        BERT's (0, 2, 4, 7, 9, 11) (Sanh et al., 2019, arXiv:1910.01108). Equal numbers without.
    keep_classifier: take the last linear layer as well, where its shape is the same. Say False where the numbers of
        classes agree and the classes do not.

    Raises:
        ValueError: less than `minimum` of the student's parameters fit; or the map fits nothing, or names a tensor
            that the teacher lacks, by name with the nearest.
    """

    minimum: float = 0.5
    names: str | Mapping[str, str] | None = None
    blocks: tuple[int, ...] = ()
    keep_classifier: bool = True

    def __post_init__(self) -> None:
        check_minimum(self.minimum)
        patterns = {} if self.names is None else name_map(self.names)
        if self.blocks and not any("*" in pattern for pattern in patterns):
            raise ValueError(
                "blocks has no effect without a * in names. Use SkipLayers(keep=...) where both models name their "
                "blocks alike."
            )

    def __call__(self, teacher: nn.Module, student: nn.Module) -> Coverage:
        """Copy, and say what was copied."""
        sources, targets = own_tensors(teacher), unique_tensors(student)
        patterns = {} if self.names is None else name_map(self.names)
        mapped = map_names(patterns, targets, sources, self.blocks)
        dropped = None if self.keep_classifier else classifier_path(student)
        pieces: dict[str, Piece | Left] = {
            name: by_name(name, tensor, mapped[name], sources, dropped) if mapped[name] else Left("left by the map")
            for name, tensor in targets.items()
        }
        way_out = "Use SelectWeights() for a narrower or shallower student, or lower minimum."
        return initialize(teacher, student, pieces, minimum=self.minimum, way_out=way_out)
