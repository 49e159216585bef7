"""MobileNetV2 for small images, in the half width of the distillation literature."""

from torch import Tensor, nn

from distill.models.cifar_parts import ConvNormReLU, check_counts, initialize_convolutions, small_classifier

_LAST_CHANNELS = 1280


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, narrow by 1x1 without ReLU; around a shortcut where the shape stays."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.widen = ConvNormReLU(in_channels, hidden, 1)
        self.depthwise = ConvNormReLU(hidden, hidden, 3, stride=stride, groups=hidden)
        self.narrow = nn.Conv2d(hidden, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.adds_input = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        out: Tensor = self.bn(self.narrow(self.depthwise(self.widen(x))))
        return x + out if self.adds_input else out


class MobileNetV2(nn.Module):
    """Inverted residuals in four stages, one for each resolution that the literature taps; images of any size.

    "MobileNetV2" (Sandler et al., 2018, arXiv:1801.04381, table 2), as in the distillation literature: ReLU for
    ReLU6, the second group of blocks and the first strides adapted to 32x32, a widening convolution in the first
    block as well, no dropout. Of a 32x32 image `layer1` to `layer4` see 16x16, 8x8, 4x4 and 2x2 positions.

    expansion: hidden channels of a block for each of its inputs (the paper's t), from the second block on.
    width: factor on all channels but those before the classifier.
    """

    def __init__(self, num_classes: int, in_channels: int, *, expansion: int, width: float) -> None:
        super().__init__()
        check_counts("mobilenetv2", num_classes=num_classes, in_channels=in_channels)
        stem, *channels = (int(count * width) for count in (32, 16, 24, 32, 64, 96, 160, 320))
        self.conv1 = ConvNormReLU(in_channels, stem, 3, stride=2)
        self.layer1 = nn.Sequential(
            InvertedResidual(stem, channels[0], stride=1, expansion=1),
            *_blocks(channels[0], channels[1], 2, stride=1, expansion=expansion),
        )
        self.layer2 = nn.Sequential(*_blocks(channels[1], channels[2], 3, stride=2, expansion=expansion))
        self.layer3 = nn.Sequential(
            *_blocks(channels[2], channels[3], 4, stride=2, expansion=expansion),
            *_blocks(channels[3], channels[4], 3, stride=1, expansion=expansion),
        )
        self.layer4 = nn.Sequential(
            *_blocks(channels[4], channels[5], 3, stride=2, expansion=expansion),
            *_blocks(channels[5], channels[6], 1, stride=1, expansion=expansion),
        )
        self.conv2 = ConvNormReLU(channels[6], _LAST_CHANNELS, 1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = small_classifier(_LAST_CHANNELS, num_classes)
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        logits: Tensor = self.classifier(self.avgpool(self.conv2(x)).flatten(1))
        return logits


def mobilenetv2(num_classes: int, in_channels: int = 3) -> MobileNetV2:
    """MobileNetV2 of half width and expansion 6."""
    return MobileNetV2(num_classes, in_channels, expansion=6, width=0.5)


def _blocks(in_channels: int, channels: int, count: int, *, stride: int, expansion: int) -> list[InvertedResidual]:
    rest = [InvertedResidual(channels, channels, stride=1, expansion=expansion) for _ in range(count - 1)]
    return [InvertedResidual(in_channels, channels, stride=stride, expansion=expansion), *rest]
