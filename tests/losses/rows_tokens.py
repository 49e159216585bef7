"""Contract rows of the losses between relations of tokens."""

import torch
from torch import Tensor

from distill.losses import AttentionRelation, AttentionScores, HiddenState, PatientKD, TokenCosine
from tests.losses.contract import Inputs, Row, normal, some_labels

LENGTH = 4


def some_mask(size: int) -> Tensor:
    """Of different lengths, the first position always True."""
    return torch.arange(LENGTH) < torch.randint(1, LENGTH + 1, (size, 1)).clamp(max=LENGTH)


def tokens(size: int) -> Inputs:
    student, teacher = normal(size, LENGTH, 3), normal(size, LENGTH, 3)
    return Inputs(student, teacher, some_labels(size), some_mask(size))


def unmasked_tokens(size: int) -> Inputs:
    return Inputs(normal(size, LENGTH, 3), normal(size, LENGTH, 3), some_labels(size))


def scores(size: int) -> Inputs:
    student, teacher = normal(size, 2, LENGTH, LENGTH), normal(size, 2, LENGTH, LENGTH)
    return Inputs(student, teacher, some_labels(size), some_mask(size))


def projections(size: int) -> Inputs:
    student = tuple(normal(size, LENGTH, 4) for _ in range(3))
    teacher = tuple(normal(size, LENGTH, 6) for _ in range(3))
    return Inputs(student, teacher, some_labels(size), some_mask(size))


def vectors(size: int) -> Inputs:
    return Inputs(normal(size, 3), normal(size, 3), some_labels(size))


def several_layers(size: int) -> Inputs:
    student, teacher = (normal(size, 3), normal(size, 2, 4)), (normal(size, 3), normal(size, 2, 4))
    return Inputs(student, teacher, some_labels(size))


NO_RELATION = {"relations": ((), ("qx",), "qq", ("qq", "qq"), None), "heads": (0, -1, 1.5)}

ROWS: tuple[Row, ...] = (
    Row(AttentionRelation(heads=2), projections, NO_RELATION),
    Row(AttentionRelation(relations=("qk", "vv"), heads=1), projections, NO_RELATION),
    Row(AttentionScores(), scores, {}),
    Row(HiddenState(), tokens, {}),
    Row(HiddenState(), unmasked_tokens, {}),
    Row(TokenCosine(), tokens, {}),
    Row(PatientKD(), vectors, {}),
    Row(PatientKD(), several_layers, {}),
)
