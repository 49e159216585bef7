"""`load_model`: every source, every kind of weights, and what it says when something is wrong."""

import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models._api import WeightsEnum

from distill.models import cifar, load_model, save_student
from distill.view import View

RESNET8 = "distill.models.cifar:resnet8"

FACTORIES = """
from torch import nn
def plain(): return nn.Linear(2, 3)
def counted(num_classes, depth=1): return nn.Linear(2, num_classes)
def anything(**settings): return nn.Linear(2, settings.get("outputs", 5))
def number(): return 3
"""

HUBCONF = """
from torch import nn
dependencies = ["torch"]
def tiny(outputs=2): return nn.Linear(2, outputs)
def broken(): raise RuntimeError("no weights\\nfor you")
def _hidden(): return nn.Linear(1, 1)
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_factories", raising=False)
    return "my_factories"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    (tmp_path / "hubconf.py").write_text(HUBCONF)
    return tmp_path


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Weights that torchvision gets instead of a download."""
    state = models.resnet18().state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *args, **kwargs: dict(state))
    return state


def save_run(folder: Path, model: nn.Module, **changes: Any) -> Path:
    config = {
        "source": RESNET8,
        "arguments": {"width": 4},
        "num_classes": 3,
        "in_channels": 3,
        "classes": ["ant", "bee", "cat"],
        "view": {"size": 16, "mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]},
    }
    save_student(folder / "student", model, {**config, **changes})
    return folder


def same(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.state_dict().items(), right.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def outputs(model: nn.Module) -> int:
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1].out_features


# Import paths


def test_a_factory_gets_classes_channels_and_arguments() -> None:
    loaded = load_model(RESNET8, num_classes=7, in_channels=1, arguments={"width": 4})
    assert loaded.model(torch.randn(2, 1, 8, 8)).shape == (2, 7)
    assert loaded.model.conv1.weight.shape[:2] == (4, 1)
    assert (loaded.classes, loaded.view, loaded.note) == (None, None, "")


def test_classes_and_channels_go_only_to_factories_that_take_them(factories: str) -> None:
    assert outputs(load_model(f"{factories}:plain", num_classes=7).model) == 3
    assert outputs(load_model(f"{factories}:counted", num_classes=7).model) == 7
    assert outputs(load_model(f"{factories}:anything", num_classes=7).model) == 5
    assert outputs(load_model(f"{factories}:anything", num_classes=7, arguments={"outputs": 9}).model) == 9


def test_arguments_say_more_than_the_data() -> None:
    assert outputs(load_model(RESNET8, num_classes=7, arguments={"num_classes": 9}).model) == 9


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("distill.models.cifar:resnet21", {}, "distill.models.cifar has no model 'resnet21'. Nearest: .*resnet20"),
        ("distill.models.cifra:resnet20", {}, "Module distill.models.cifra .*can't be imported.*spelling"),
        (RESNET8, {"widht": 4}, f"{RESNET8} takes no argument 'widht'. Nearest: width."),
        (
            "distill.models.cifar:wrn",
            {},
            "missing a required argument: 'depth'. Give it in arguments; it takes depth, width",
        ),
        ("my_factories:number", {}, "my_factories:number makes a int, no torch.nn.Module"),
        ("resnet20", {}, "'resnet20' names no model. Write 'package.module:factory'"),
        (":resnet20", {}, "':resnet20' names no model"),
    ],
)
def test_a_wrong_import_path_or_argument_is_named(
    factories: str, source: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_model(source, num_classes=10, arguments=arguments)
    assert "\n" not in str(caught.value)


# Run folders


@pytest.mark.parametrize("which", ["", "student"])
def test_a_run_brings_its_weights_classes_and_view(tmp_path: Path, which: str) -> None:
    model = cifar.resnet8(3, 3, 4)
    folder = save_run(tmp_path / "run", model) / which
    loaded = load_model(RESNET8, num_classes=None, weights=str(folder), arguments={"width": 4})
    assert same(loaded.model, model)
    assert loaded.classes == ("ant", "bee", "cat")
    assert loaded.view == View(16, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert str(folder) in loaded.note


def test_arguments_agree_as_json_writes_them(tmp_path: Path, factories: str) -> None:
    folder = save_run(tmp_path, nn.Linear(2, 5), source=f"{factories}:anything", arguments={"shape": [1, 2]})
    load_model(f"{factories}:anything", num_classes=3, weights=str(folder), arguments={"shape": (1, 2)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"source": "distill.models.cifar:resnet20"},
            "cifar:resnet20 with arguments {'width': 4}, not .*cifar:resnet8",
        ),
        ({"arguments": {}}, "with arguments {}, not .* with arguments {'width': 4}"),
        ({"num_classes": 4}, "was trained for 4 classes, not for 3.*CopyWeights"),
        ({"in_channels": 1}, "was trained on images of 1 channels, and these are images of 3"),
        ({"view": {"size": 3}}, "config.json is damaged"),
    ],
)
def test_a_run_that_is_not_what_the_recipe_says_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = save_run(tmp_path, cifar.resnet8(3, 3, 4), **changes)
    with pytest.raises(ValueError, match=message):
        load_model(RESNET8, num_classes=3, weights=str(folder), arguments={"width": 4})


