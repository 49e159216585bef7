"""Batch norms folded into convolutions: the same answers, the same taps, and what can't be folded is told."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.fold import fold
from distill.models.cifar import resnet8
from distill.taps import TapError, Tapped


class Stem(nn.Module):
    """A convolution and its norm, and what a subclass makes between and behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2)
        self.fc = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.conv(x)).mean((2, 3)))


class Shortcut(Stem):
    def forward(self, x: Tensor) -> Tensor:
        before = self.conv(x)
        return self.fc((self.bn(before) + before).mean((2, 3)))


class Between(Stem):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.conv(x).relu_()).mean((2, 3)))


class Twice(Stem):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.conv(x) + self.conv(x.flip(0))).mean((2, 3)))


class Doubled(nn.Conv2d):
    """As timm's standardized convolutions: more than a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Derived(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Doubled(1, 2, 1, bias=False)


def with_statistics(model: nn.Module) -> Any:
    """The model in evaluation, its norms with statistics and weights that are not those of a fresh one."""
    torch.manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
    return model.eval()


def test_a_fold_by_hand() -> None:
    """w = 2, mean 1, variance 4 (with eps 0), weight 3, bias 5: 3 (2x - 1) / 2 + 5 = 3x + 3.5."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0)).eval()
    with torch.no_grad():
        for tensor, value in zip((*model.parameters(), *list(model.buffers())[:2]), (2, 3, 5, 1, 4), strict=True):
            tensor.fill_(value)
    folded = fold(model, ("logits",), torch.tensor([[[[10.0]]]]))
    assert [parameter.item() for parameter in folded.parameters()] == [3.0, 3.5]
    assert folded(torch.tensor([[[[10.0]]]])).item() == 33.5


def test_every_tap_reads_the_same_and_the_model_stays() -> None:
    model = with_statistics(resnet8(num_classes=5, width=4))
    before = copy.deepcopy(model.state_dict())
    images = torch.randn(3, 3, 12, 12)
    taps = ("logits", "embedding", "layer1.0.bn1", "layer2.0.downsample", "layer2:input", "layer3")
    folded = fold(model, taps, images)
    read, again = Tapped(model, taps)(images), Tapped(folded, taps)(images)
    for tap, tensor in read.items():
        torch.testing.assert_close(again[tap], tensor, rtol=1e-5, atol=1e-5)
        assert not torch.equal(again[tap], tensor)  # it was folded indeed
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == 9
    assert not folded.training


@pytest.mark.parametrize("tap", ["conv", "bn:input"])
def test_a_tap_before_the_norm_is_refused(tap: str) -> None:
    with pytest.raises(ValueError, match=f"fold_teacher would change tap '{tap}', which reads before batch norm 'bn'"):
        fold(with_statistics(Stem()), (tap,), torch.randn(2, 1, 4, 4))
    fold(with_statistics(Stem()), ("bn", "conv:input"), torch.randn(2, 1, 4, 4))


def test_a_convolution_that_is_read_elsewhere_too_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fold_teacher would change tap 'logits' by \d+"):
        fold(with_statistics(Shortcut()), ("logits",), torch.randn(2, 1, 4, 4))


@pytest.mark.parametrize("kind", [Between, Twice, Derived])
def test_what_is_no_pair_is_left_as_it_is(kind: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="fold_teacher has no effect on a teacher without batch norms behind"):
        fold(with_statistics(kind()), ("logits",), torch.randn(2, 1, 4, 4))


def test_a_wrong_tap_is_named_as_elsewhere() -> None:
    with pytest.raises(TapError, match=r"no module 'bm'\. Nearest: bn"):
        fold(with_statistics(Stem()), ("bm",), torch.randn(2, 1, 4, 4))
