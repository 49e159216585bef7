"""torchxrayvision's network of radiographs: its names, its values, its outputs by name, and files not to be trusted."""

import io
import os
import pickle
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import densenet

from distill.models import load_model, save_student
from distill.models.from_xrv import PATHOLOGIES, VIEW
from distill.taps import Tapped

NIH = "xrv:densenet121-res224-nih"
PACKAGE = "torchxrayvision.models"
FORMATS = ["zip", "legacy"]


def load(weights: Path, labels: tuple[str, ...] | None = None, source: str = NIH, **settings: Any) -> Any:
    return load_model(
        source, **{"num_classes": None, "in_channels": 1, "weights": str(weights), "labels": labels} | settings
    )


@contextmanager
def importable(*kinds: type) -> Iterator[None]:
    """Inside, torchxrayvision.models has these classes and no others."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (PACKAGE.partition(".")[0], PACKAGE):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        vars(sys.modules[PACKAGE]).update({kind.__name__: kind for kind in kinds})
        yield


@pytest.fixture(scope="module")
def whole() -> nn.Module:
    """The network with weights of 18 outputs, and statistics that are not those of a fresh one."""
    torch.manual_seed(0)
    model = load_model(NIH, num_classes=None, in_channels=1).model
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def released(whole: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files as torchxrayvision releases them: the whole module, of classes that its readers may not have."""
    kinds = {
        kind: type(kind.__name__, (kind,), {"__module__": PACKAGE})
        for kind in (densenet.DenseNet, densenet._DenseBlock, densenet._DenseLayer, densenet._Transition)
    }
    buffer = io.BytesIO()
    torch.save(whole, buffer)
    buffer.seek(0)
    model = torch.load(buffer, weights_only=False)
    for module in model.modules():
        module.__class__ = kinds.get(type(module), type(module))
    model.register_buffer("op_threshs", torch.full((18,), 0.5))
    folder, files = tmp_path_factory.mktemp("released"), {}
    with importable(*kinds.values()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch finds no source text of the classes above
        for name in FORMATS:
            files[name] = folder / f"{name}.pt"
            torch.save(model, files[name], _use_new_zipfile_serialization=name == "zip")
    return files


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


# The network


def test_the_network_has_the_names_and_shapes_of_torchxrayvisions(whole: nn.Module) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in whole.state_dict().items()}
    assert len(shapes) == 727
    assert shapes["features.conv0.weight"] == (64, 1, 7, 7)
    assert shapes["features.denseblock4.denselayer16.conv2.weight"] == (32, 128, 3, 3)
    assert shapes["features.transition3.norm.running_var"] == (1024,)
    assert shapes["features.norm5.bias"] == (1024,)
    assert (shapes["classifier.weight"], shapes["classifier.bias"]) == ((18, 1024), (18,))


def test_pixels_become_values_from_minus_1024_to_1024() -> None:
    # (0 − 1/2) · 2048 = −1024, (51/255 − 1/2) · 2048 = −614.4, (1 − 1/2) · 2048 = 1024.
    seen = VIEW.module()(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 224, 224))
    torch.testing.assert_close(seen[:, 0, 0, 0], torch.tensor([-1024.0, -614.4, 1024.0]))
    assert load_model(NIH, num_classes=3, in_channels=1).view == VIEW


def test_a_fresh_network_has_as_many_outputs_as_asked_for() -> None:
    loaded = load_model(NIH, num_classes=5, in_channels=1, labels=("a", "b", "c", "d", "e"))
    assert loaded.model.classifier.out_features == 5
    assert (loaded.classes, loaded.note) == (None, "")


# Outputs by name


def test_the_outputs_are_in_the_order_of_torchxrayvision() -> None:
    names = """Atelectasis Consolidation Infiltration Pneumothorax Edema Emphysema Fibrosis Effusion Pneumonia
    Pleural_Thickening Cardiomegaly Nodule Mass Hernia Lung~Lesion Fracture Lung~Opacity Enlarged~Cardiomediastinum"""
    assert tuple(name.replace("~", " ") for name in names.split()) == PATHOLOGIES


