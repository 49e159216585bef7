"""VGG networks for small images: batch normalisation, and one linear layer in place of three."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from distill.models.cifar_parts import ConvNormReLU, check_counts, initialize_convolutions, small_classifier

_CHANNELS = (64, 128, 256, 512, 512)
_SMALLEST_SIDE = 8
_FOURTH_POOLING_SIDE = 64


class VGG(nn.Module):
    """Five stages of 3x3 convolutions with 64, 128, 256, 512 and 512 channels.

    "Very Deep Convolutional Networks" (Simonyan and Zisserman, 2015, arXiv:1409.1556, table 1), in the form of the
    distillation
    literature: a maximum over 2x2 between the stages but the last two, where it comes for images of 64 pixels and
    more only, so `layer4` and `layer5` see 4x4 positions of a 32x32 image; the mean over all positions at the end.

    depths: convolutions in each of the five stages.
    """

    def __init__(self, depths: Sequence[int], num_classes: int, in_channels: int) -> None:
        super().__init__()
        check_counts(f"vgg{sum(depths) + 3}", num_classes=num_classes, in_channels=in_channels)
        inputs = (in_channels, *_CHANNELS)
        self.layer1 = _stage(inputs[0], _CHANNELS[0], depths[0])
        self.layer2 = _stage(inputs[1], _CHANNELS[1], depths[1])
        self.layer3 = _stage(inputs[2], _CHANNELS[2], depths[2])
        self.layer4 = _stage(inputs[3], _CHANNELS[3], depths[3])
        self.layer5 = _stage(inputs[4], _CHANNELS[4], depths[4])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = small_classifier(_CHANNELS[4], num_classes)
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W).

        Raises:
            ValueError: images below 8 pixels, of which nothing would be left.
        """
        side = min(x.shape[-2:])
        if side < _SMALLEST_SIDE:
            raise ValueError(
                f"VGG needs images of at least {_SMALLEST_SIDE} pixels, got {tuple(x.shape[-2:])}. Give the model a "
                "larger view."
            )
        x = F.max_pool2d(self.layer1(x), 2)
        x = F.max_pool2d(self.layer2(x), 2)
        x = F.max_pool2d(self.layer3(x), 2)
        x = self.layer4(x)
        if side >= _FOURTH_POOLING_SIDE:
            x = F.max_pool2d(x, 2)
        logits: Tensor = self.classifier(self.avgpool(self.layer5(x)).flatten(1))
        return logits


def vgg8(num_classes: int, in_channels: int = 3) -> VGG:
    """A VGG of 8 layers by the literature's count: five convolutions, and the three linear layers of the original."""
    return VGG((1, 1, 1, 1, 1), num_classes, in_channels)


def vgg11(num_classes: int, in_channels: int = 3) -> VGG:
    """A VGG of 11 layers by the original's count, configuration A."""
    return VGG((1, 1, 2, 2, 2), num_classes, in_channels)


def vgg13(num_classes: int, in_channels: int = 3) -> VGG:
    """A VGG of 13 layers by the original's count, configuration B."""
    return VGG((2, 2, 2, 2, 2), num_classes, in_channels)


def vgg16(num_classes: int, in_channels: int = 3) -> VGG:
    """A VGG of 16 layers by the original's count, configuration D."""
    return VGG((2, 2, 3, 3, 3), num_classes, in_channels)


def vgg19(num_classes: int, in_channels: int = 3) -> VGG:
    """A VGG of 19 layers by the original's count, configuration E."""
    return VGG((2, 2, 4, 4, 4), num_classes, in_channels)


def _stage(in_channels: int, channels: int, depth: int) -> nn.Sequential:
    inputs = [in_channels] + [channels] * (depth - 1)
    return nn.Sequential(*(ConvNormReLU(each, channels, 3, bias=True) for each in inputs))
