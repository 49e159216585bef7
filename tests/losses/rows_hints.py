"""Contract rows of the losses between features of one layer."""

import math

import torch

from distill.losses import (
    NST,
    VID,
    AttentionTransfer,
    ChannelKD,
    CosineHint,
    FactorTransfer,
    Hint,
    Overhaul,
    PearsonHint,
    ReviewHCL,
)
from tests.losses.contract import NO_SCOPE, Inputs, Row, Value, equal_maps, maps, normal, some_labels


def equal_vectors(size: int) -> Inputs:
    return Inputs(normal(size, 4), normal(size, 4), some_labels(size))


def tokens(size: int) -> Inputs:
    return Inputs(normal(size, 3, 4), normal(size, 3, 4), some_labels(size))


def deep_maps(size: int) -> Inputs:
    """Fewer positions than channels."""
    return Inputs(normal(size, 4, 2, 2), normal(size, 6, 2, 1), some_labels(size))


def large_maps(size: int) -> Inputs:
    return Inputs(normal(size, 2, 5, 6), normal(size, 2, 5, 6), some_labels(size))


def stages(size: int) -> Inputs:
    shapes = (2, 5, 5), (3, 3, 3), (4, 1, 1)
    student, teacher = (tuple(normal(size, *shape) for shape in shapes) for _ in range(2))
    return Inputs(student, teacher, some_labels(size))


def density(size: int) -> Inputs:
    """A mean and a variance for each channel, given once for each example."""
    student = normal(size, 2, 3, 3), 0.5 + torch.rand(size, 2, 1, 1, dtype=torch.float64)
    return Inputs(student, normal(size, 2, 3, 3), some_labels(size))


# VID falls without end as the variance of a right mean does, until it counts as 1e-5: ½ log 1e-5.
def certain(inputs: Inputs) -> Value:
    assert isinstance(inputs.teacher, torch.Tensor)
    return inputs.teacher, torch.full_like(inputs.teacher[:, :, :1, :1], 1e-6)


NO_MARGIN = {"margin": (0.5, float("nan"), float("-inf"), (), (-1.0, 0.1))}

ROWS = (
    Row(Hint(), equal_maps, {}),
    Row(AttentionTransfer(), maps, {"power": (0.5, float("inf"), float("nan"))}),
    Row(CosineHint(), equal_maps, {}),
    Row(CosineHint(), tokens, {}),
    Row(NST(), maps, {}),
    Row(NST(), deep_maps, {}),
    Row(ChannelKD(), equal_maps, {"temperature": (0.0, -1.0, float("nan"), float("inf"))}),
    Row(ChannelKD(temperature=4.0), equal_maps, {"temperature": (0.0,)}),
    Row(PearsonHint(), equal_vectors, NO_SCOPE),
    Row(PearsonHint(), equal_maps, NO_SCOPE, own_part=True),
    Row(FactorTransfer(), equal_maps, {}),
    Row(Overhaul(), equal_maps, NO_MARGIN),
    Row(Overhaul(margin=-0.5), equal_maps, NO_MARGIN),
    Row(Overhaul(margin=(-0.25, -1.0)), equal_maps, NO_MARGIN),
    Row(ReviewHCL(), large_maps, {"levels": ((0,), (4, -1))}),
    Row(ReviewHCL(levels=(2, 1)), stages, {"levels": ((0,),)}),
    Row(VID(), density, {}, certain, math.log(1e-5) / 2),
)