@pytest.mark.parametrize("name", FORMATS)
def test_a_released_file_answers_the_labels_that_are_asked_for(
    whole: nn.Module, released: dict[str, Path], name: str
) -> None:
    # Hernia, Effusion and Pleural_Thickening are 14th, 8th and 10th of the 18 outputs.
    labels = ("Hernia", "effusion", "Pleural Thickening")
    loaded = load(released[name], labels)
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = whole(images)[:, [13, 7, 9]]
        torch.testing.assert_close(loaded.model.eval()(images), expected)
    assert (loaded.classes, loaded.view, loaded.fresh) == (labels, VIEW, None)
    assert loaded.note.endswith("and 3 of its 18 outputs.")
    assert PACKAGE not in sys.modules


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_of_tensors_does_too(whole: nn.Module, tmp_path: Path, name: str) -> None:
    state = {**whole.state_dict(), "op_threshs": torch.zeros(18)}
    if name == "w.pt":
        torch.save({"state_dict": state}, tmp_path / name)
    else:
        save_file(state, tmp_path / name)
    loaded = load(tmp_path / name, ("Mass",))
    assert torch.equal(loaded.model.classifier.weight, whole.classifier.weight[12:13])
    assert torch.equal(loaded.model.features.conv0.weight, whole.features.conv0.weight)


def test_without_labels_all_outputs_stay_and_untrained_ones_are_said(released: dict[str, Path]) -> None:
    loaded = load(released["zip"])
    assert loaded.classes == PATHOLOGIES and len(PATHOLOGIES) == 18
    assert loaded.note.endswith(
        "Untrained are its outputs for Lung Lesion, Fracture, Lung Opacity, Enlarged Cardiomediastinum."
    )
    assert "Untrained" not in load(released["zip"], source="xrv:densenet121-res224-all").note


def test_taps_lie_where_the_network_has_them(released: dict[str, Path]) -> None:
    model = load(released["zip"], ("Mass", "Nodule")).model.eval()
    taps = ["features.denseblock4", "embedding", "classifier:contributions", "logits"]
    read = Tapped(model, taps)(torch.randn(1, 1, 64, 64))
    assert [tuple(read[tap].shape) for tap in taps] == [(1, 1024, 2, 2), (1, 1024), (1, 2, 1024), (1, 2)]


def test_a_saved_student_loads_as_it_was(released: dict[str, Path], tmp_path: Path) -> None:
    model = load(released["zip"], ("Mass", "Nodule")).model
    view = {"size": 224, "mean": [0.5], "std": [1 / 2048]}
    config = {"source": NIH, "arguments": {}, "num_classes": 2, "in_channels": 1, "classes": ["Mass", "Nodule"]}
    save_student(tmp_path / "student", model, {**config, "view": view})
    loaded = load(tmp_path, ("Mass", "Nodule"), num_classes=2)
    assert torch.equal(loaded.model.classifier.weight, model.classifier.weight)
    assert (loaded.classes, loaded.view) == (("Mass", "Nodule"), VIEW)