def test_a_run_on_colour_sees_grey_images_through_a_view_of_three_channels(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "view", cifar.resnet8(3, 3, 4))
    load = {"num_classes": None, "in_channels": 1, "arguments": {"width": 4}}
    loaded = load_model(RESNET8, weights=str(folder), **load)
    assert loaded.view is not None
    assert loaded.model(loaded.view.module()(torch.rand(2, 1, 16, 16))).shape == (2, 3)
    folder = save_run(tmp_path / "none", cifar.resnet8(3, 3, 4), view={"size": None, "mean": [], "std": []})
    with pytest.raises(ValueError, match="images of 3 channels, and these are images of 1"):
        load_model(RESNET8, weights=str(folder), **load)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            "runs/digits-teacher",
            "There is no run folder .*Train it first: distill train FILE, with the recipe named 'digits-teacher'",
        ),
        ("empty", "holds no trained student. Train it first: distill train"),
        ("missing.safetensors", "There is no weight file .*missing.safetensors"),
        ("missing.pth", "There is no weight file .*missing.pth"),
    ],
)
def test_missing_weights_say_how_to_get_them(tmp_path: Path, weights: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        load_model(RESNET8, num_classes=3, weights=str(tmp_path / weights))


# Weight files


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_tells_how_many_classes_it_has(tmp_path: Path, name: str) -> None:
    model, path = cifar.vgg8(13), tmp_path / name
    if path.suffix == ".pt":
        torch.save({"model": nn.DataParallel(model).state_dict()}, path)
    else:
        save_file(model.state_dict(), path)
    loaded = load_model("distill.models.cifar:vgg8", num_classes=None, weights=str(path))
    assert same(loaded.model, model)
    assert (loaded.classes, loaded.view) == (None, None)


def test_a_file_for_other_classes_is_refused_by_the_classifiers_name(tmp_path: Path) -> None:
    torch.save(cifar.resnet8(100).state_dict(), tmp_path / "w.pt")
    with pytest.raises(
        ValueError, match=r"another shape fc.weight \(\(100, 64\) in the file, \(10, 64\) in the model\)"
    ):
        load_model(RESNET8, num_classes=10, weights=str(tmp_path / "w.pt"))


def test_a_file_without_a_classifier_asks_for_the_number_of_classes(tmp_path: Path) -> None:
    torch.save(cifar.vgg8(100).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"does not show for how many classes.*arguments=\{'num_classes': ...\}"):
        load_model(RESNET8, num_classes=None, weights=str(tmp_path / "w.pt"))


def test_a_file_fits_a_factory_that_takes_no_classes(tmp_path: Path, factories: str) -> None:
    model = nn.Linear(2, 3)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    assert same(load_model(f"{factories}:plain", num_classes=None, weights=str(tmp_path / "w.pt")).model, model)


# torchvision


def test_torchvision_builds_for_any_number_of_classes() -> None:
    loaded = load_model("torchvision:resnet18", num_classes=7, arguments={"zero_init_residual": True})
    assert outputs(loaded.model) == 7
    assert not loaded.model.layer1[0].bn2.weight.any()
    assert loaded.view is None


def test_torchvision_weights_keep_their_classifier_classes_and_view(offered: dict[str, Tensor]) -> None:
    loaded = load_model("torchvision:resnet18", num_classes=None, weights="IMAGENET1K_V1")
    assert torch.equal(loaded.model.fc.weight, offered["fc.weight"])
    assert loaded.classes is not None
    assert (len(loaded.classes), loaded.classes[0]) == (1000, "tench")
    assert loaded.view == View(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert loaded.note == "torchvision:resnet18 has torchvision's weights IMAGENET1K_V1."


@pytest.mark.parametrize("arguments", [{}, {"num_classes": 37}])
def test_torchvision_weights_get_a_fresh_classifier_for_other_classes(
    offered: dict[str, Tensor], arguments: dict[str, Any]
) -> None:
    given = 1000 if arguments else 37
    loaded = load_model("torchvision:resnet18", num_classes=given, weights="DEFAULT", arguments=arguments)
    assert loaded.model.fc.weight.shape == (37, 512)
    assert torch.equal(loaded.model.conv1.weight, offered["conv1.weight"])
    assert loaded.classes is None
    assert "IMAGENET1K_V1, but its classifier is fresh: 37 classes for 1000" in loaded.note


def test_a_network_without_a_linear_classifier_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    state = models.squeezenet1_1().state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *args, **kwargs: state)
    with pytest.raises(
        ValueError, match="torchvision:squeezenet1_1 has no linear layer of 1000 outputs to renew for 5"
    ):
        load_model("torchvision:squeezenet1_1", num_classes=5, weights="DEFAULT")


def test_a_download_that_fails_says_where_to_put_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: WeightsEnum, *args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", refuse)
    with pytest.raises(
        ValueError, match=r"DEFAULT of torchvision:resnet18 .*no network.*put http.*checkpoints/resnet18-"
    ):
        load_model("torchvision:resnet18", num_classes=None, weights="DEFAULT")


def test_a_torchvision_file_tells_how_many_classes_it_has(tmp_path: Path) -> None:
    model = models.resnet18(num_classes=6)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    assert same(load_model("torchvision:resnet18", num_classes=None, weights=str(tmp_path / "w.pth")).model, model)


def test_torchvision_sees_grey_images_as_three_equal_channels() -> None:
    loaded = load_model("torchvision:resnet18", num_classes=5, in_channels=1)
    assert loaded.view is not None
    seen = loaded.view.module()(torch.rand(2, 1, 32, 32))
    assert torch.equal(seen[:, 0], seen[:, 2])
    assert loaded.model(seen).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet81", {}, "torchvision has no classification network 'resnet81'. Nearest: .*resnet18"),
        ("fcn_resnet50", {}, "torchvision has no classification network 'fcn_resnet50'"),
        ("resnet18", {"weights": "IMAGENET1K_V3"}, "no weights 'IMAGENET1K_V3'. Nearest: IMAGENET1K_V1"),
        ("resnet18", {"arguments": {"depth": 3}}, "does not take these arguments: .*'depth'"),
        ("resnet18", {"arguments": {"weights": "DEFAULT"}}, "named in weights=, not in arguments"),
        ("resnet18", {"in_channels": 2}, "sees three channels .*got images of 2"),
    ],
)
def test_a_wrong_torchvision_name_or_argument_is_named(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_model(f"torchvision:{name}", num_classes=10, **settings)


# timm


def test_timm_builds_for_classes_and_channels() -> None:
    pytest.importorskip("timm", reason="needs the hub extra")
    loaded = load_model("timm:test_resnet", num_classes=7, in_channels=1)
    assert loaded.model(torch.randn(2, 1, 64, 64)).shape == (2, 7)
    assert (loaded.classes, loaded.view, loaded.note) == (None, None, "")


@pytest.mark.parametrize(("num_classes", "fresh"), [(None, False), (7, True)])
def test_timm_weights_bring_their_view_and_see_grey_as_colour(
    monkeypatch: pytest.MonkeyPatch, num_classes: int | None, fresh: bool
) -> None:
    builder = pytest.importorskip("timm.models._builder", reason="needs the hub extra")
    asked = []
    monkeypatch.setattr(builder, "load_pretrained", lambda model, **settings: asked.append(settings))
    loaded = load_model("timm:test_resnet", num_classes=num_classes, in_channels=1, weights="pretrained")
    assert len(asked) == 1
    assert loaded.view is not None
    assert len(loaded.view.mean) == 3
    assert loaded.model(loaded.view.module()(torch.rand(2, 1, 32, 32))).shape == (2, num_classes or 1000)
    assert ("fresh: 7 classes for 1000" in loaded.note) == fresh


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnt18", {}, "timm has no model 'resnt18'. Nearest: resnet18"),
        ("resnet18.mine", {}, "timm:resnet18.mine can't be made: .*mine"),
        ("resnet18", {"weights": "DEFAULT"}, "has the weights 'pretrained' .*got 'DEFAULT'"),
        ("resnet18", {"arguments": {"depth": 3}}, "can't be made: .*'depth'"),
        ("resnet18", {"arguments": {"pretrained": True}}, "asked for by weights='pretrained', not in arguments"),
    ],
)
def test_a_wrong_timm_name_or_argument_is_named(name: str, settings: dict[str, Any], message: str) -> None:
    pytest.importorskip("timm", reason="needs the hub extra")
    with pytest.raises(ValueError, match=message):
        load_model(f"timm:{name}", num_classes=10, **settings)


