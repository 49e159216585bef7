"""Residual networks for small images, in the two widths of the distillation literature."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from distill.models.cifar_parts import check_counts, initialize_convolutions


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut: a 1x1 convolution and norm where the shape changes, else the input."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride > 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        hidden = self.relu1(self.bn1(self.conv1(x)))
        out: Tensor = self.relu2(self.bn2(self.conv2(hidden)) + shortcut)
        return out


class ResNet(nn.Module):
    """A stem and three stages of basic blocks, each at half the last one's resolution; images of any size.

    "Deep Residual Learning for Image Recognition" (He et al., 2016, arXiv:1512.03385, section 4.2), with the shortcut
    of convolution and norm (option B) that the distillation literature uses in place of the paper's zero padding
    (option A). Tensors are named as in that literature's public code, so its checkpoints load.

    depth: 6n + 2, for n blocks in each stage.
    widths: channels of the stem and of the three stages.
    stem_stride: of the first convolution; 2 for images of 64 pixels, of which the last stage then sees 8x8 positions.
    """

    def __init__(
        self, depth: int, widths: Sequence[int], num_classes: int, in_channels: int, stem_stride: int = 1
    ) -> None:
        super().__init__()
        counts = {"num_classes": num_classes, "in_channels": in_channels, "width": min(widths)}
        check_counts(f"resnet{depth}", **counts, stem_stride=stem_stride)
        assert (depth - 2) % 6 == 0
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        (stem, first), (_, second), (_, third) = pairwise(widths)
        self.layer1 = _stage(stem, first, blocks, stride=1)
        self.layer2 = _stage(first, second, blocks, stride=2)
        self.layer3 = _stage(second, third, blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, num_classes)
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def resnet8(num_classes: int, in_channels: int = 3, width: int = 16, stem_stride: int = 1) -> ResNet:
    """A ResNet of 8 layers; `width` channels in the stem and the first stage."""
    return _narrow(8, num_classes, in_channels, width, stem_stride)


def resnet14(num_classes: int, in_channels: int = 3, width: int = 16, stem_stride: int = 1) -> ResNet:
    """A ResNet of 14 layers; `width` channels in the stem and the first stage."""
    return _narrow(14, num_classes, in_channels, width, stem_stride)


def resnet20(num_classes: int, in_channels: int = 3, width: int = 16, stem_stride: int = 1) -> ResNet:
    """A ResNet of 20 layers; `width` channels in the stem and the first stage."""
    return _narrow(20, num_classes, in_channels, width, stem_stride)


def resnet32(num_classes: int, in_channels: int = 3, width: int = 16, stem_stride: int = 1) -> ResNet:
    """A ResNet of 32 layers; `width` channels in the stem and the first stage."""
    return _narrow(32, num_classes, in_channels, width, stem_stride)


def resnet44(num_classes: int, in_channels: int = 3, width: int = 16, stem_stride: int = 1) -> ResNet:
    """A ResNet of 44 layers; `width` channels in the stem and the first stage."""
    return _narrow(44, num_classes, in_channels, width, stem_stride)


def resnet56(num_classes: int, in_channels: int = 3, width: int = 16, stem_stride: int = 1) -> ResNet:
    """A ResNet of 56 layers; `width` channels in the stem and the first stage."""
    return _narrow(56, num_classes, in_channels, width, stem_stride)


def resnet110(num_classes: int, in_channels: int = 3, width: int = 16, stem_stride: int = 1) -> ResNet:
    """A ResNet of 110 layers; `width` channels in the stem and the first stage."""
    return _narrow(110, num_classes, in_channels, width, stem_stride)


def resnet8x4(num_classes: int, in_channels: int = 3, width: int = 32, stem_stride: int = 1) -> ResNet:
    """A ResNet of 8 layers, four times as wide; `width` channels in the stem, twice as many in the first stage."""
    return _wide(8, num_classes, in_channels, width, stem_stride)


def resnet32x4(num_classes: int, in_channels: int = 3, width: int = 32, stem_stride: int = 1) -> ResNet:
    """A ResNet of 32 layers, four times as wide; `width` channels in the stem, twice as many in the first stage."""
    return _wide(32, num_classes, in_channels, width, stem_stride)


def _narrow(depth: int, num_classes: int, in_channels: int, width: int, stem_stride: int) -> ResNet:
    return ResNet(depth, (width, width, 2 * width, 4 * width), num_classes, in_channels, stem_stride)


def _wide(depth: int, num_classes: int, in_channels: int, width: int, stem_stride: int) -> ResNet:
    return ResNet(depth, (width, 2 * width, 4 * width, 8 * width), num_classes, in_channels, stem_stride)


def _stage(in_channels: int, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    rest = [Block(channels, channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Block(in_channels, channels, stride), *rest)
