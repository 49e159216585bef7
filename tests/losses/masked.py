"""What every loss over tokens promises about the positions that a mask leaves out."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses import Loss
from tests.losses.contract import Inputs, each, value_and_gradient


def left_out(x: Tensor, mask: Tensor) -> Tensor:
    """Bool, like x: the entries of masked positions of tokens (B, T, D), or of their pairs of scores (B, H, T, T)."""
    kept = mask[:, :, None] if x.ndim == 3 else mask[:, None, :, None] & mask[:, None, None, :]
    return (~kept).expand_as(x)


def assert_padding_has_no_influence(loss: Loss, inputs: Inputs) -> None:
    """Value and gradient stay whatever masked positions hold, and how many there are; each example is as if alone."""
    assert inputs.mask is not None
    assert not inputs.mask.all()
    value, gradients = value_and_gradient(loss, inputs, 1)
    each_alone = loss(inputs.student, inputs.teacher, inputs.batch)
    torch.testing.assert_close(each_alone, _alone(loss, inputs))
    for garbage in (0.0, 1e4, -1e4, float("nan")):
        spoilt = _filled(inputs, garbage)
        now, after = value_and_gradient(loss, spoilt, 1)
        torch.testing.assert_close(now, value)
        torch.testing.assert_close(after, gradients)
        assert all(x[left_out(x, inputs.mask)].abs().max() == 0 for x in after)
        longer = _longer(spoilt, garbage)
        torch.testing.assert_close(loss(longer.student, longer.teacher, longer.batch), each_alone)


def _filled(inputs: Inputs, garbage: float) -> Inputs:
    assert inputs.mask is not None
    mask = inputs.mask
    student, teacher = (
        each(lambda x: x.masked_fill(left_out(x, mask), garbage), value) for value in (inputs.student, inputs.teacher)
    )
    return replace(inputs, student=student, teacher=teacher)


def _longer(inputs: Inputs, garbage: float) -> Inputs:
    """Three positions more, all masked."""
    assert inputs.mask is not None
    student, teacher = (
        each(lambda x: F.pad(x, (0, 0, 0, 3) if x.ndim == 3 else (0, 3, 0, 3), value=garbage), value)
        for value in (inputs.student, inputs.teacher)
    )
    return replace(inputs, student=student, teacher=teacher, mask=F.pad(inputs.mask, (0, 3)))


def _alone(loss: Loss, inputs: Inputs) -> Tensor:
    """The loss of each example by itself, cut to its own length (the mask is True first), without a mask."""
    assert inputs.mask is not None
    losses = []
    for example, length in enumerate(inputs.mask.sum(1).tolist()):
        one = inputs.rows(slice(example, example + 1))
        student, teacher = (
            each(lambda x, to=length: x[:, :to] if x.ndim == 3 else x[:, :, :to, :to], value)  # type: ignore[misc]
            for value in (one.student, one.teacher)
        )
        short = Inputs(student, teacher, one.labels)
        losses.append(loss(short.student, short.teacher, short.batch))
    return torch.cat(losses)