def test_timm_names_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm:resnet18 needs timm. Install it with: pip install 'distill\[hub\]'"):
        load_model("timm:resnet18", num_classes=10)


# torch.hub


def test_a_trusted_folder_gives_its_entry_with_its_own_arguments(hub: Path) -> None:
    assert outputs(load_model(f"hub:{hub}:tiny", num_classes=9, trust=True).model) == 2
    assert outputs(load_model(f"hub:{hub}:tiny", num_classes=9, arguments={"outputs": 9}, trust=True).model) == 9


def test_a_hub_model_takes_a_weight_file(hub: Path) -> None:
    model = nn.Linear(2, 2)
    torch.save(model.state_dict(), hub / "w.pt")
    loaded = load_model(f"hub:{hub}:tiny", num_classes=None, weights=str(hub / "w.pt"), trust=True)
    assert same(loaded.model, model)


def test_code_that_is_not_trusted_is_not_run(hub: Path) -> None:
    (hub / "hubconf.py").write_text("raise AssertionError('it ran')")
    for source in (f"hub:{hub}:tiny", "hub:owner/repository:tiny", "hub:owner/repository:main:tiny"):
        with pytest.raises(ValueError, match=r"runs code from .*Set trust=True on this model"):
            load_model(source, num_classes=2)


