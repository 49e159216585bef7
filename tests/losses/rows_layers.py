"""Contract rows of the losses between relations of layers."""

from distill.losses import FSP, InterChannel, LayerCKA, SingularVectors
from tests.losses.contract import NO_SCOPE, Inputs, Row, layers, normal, some_labels


def maps_of_two_sizes(size: int) -> Inputs:
    return Inputs(normal(size, 3, 4, 4), normal(size, 3, 3, 2), some_labels(size))


def layers_of_any_form(size: int) -> Inputs:
    student = normal(size, 2, 4, 4), normal(size, 3), normal(size, 3, 2)
    teacher = normal(size, 5), normal(size, 3, 2, 2), normal(size, 4)
    return Inputs(student, teacher, some_labels(size))


def narrow_layers(size: int) -> Inputs:
    student = normal(size, 2), normal(size, 1), normal(size, 2)
    teacher = normal(size, 1), normal(size, 2), normal(size, 2)
    return Inputs(student, teacher, some_labels(size))


ROWS = (
    Row(FSP(), layers, {}),
    Row(InterChannel(), maps_of_two_sizes, {}),
    Row(SingularVectors(), layers, {"rank": (0, -1, 1.5)}),
    Row(SingularVectors(rank=3), layers, {"rank": (0,)}),
    Row(LayerCKA(), layers_of_any_form, NO_SCOPE),
    Row(LayerCKA(), narrow_layers, NO_SCOPE),
)
