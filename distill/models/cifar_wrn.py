"""Wide residual networks for small images."""

from torch import Tensor, nn

from distill.models.cifar_parts import check_counts, initialize_convolutions


class Block(nn.Module):
    """Norm and ReLU before each of two 3x3 convolutions, around a shortcut.

    Where the number of channels changes, the shortcut is a 1x1 convolution of the first ReLU's output; else the input.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, channels, H / stride, W / stride), before the ReLU."""
        activated = self.relu1(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        out: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(activated)))) + shortcut
        return out


class WideResNet(nn.Module):
    """A stem of 16 channels and three stages of pre-activation blocks; images of any size.

    "Wide Residual Networks" (Zagoruyko and Komodakis, 2016, arXiv:1605.07146, table 1), without dropout. The stages
    end before their ReLU; `relu` gives the last one's features after norm and ReLU.

    depth: 6n + 4, for n blocks in each stage.
    width: factor on the stages' 16, 32 and 64 channels.

    Raises:
        ValueError: a depth that is not 6n + 4.
    """

    def __init__(self, depth: int, width: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        check_counts(f"wrn_{depth}_{width}", num_classes=num_classes, in_channels=in_channels, width=width)
        blocks, rest = divmod(depth - 4, 6)
        if blocks < 1 or rest:
            raise ValueError(f"A wide ResNet has a depth of 6n + 4 (10, 16, 22, 28, 40, ...), got {depth}.")
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.layer1 = _stage(16, 16 * width, blocks, stride=1)
        self.layer2 = _stage(16 * width, 32 * width, blocks, stride=2)
        self.layer3 = _stage(32 * width, 64 * width, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64 * width, num_classes)
        initialize_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        logits: Tensor = self.fc(self.avgpool(self.relu(self.bn1(x))).flatten(1))
        return logits


def wrn(depth: int, width: int, num_classes: int, in_channels: int = 3) -> WideResNet:
    """A wide ResNet of any depth 6n + 4 and width factor."""
    return WideResNet(depth, width, num_classes, in_channels)


def wrn_16_1(num_classes: int, in_channels: int = 3) -> WideResNet:
    """A wide ResNet of depth 16 and width factor 1."""
    return WideResNet(16, 1, num_classes, in_channels)


def wrn_16_2(num_classes: int, in_channels: int = 3) -> WideResNet:
    """A wide ResNet of depth 16 and width factor 2."""
    return WideResNet(16, 2, num_classes, in_channels)


def wrn_40_1(num_classes: int, in_channels: int = 3) -> WideResNet:
    """A wide ResNet of depth 40 and width factor 1."""
    return WideResNet(40, 1, num_classes, in_channels)


def wrn_40_2(num_classes: int, in_channels: int = 3) -> WideResNet:
    """A wide ResNet of depth 40 and width factor 2."""
    return WideResNet(40, 2, num_classes, in_channels)


def _stage(in_channels: int, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    rest = [Block(channels, channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Block(in_channels, channels, stride), *rest)
