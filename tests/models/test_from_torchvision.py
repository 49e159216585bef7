"""torchvision's networks for grey images: one channel in place of three equal ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models._api import WeightsEnum

from distill.models import load_model, save_student
from distill.view import View

GREY = {"in_channels": 1}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def first_convolution(model: nn.Module) -> nn.Conv2d:
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d))


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Weights that torchvision gets instead of a download."""
    torch.manual_seed(3)
    state = models.resnet18().state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *args, **kwargs: dict(state))
    return state


@pytest.mark.parametrize(
    "name",
    ["densenet121", "resnet18", "efficientnet_b0", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"],
)
def test_a_grey_network_answers_as_its_colour_twin_to_three_equal_channels(name: str) -> None:
    pair = []
    for arguments in (GREY, {}):
        torch.manual_seed(0)
        pair.append(load_model(f"torchvision:{name}", num_classes=14, in_channels=1, arguments=arguments).model.eval())
    grey, colour = pair
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = colour(images.expand(-1, 3, -1, -1))
        torch.testing.assert_close(grey(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert first_convolution(grey).in_channels == 1
    assert parameters(colour) - parameters(grey) == 2 * first_convolution(grey).weight.numel()


def test_a_kernel_is_the_sum_of_its_colours(offered: dict[str, Tensor]) -> None:
    loaded = load_model("torchvision:resnet18", num_classes=14, in_channels=1, weights="DEFAULT", arguments=GREY)
    assert torch.equal(loaded.model.conv1.weight, offered["conv1.weight"].sum(1, keepdim=True))
    assert torch.equal(loaded.model.layer1[0].conv1.weight, offered["layer1.0.conv1.weight"])
    assert loaded.fresh == "fc"


def test_grey_weights_bring_one_mean_and_deviation_and_say_so(offered: dict[str, Tensor]) -> None:
    # ImageNet's means 0.485, 0.456, 0.406 have the mean 0.449; its deviations 0.229, 0.224, 0.225 have 0.226.
    loaded = load_model("torchvision:resnet18", num_classes=None, in_channels=1, weights="DEFAULT", arguments=GREY)
    assert loaded.view is not None and loaded.view.size == 224
    assert (*loaded.view.mean, *loaded.view.std) == pytest.approx((0.449, 0.226))
    assert loaded.classes is not None and len(loaded.classes) == 1000
    assert "IMAGENET1K_V1, summed over the colours for grey images" in loaded.note
    assert loaded.model.eval()(loaded.view.module()(torch.rand(1, 1, 64, 64))).shape == (1, 1000)


def test_a_fresh_grey_network_takes_the_view_of_the_data() -> None:
    assert load_model("torchvision:resnet18", num_classes=2, in_channels=1, arguments=GREY).view is None
    assert load_model("torchvision:resnet18", num_classes=2, in_channels=1).view is not None


def test_three_channels_may_be_said() -> None:
    loaded = load_model("torchvision:resnet18", num_classes=2, in_channels=1, arguments={"in_channels": 3})
    assert first_convolution(loaded.model).in_channels == 3
    assert loaded.view is not None and len(loaded.view.mean) == 3


def test_a_saved_grey_student_loads_as_it_was(tmp_path: Path) -> None:
    source = "torchvision:shufflenet_v2_x0_5"
    model = load_model(source, num_classes=3, in_channels=1, arguments=GREY).model
    config = {
        "source": source,
        "arguments": GREY,
        "num_classes": 3,
        "in_channels": 1,
        "classes": ["Mass", "Nodule", "Hernia"],
        "view": {"size": None, "mean": [0.5], "std": [0.25]},
    }
    save_student(tmp_path / "student", model, config)
    loaded = load_model(source, num_classes=None, in_channels=1, weights=str(tmp_path), arguments=GREY)
    assert all(torch.equal(tensor, loaded.model.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert loaded.view == View(None, (0.5,), (0.25,))
    with pytest.raises(ValueError, match=r"with arguments {'in_channels': 1}, not .* with arguments {}"):
        load_model(source, num_classes=3, in_channels=1, weights=str(tmp_path))


def test_a_grey_weight_file_tells_how_many_labels_it_has(tmp_path: Path) -> None:
    model = load_model("torchvision:resnet18", num_classes=6, in_channels=1, arguments=GREY).model
    torch.save(model.state_dict(), tmp_path / "w.pt")
    weights = str(tmp_path / "w.pt")
    loaded = load_model("torchvision:resnet18", num_classes=None, in_channels=1, weights=weights, arguments=GREY)
    assert loaded.model.fc.out_features == 6


@pytest.mark.parametrize(
    ("name", "arguments", "labels", "millions"),
    [
        ("shufflenet_v2_x0_5", {}, 14, 0.356),
        ("mobilenet_v3_small", {"width_mult": 0.5}, 14, 0.411),
        ("densenet121", {}, 14, 6.962),
    ],
)
def test_students_go_down_to_less_than_a_million_parameters(
    name: str, arguments: dict[str, Any], labels: int, millions: float
) -> None:
    with torch.device("meta"):
        model = load_model(
            f"torchvision:{name}", num_classes=labels, in_channels=1, arguments={**arguments, **GREY}
        ).model
    assert parameters(model) == pytest.approx(millions * 1e6, abs=1e3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_channels": 1, "arguments": {"in_channels": 2}}, "takes in_channels 3, or 1 for grey images, got 2"),
        ({"in_channels": 1, "arguments": {"in_channels": "1"}}, "takes in_channels 3, or 1 for grey images, got '1'"),
        ({"in_channels": 3, "arguments": GREY}, "in_channels=1 sees grey images, got images of 3 .*Leave in_channels"),
    ],
)
def test_channels_that_do_not_meet_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_model("torchvision:resnet18", num_classes=2, **settings)


def test_weights_that_change_colours_before_the_first_convolution_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    state = models.googlenet(aux_logits=True, init_weights=False).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *args, **kwargs: dict(state))
    with pytest.raises(ValueError, match=r"googlenet with these weights changes three colours .*Leave in_channels out"):
        load_model("torchvision:googlenet", num_classes=None, in_channels=1, weights="DEFAULT", arguments=GREY)
