"""ShuffleNet V1 and V2 for small images."""

import torch
from torch import Tensor, nn

from distill.models.cifar_parts import check_counts, shuffle

_STEM = 24
_V1_GROUPS = 3
_V1_CHANNELS = (240, 480, 960)
_V2_CHANNELS = (116, 232, 464)
_V2_LAST_CHANNELS = 1024


class GroupedBlock(nn.Module):
    """V1: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; added to the input, or beside its mean at half the size."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        own = channels - in_channels if stride == 2 else channels
        hidden = own // 4
        self.groups = 1 if in_channels == _STEM else _V1_GROUPS
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(hidden, own, 1, groups=_V1_GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(own)
        self.shortcut = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        hidden = shuffle(self.relu1(self.bn1(self.conv1(x))), self.groups)
        own = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(hidden)))))
        joined = own + x if self.shortcut is None else torch.cat([own, self.shortcut(x)], 1)
        out: Tensor = self.relu3(joined)
        return out


class HalfBlock(nn.Module):
    """V2: half of the channels stay; the other half pass 1x1, depthwise 3x3 and 1x1; then both are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, channels, H, W) to the same shape."""
        kept, passed = x.chunk(2, 1)
        passed = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(passed)))))
        passed = self.relu3(self.bn3(self.conv3(passed)))
        return shuffle(torch.cat([kept, passed], 1), 2)


class DownBlock(nn.Module):
    """V2: two branches over all channels, each at half the resolution, shuffled together."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, stride=2, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)
        self.relu5 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, channels, H / 2, W / 2)."""
        left = self.relu2(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        right = self.bn4(self.conv4(self.relu3(self.bn3(self.conv3(x)))))
        right = self.relu5(self.bn5(self.conv5(right)))
        return shuffle(torch.cat([left, right], 1), 2)


class ShuffleNetV1(nn.Module):
    """Three stages of 4, 8 and 4 grouped blocks; images of any size.

    "ShuffleNet" (Zhang et al., 2018, arXiv:1707.01083, table 1, three groups), as in the distillation literature: a
    1x1 stem without stride, and PyTorch's own initialisation. Of a 32x32 image the stages see 16x16, 8x8 and 4x4
    positions.
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        check_counts("shufflenetv1", num_classes=num_classes, in_channels=in_channels)
        inputs = (_STEM, *_V1_CHANNELS)
        self.conv1 = nn.Conv2d(in_channels, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu = nn.ReLU()
        self.layer1 = _grouped_stage(inputs[0], inputs[1], 4)
        self.layer2 = _grouped_stage(inputs[1], inputs[2], 8)
        self.layer3 = _grouped_stage(inputs[2], inputs[3], 4)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inputs[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(self.avgpool(x).flatten(1))
        return logits


class ShuffleNetV2(nn.Module):
    """Three stages of 4, 8 and 4 blocks; images of any size.

    "ShuffleNet V2" (Ma et al., 2018, arXiv:1807.11164, table 5, width 1), as in the distillation literature: a 1x1
    stem without stride, and PyTorch's own initialisation. Of a 32x32 image the stages see 16x16, 8x8 and 4x4
    positions.
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        check_counts("shufflenetv2", num_classes=num_classes, in_channels=in_channels)
        inputs = (_STEM, *_V2_CHANNELS)
        self.conv1 = nn.Conv2d(in_channels, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu1 = nn.ReLU()
        self.layer1 = _split_stage(inputs[0], inputs[1], 4)
        self.layer2 = _split_stage(inputs[1], inputs[2], 8)
        self.layer3 = _split_stage(inputs[2], inputs[3], 4)
        self.conv2 = nn.Conv2d(inputs[3], _V2_LAST_CHANNELS, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(_V2_LAST_CHANNELS)
        self.relu2 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(_V2_LAST_CHANNELS, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        logits: Tensor = self.linear(self.avgpool(x).flatten(1))
        return logits


def shufflenetv1(num_classes: int, in_channels: int = 3) -> ShuffleNetV1:
    """ShuffleNet V1 of width 1 and three groups."""
    return ShuffleNetV1(num_classes, in_channels)


def shufflenetv2(num_classes: int, in_channels: int = 3) -> ShuffleNetV2:
    """ShuffleNet V2 of width 1."""
    return ShuffleNetV2(num_classes, in_channels)


def _grouped_stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    rest = [GroupedBlock(channels, channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(GroupedBlock(in_channels, channels, 2), *rest)


def _split_stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(DownBlock(in_channels, channels), *(HalfBlock(channels) for _ in range(blocks - 1)))
