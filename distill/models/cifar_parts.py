"""What the CIFAR networks share: a convolution with its norm and ReLU, initialisation, and checks of their sizes."""

from einops import rearrange
from torch import Tensor, nn


class ConvNormReLU(nn.Module):
    """Convolution, batch normalisation and ReLU; no operation is in place, so each of the three can be tapped."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias
        )
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels in turn from each of `groups` equal groups: (B, groups * C, H, W) to the same shape."""
    return rearrange(x, "b (group c) h w -> b (c group) h w", group=groups)


def initialize_convolutions(model: nn.Module) -> None:
    """Draw every convolution from a normal distribution of variance 2 / (channels * kernel area), with biases zero.

    "Delving Deep into Rectifiers" (He et al., 2015, arXiv:1502.01852, section 2.2, backward case).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def small_classifier(in_features: int, num_classes: int) -> nn.Linear:
    """A linear classifier drawn from a normal distribution of deviation 0.01, with biases zero."""
    classifier = nn.Linear(in_features, num_classes)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
    return classifier


def check_counts(network: str, **counts: int) -> None:
    """Raises ValueError where a number of classes, channels or the like is not above zero."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{network} needs {name} of at least 1, got {count}.")