@pytest.mark.parametrize(
    ("source", "labels", "message"),
    [
        (NIH, ("Mass", "Fracture"), "nih has no output for Fracture; it was trained for Atelectasis, .*Hernia"),
        ("xrv:densenet121-res224-rsna", ("Mass",), "no output for Mass; it was trained for Pneumonia, Lung Opacity"),
        ("xrv:densenet121-res224-all", ("cat", "dog"), "all has no output for cat, dog"),
    ],
)
def test_a_label_that_it_was_not_trained_for_is_named(
    released: dict[str, Path], source: str, labels: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(released["zip"], labels, source)


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("xrv:densenet121-res224-nhi", {}, "xrv has no network 'densenet121-res224-nhi'. Nearest: .*-nih"),
        ("xrv:densenet121-res224-nhi", {"weights": "w"}, "xrv has no network"),
        (NIH, {"in_channels": 3}, "sees grey images, got images of 3 channels"),
        (NIH, {"in_channels": None}, "is a model of images, and the data are texts"),
        (NIH, {"arguments": {"drop_rate": 0.1}}, "takes no arguments, got drop_rate"),
        (NIH, {"weights": "pretrained"}, r"no weight file pretrained .*Download https://.*/v1/nih-densenet121-.*\.pt"),
        (NIH, {"weights": "missing.pt"}, r"no weight file missing\.pt .*Download https"),
        (NIH, {"weights": "runs/xrv"}, "There is no run folder runs/xrv"),
    ],
)
def test_wrong_names_and_settings_are_refused(source: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_model(source, **{"num_classes": 2, "in_channels": 1} | settings)


def test_another_number_of_classes_than_labels_is_refused(released: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="answers by name, and got 14 classes for 18 labels"):
        load(released["zip"], num_classes=14)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt does not fit xrv:densenet121-res224-nih: missing features.conv0"):
        load(tmp_path / "w.pt")


# Files that are not trusted


def refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["whole", "state", "module"])
def test_code_in_a_file_is_refused_and_never_runs(tmp_path: Path, where: str, zipped: bool) -> None:
    evil = Runs(tmp_path / "it-ran")
    module = nn.Linear(1, 1)
    module.note = evil  # type: ignore[assignment]
    held = {"whole": evil, "state": {"weight": torch.zeros(1), "note": evil}, "module": module}[where]
    path = tmp_path / "evil.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(held, path, _use_new_zipfile_serialization=zipped)
    refused(path, rf"\(it names {os.name}\.mkdir\)")
    assert not (tmp_path / "it-ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "it-ran").exists()


def in_zip(path: Path, pickled: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, data in storages.items():
            archive.writestr(f"archive/data/{name}", data)
    return path


def test_a_file_can_not_change_the_classes_that_stand_for_its_own(tmp_path: Path) -> None:
    # A class, and a state that would become its attributes: setattr(DenseNet, "state", ...).
    pickled = b"\x80\x02ctorchxrayvision.models\nDenseNet\nN}X\x05\x00\x00\x00stateK\x01s\x86b."
    refused(in_zip(tmp_path / "w.pt", pickled), "can't be read as a pickled torchxrayvision.models.DenseNet")


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81.", r"\(it is a torch\.nn\.modules\.linear\.Linear\)"),
        (b"\x80\x02ctorchxrayvision.models\nDenseNet\n)\x81.", "can't be read"),
        (b"\x80\x02ctorch\nload\nX\x01\x00\x00\x00w\x85R.", r"\(it names torch\.load\)"),
        (b"\x80\x02X\x01\x00\x00\x00wQ.", r"\(it refers to w\)"),
        (b"\x80\x02", "can't be read"),
        (b"", "can't be read"),
    ],
)
def test_other_objects_and_damaged_ones_are_refused(tmp_path: Path, pickled: bytes, message: str) -> None:
    refused(in_zip(tmp_path / "w.pt", pickled), message)


class Asks(pickle.Pickler):
    """Writes storages as torch does: by what they are, and not by what they hold."""

    def persistent_id(self, obj: Any) -> Any:
        return obj.id if isinstance(obj, Numbers) else None


class Numbers:
    def __init__(self, count: int) -> None:
        self.id = ("storage", torch.FloatStorage, "0", "cpu", count)


class Made:
    """Unpickles as a call of torch's, with a module's state if there is one."""

    def __init__(self, call: Any, *args: Any) -> None:
        self.reduced = (call, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def pickled_tensor(count: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A DenseNet of one tensor, of `count` numbers seen with this size and stride."""
    kind = type("DenseNet", (), {"__module__": PACKAGE})
    network = kind()
    tensor = Made(torch._utils._rebuild_tensor_v2, Numbers(count), 0, size, stride, False, OrderedDict())
    network.__dict__.update(_parameters=OrderedDict(w=tensor), _buffers=OrderedDict(), _modules=OrderedDict())
    buffer = io.BytesIO()
    with importable(kind):
        Asks(buffer, protocol=2).dump(network)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [
        ((3,), (1,), "does not fit .* unexpected w"),  # read, and no part of a DenseNet
        ((4,), (1,), "out of bounds"),
        ((3,), (2**40,), "can't be read"),
        ((-1,), (1,), "can't be read"),
    ],
)
def test_a_tensor_that_reaches_out_of_its_numbers_is_refused(
    tmp_path: Path, size: tuple[int, ...], stride: tuple[int, ...], message: str
) -> None:
    numbers = torch.tensor([1.0, 2.0, 3.0]).numpy().tobytes()
    refused(in_zip(tmp_path / "w.pt", pickled_tensor(3, size, stride), **{"0": numbers}), message)


def test_storages_that_are_cut_off_or_missing_are_refused(tmp_path: Path) -> None:
    pickled = pickled_tensor(3, (3,), (1,))
    refused(in_zip(tmp_path / "short.pt", pickled, **{"0": bytes(8)}), "storage 0 is cut off")
    refused(in_zip(tmp_path / "none.pt", pickled), "can't be read")


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    refused(tmp_path / "w.pt", "its archive is compressed")


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_cut_off_is_refused(released: dict[str, Path], tmp_path: Path, name: str) -> None:
    data = released[name].read_bytes()
    for share in (0.0, 0.01, 0.9):
        (tmp_path / "w.pt").write_bytes(data[: int(share * len(data))])
        refused(tmp_path / "w.pt", "can't be read")
