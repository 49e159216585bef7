"""Mixup and cutmix: two examples into one, drawn per example, so that teacher and student see the same mixture."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill.data.draws import seed_of


@dataclass(frozen=True)
class Blend:
    """How one example is mixed: with which partner, and where.

    partner: number of the other example in the same split.
    share: of the example itself, in [0, 1]; the partner has the rest, in the label as in the image.
    box: (top, left, bottom, right) in pixels where the partner's image stands (cutmix); None mixes every pixel (mixup).
    """

    partner: int
    share: float
    box: tuple[int, int, int, int] | None = None


def blended_images(blends: Sequence[Blend], own: Tensor, other: Tensor) -> Tensor:
    """The crops of examples and of their partners, both uint8 (B, C, H, W), into one float tensor in [0, 1]."""
    shares = np.array([blend.share if blend.box is None else 1.0 for blend in blends], dtype=np.float32)
    # Each operation rounds on its own; one that fuses two of them may round by where in the batch a pixel lies.
    others, mixed = other.numpy(), own.numpy().astype(np.float32)
    mixed -= others
    mixed *= shares[:, None, None, None]
    mixed += others
    for row, blend in enumerate(blends):
        if blend.box is not None:
            top, left, bottom, right = blend.box
            mixed[row, :, top:bottom, left:right] = others[row, :, top:bottom, left:right]
    mixed /= 255
    return torch.from_numpy(mixed)


def blended_labels(blends: Sequence[Blend], own: Tensor, other: Tensor, num_classes: int) -> Tensor:
    """Soft labels, float (B, num_classes), out of class numbers, int (B,), or out of rows of several labels.

    Out of class numbers each row sums to 1. A label that one of the two does not know is unknown, NaN, where both have
    a share.
    """
    shares = torch.tensor([blend.share for blend in blends], dtype=torch.float64)[:, None]
    if own.is_floating_point():
        return torch.where(shares == 1, own, shares * own + (1 - shares) * other).float()
    soft = torch.zeros(len(blends), num_classes, dtype=torch.float64)
    return soft.scatter_add_(1, own[:, None], shares).scatter_add_(1, other[:, None], 1 - shares).float()


@dataclass(frozen=True)
class Mix:
    """Mixing of training examples, the same for every model of the run; labels become soft.

    mixup: both parameters of the Beta distribution from which the share is drawn (Zhang et al. 2018, arXiv:1710.09412);
    0 is off.
    cutmix: the same for cutmix, where the partner's image stands in a box (Yun et al. 2019, arXiv:1905.04899); 0 is
    off.
    probability: of mixing an example at all. With both kinds on, either is as likely.

    The papers pair examples within a batch; here the partner is drawn from the whole split, so that the mixture depends
    on (seed, epoch, index) alone and not on how a batch is cut.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.mixup < float("inf") and 0 <= self.cutmix < float("inf")):
            raise ValueError(
                f"Mix.mixup and Mix.cutmix are at least 0, got mixup={self.mixup} and cutmix={self.cutmix}."
            )
        if self.mixup == self.cutmix == 0:
            raise ValueError("Mix with mixup=0 and cutmix=0 has no effect. Set one of them above 0, or leave mix out.")
        if not 0 < self.probability <= 1:
            raise ValueError(f"Mix.probability is above 0 and at most 1, got {self.probability}.")

    def draw(self, seed: int, epoch: int, index: int, *, num_examples: int, height: int, width: int) -> Blend:
        """What becomes of one example of crops height x width: a function of the arguments and nothing else.

        An example that is not mixed has a share of 1 and itself as its partner.
        """
        chance = random.Random(seed_of("mix", seed, epoch, index))
        if chance.random() >= self.probability:
            return Blend(index, 1.0)
        partner = chance.randrange(num_examples)
        cutmix = self.cutmix > 0 and (self.mixup == 0 or chance.random() < 0.5)
        if not cutmix:
            return Blend(partner, chance.betavariate(self.mixup, self.mixup))
        # The box has (1 - share) of the image's area, lies around a point drawn anywhere, and is cut off at the border.
        side = (1 - chance.betavariate(self.cutmix, self.cutmix)) ** 0.5
        top, bottom = _span(chance, height, side)
        left, right = _span(chance, width, side)
        return Blend(partner, 1 - (bottom - top) * (right - left) / (height * width), (top, left, bottom, right))


def _span(chance: random.Random, length: int, side: float) -> tuple[int, int]:
    half, middle = int(side * length / 2), chance.randrange(length)
    return max(middle - half, 0), min(middle + half, length)
