"""What one model sees of an image: its own resolution and normalisation of a crop that teacher and student share."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
