"""The zoo: sizes as published, every module can be tapped, any image size."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.models import cifar, cifar_mobilenet, cifar_resnet, cifar_shufflenet, cifar_wrn
from distill.taps import Tapped, tappable

# Parameters in millions for 100 classes, to two digits, of the networks that CRD (Tian et al., 2020, arXiv:1910.10699)
# and those after it compare, as their public code (RepDistiller, mdistiller) defines them.
PUBLISHED = {
    "resnet8": "0.08",
    "resnet14": "0.18",
    "resnet20": "0.28",
    "resnet32": "0.47",
    "resnet44": "0.67",
    "resnet56": "0.86",
    "resnet110": "1.74",
    "resnet8x4": "1.23",
    "resnet32x4": "7.43",
    "wrn_16_1": "0.18",
    "wrn_16_2": "0.70",
    "wrn_40_1": "0.57",
    "wrn_40_2": "2.26",
    "vgg8": "3.97",
    "vgg11": "9.28",
    "vgg13": "9.46",
    "vgg16": "14.77",
    "vgg19": "20.09",
    "mobilenetv2": "0.81",
    "shufflenetv1": "0.95",
    "shufflenetv2": "1.36",
}
RESNETS = [name for name in PUBLISHED if name.startswith("resnet")]


def factory(name: str) -> Callable[..., nn.Module]:
    return vars(cifar)[name]  # type: ignore[no-any-return]


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_list_of_published_sizes_names_the_whole_zoo() -> None:
    factories = {name for name, value in vars(cifar).items() if callable(value)}
    assert factories == {*PUBLISHED, "wrn"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_size_is_the_published_one(name: str) -> None:
    assert f"{num_parameters(factory(name)(num_classes=100)) / 1e6:.2f}" == PUBLISHED[name]


def test_resnet20_has_the_parameters_counted_by_hand() -> None:
    def convolution(inputs: int, outputs: int, area: int) -> int:
        return inputs * outputs * area + 2 * outputs  # its weights, and scale and shift of its norm

    first = 6 * convolution(16, 16, 9)
    second = convolution(16, 32, 9) + convolution(16, 32, 1) + 5 * convolution(32, 32, 9)
    third = convolution(32, 64, 9) + convolution(32, 64, 1) + 5 * convolution(64, 64, 9)
    expected = convolution(3, 16, 9) + first + second + third + 64 * 100 + 100
    assert num_parameters(cifar.resnet20(100)) == expected == 278_324


@pytest.mark.parametrize("name", PUBLISHED)
def test_forward_and_backward_reach_every_parameter_and_the_classifier_gives_the_logits(name: str) -> None:
    model = factory(name)(num_classes=7)
    answers = []
    classifier = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    classifier.register_forward_hook(lambda module, args, output: answers.append(output))
    logits = model(torch.randn(2, 3, 32, 32))
    assert logits is answers[0]
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_module_can_be_tapped(name: str) -> None:
    model = factory(name)(num_classes=5)
    modules = {path for path, _ in model.named_modules() if path}
    assert {"layer1", "layer2", "layer3"} <= modules
    assert modules & {"fc", "classifier", "linear"}
    assert set(tappable(model, torch.randn(2, 3, 16, 16))) == modules


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_2", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2"])
def test_stages_halve_the_map_and_the_embedding_is_the_classifiers_input(name: str) -> None:
    model = factory(name)(num_classes=5).eval()
    taps = ("layer1", "layer2", "layer3", "embedding", "logits")
    seen = Tapped(model, taps)(torch.randn(2, 3, 32, 32))
    sides = [seen[tap].shape[-1] for tap in taps[:3]]
    assert sides == [sides[0], sides[0] // 2, sides[0] // 4]
    assert sides[0] == (32 if name in ("resnet20", "wrn_16_2", "vgg8") else 16)
    assert seen["embedding"].ndim == 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_small_grey_images_work(name: str) -> None:
    logits = factory(name)(num_classes=10, in_channels=1)(torch.randn(2, 1, 8, 8))
    assert logits.shape == (2, 10)


def test_vgg_names_the_smallest_image_it_can_see() -> None:
    with pytest.raises(ValueError, match=r"VGG needs images of at least 8 pixels, got \(4, 8\)"):
        cifar.vgg8(10)(torch.randn(2, 3, 4, 8))


def test_vgg_halves_a_fourth_time_from_64_pixels_on() -> None:
    model = cifar.vgg8(10).eval()
    for side, expected in ((32, 4), (63, 7), (64, 4)):
        assert Tapped(model, ("layer5",))(torch.randn(1, 3, side, side))["layer5"].shape[-1] == expected


def test_a_stem_of_stride_two_leaves_64_pixels_the_maps_of_32() -> None:
    tapped = Tapped(cifar.resnet20(num_classes=6, in_channels=1, stem_stride=2), ("conv1", "layer3"))
    maps = tapped(torch.zeros(2, 1, 64, 64))
    assert maps["conv1"].shape == (2, 16, 32, 32) and maps["layer3"].shape == (2, 64, 8, 8)
    with pytest.raises(ValueError, match="stem_stride"):
        cifar.resnet8(num_classes=2, stem_stride=0)


def test_width_is_the_stem_of_a_resnet() -> None:
    def widths(model: nn.Module) -> list[int]:
        taps = ("conv1", "layer1", "layer2", "layer3")
        return [tensor.shape[1] for tensor in Tapped(model, taps)(torch.randn(1, 3, 32, 32)).values()]

    assert widths(cifar.resnet8(10).eval()) == [16, 16, 32, 64]
    assert widths(cifar.resnet8(10, width=8).eval()) == [8, 8, 16, 32]
    assert widths(cifar.resnet8x4(10).eval()) == [32, 64, 128, 256]
    assert widths(cifar.resnet8x4(10, width=8).eval()) == [8, 16, 32, 64]


@pytest.mark.parametrize("name", RESNETS)
def test_a_resnet_has_two_layers_a_block_and_two_more(name: str) -> None:
    model = factory(name)(10)
    convolutions = [path for path, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    depth = len([path for path in convolutions if "downsample" not in path]) + 1
    assert name.removeprefix("resnet").removesuffix("x4") == str(depth)


@pytest.mark.parametrize(
    ("shallow", "deep"),
    [("resnet8", "resnet56"), ("resnet8x4", "resnet32x4"), ("wrn_16_2", "wrn_40_2"), ("vgg8", "vgg13")],
)
def test_a_shallower_network_has_the_names_of_the_deeper_ones_first_blocks(shallow: str, deep: str) -> None:
    few, many = factory(shallow)(10).state_dict(), factory(deep)(10).state_dict()
    assert few.keys() <= many.keys()


def test_a_resnets_tensors_are_named_as_in_the_public_checkpoints() -> None:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{part}" for part in norm)}
    for stage in (1, 2, 3):
        block = f"layer{stage}.0"
        expected |= {f"{block}.conv1.weight", f"{block}.conv2.weight", f"{block}.downsample.0.weight"}
        expected |= {f"{block}.{layer}.{part}" for layer in ("bn1", "bn2", "downsample.1") for part in norm}
    assert set(cifar.resnet8x4(100).state_dict()) == expected


def test_convolutions_start_with_the_deviation_of_he_initialisation() -> None:
    torch.manual_seed(0)
    model = cifar.mobilenetv2(100)
    for convolution, outputs in ((model.layer4[0].depthwise.conv, 48 * 6), (model.conv2.conv, 1280)):
        area = convolution.kernel_size[0] ** 2
        assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / (outputs * area)), rel=0.1)
    assert model.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_wrn_takes_any_depth_of_its_form() -> None:
    model = cifar.wrn(depth=28, width=10, num_classes=10)
    assert f"{num_parameters(model) / 1e6:.1f}" == "36.5"  # WRN-28-10 of the paper's table 4
    with pytest.raises(ValueError, match="depth of 6n"):
        cifar.wrn(depth=17, width=1, num_classes=10)


@pytest.mark.parametrize(("name", "arguments"), [("resnet20", {"width": 0}), ("vgg8", {"in_channels": 0})])
def test_a_size_below_one_is_refused(name: str, arguments: dict[str, int]) -> None:
    (argument,) = arguments
    with pytest.raises(ValueError, match=f"{name} needs {argument} of at least 1, got 0"):
        factory(name)(num_classes=10, **arguments)


# Blocks whose learned branch is silenced: what is left is the way around it, written out by hand.


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 6, 4, 4)


def test_a_residual_block_adds_its_shortcut_before_the_last_relu(x: Tensor) -> None:
    same, other = cifar_resnet.Block(6, 6, 1), cifar_resnet.Block(6, 8, 2)
    for block in (same, other):
        nn.init.zeros_(block.bn2.weight)
    assert torch.equal(same(x), x.clamp(min=0))
    assert other.downsample is not None
    assert torch.equal(other(x), other.downsample(x).clamp(min=0))


def test_a_wide_block_adds_its_input_or_projects_the_activated_one(x: Tensor) -> None:
    same, other = cifar_wrn.Block(6, 6, 1), cifar_wrn.Block(6, 8, 2)
    for block in (same, other):
        nn.init.zeros_(block.conv2.weight)
    assert torch.equal(same(x), x)
    activated = F.batch_norm(x, None, None, training=True).clamp(min=0)
    torch.testing.assert_close(other(x), F.conv2d(activated, other.shortcut.weight, stride=2))


def test_an_inverted_residual_adds_its_input_where_the_shape_stays_only(x: Tensor) -> None:
    for channels, stride, expected in ((6, 1, x), (8, 1, torch.zeros(2, 8, 4, 4)), (6, 2, torch.zeros(2, 6, 2, 2))):
        block = cifar_mobilenet.InvertedResidual(6, channels, stride=stride, expansion=2)
        nn.init.zeros_(block.bn.weight)
        assert torch.equal(block(x), expected)


def test_a_grouped_block_adds_its_input_or_puts_its_mean_behind() -> None:
    x = torch.randn(2, 24, 4, 4)
    same, down = cifar_shufflenet.GroupedBlock(24, 24, 1), cifar_shufflenet.GroupedBlock(24, 48, 2)
    for block in (same, down):
        nn.init.zeros_(block.bn3.weight)
    assert torch.equal(same(x), x.clamp(min=0))
    out = down(x)
    assert not out[:, :24].any()
    assert torch.equal(out[:, 24:], F.avg_pool2d(x, 3, 2, 1).clamp(min=0))


def test_a_half_block_keeps_the_first_half_at_every_other_channel(x: Tensor) -> None:
    block = cifar_shufflenet.HalfBlock(6)
    nn.init.zeros_(block.bn3.weight)
    out = block(x)
    assert torch.equal(out[:, 0::2], x[:, :3])
    assert not out[:, 1::2].any()


def test_a_down_block_takes_turns_between_its_branches(x: Tensor) -> None:
    block = cifar_shufflenet.DownBlock(6, 8)
    nn.init.zeros_(block.bn2.weight)
    out = block(x)
    assert not out[:, 0::2].any()
    assert out[:, 1::2].any()