def test_a_repository_is_loaded_by_torch_hub_without_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def load(place: str, entry: str, **settings: Any) -> nn.Module:
        asked.update(place=place, entry=entry, **settings)
        return nn.Linear(1, 1)

    monkeypatch.setattr(torch.hub, "load", load)
    load_model("hub:owner/repository:v1.0:tiny", num_classes=2, arguments={"outputs": 4}, trust=True)
    assert (asked["place"], asked["entry"], asked["outputs"]) == ("owner/repository:v1.0", "tiny", 4)
    assert (asked["source"], asked["trust_repo"]) == ("github", True)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("{hub}:tini", {}, "hubconf.py has no entry 'tini'. Nearest: tiny"),
        ("{hub}:_hidden", {}, "hubconf.py has no entry '_hidden'"),
        ("{hub}:broken", {}, r"broken can't be made: no weights\. Its own arguments"),
        ("{hub}:tiny", {"width": 3}, "tiny can't be made: .*'width'"),
        ("{hub}/nowhere:tiny", {}, "There is no folder .*nowhere"),
        ("{hub}/empty:tiny", {}, "empty has no hubconf.py"),
        ("{hub}", {}, "names no entry. Write hub:FOLDER:ENTRY"),
    ],
)
def test_a_wrong_hub_source_is_named(hub: Path, name: str, arguments: dict[str, Any], message: str) -> None:
    (hub / "empty").mkdir()
    with pytest.raises(ValueError, match=message) as caught:
        load_model(f"hub:{name.format(hub=hub)}", num_classes=2, arguments=arguments, trust=True)
    assert "\n" not in str(caught.value)
