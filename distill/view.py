"""What one model sees of an example that teacher and student share.

Of an image, its own resolution and normalisation of the same crop; of a text, its own tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Sees(Protocol):
    """What a model sees: something that makes a module from a batch's inputs to the model's."""

    def module(self) -> nn.Module:
        """The module, without parameters."""
        ...


@dataclass(frozen=True)
class TokensView:
    """The tokens of one model.

    side: "" where teacher and student have the same tokens; else "student" or "teacher", and the batch carries both,
    as `SIDE.input_ids` and so on.
    length: most tokens of a text.
    """

    side: str
    length: int

    def module(self) -> nn.Module:
        """A module without parameters: the batch's inputs to those of this side, under their plain names."""
        return _TokensViewModule(self.side)


class _TokensViewModule(nn.Module):
    def __init__(self, side: str) -> None:
        super().__init__()
        self.prefix = f"{side}." if side else ""

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name.removeprefix(self.prefix): tensor for name, tensor in inputs.items() if name.startswith(self.prefix)
        }


@dataclass(frozen=True)
class View:
    """Resolution and normalisation of one model.

    size: side in pixels of the square image that the model gets; None leaves the crop as it is.
    mean, std: per channel, of values in [0, 1]; empty leaves the values in [0, 1]. One value fits any number of
    channels; three values turn a grey crop into three equal channels.
    """

    size: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"View.size is a side in pixels, got {self.size}. Give at least 1, or None.")
        if len(self.mean) != len(self.std):
            raise ValueError(f"View needs as many means as deviations, got mean={self.mean} and std={self.std}.")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"View.std must be above zero in every channel, got {self.std}.")

    def module(self) -> nn.Module:
        """A module without parameters: crops (B, C, H, W), uint8 or float in [0, 1], to what the model sees."""
        return _ViewModule(self)


class _ViewModule(nn.Module):
    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(view.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(view.std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        size = self.view.size
        if size is not None and x.shape[-2:] != (size, size):
            x = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
        channels = len(self.view.mean)
        if channels == 0:
            return x
        if x.shape[1] == 1 and channels > 1:
            x = x.expand(-1, channels, -1, -1)
        if channels not in (1, x.shape[1]):
            raise ValueError(
                f"View has {channels} means for images of {x.shape[1]} channels. Give one mean or one for each channel."
            )
        return (x - self.mean) / self.std
