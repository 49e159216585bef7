"""torchxrayvision's DenseNet-121 of chest radiographs, with weights from a local file; that package is not needed.

Cohen, Viviano, Bertin, Morrison, Torabian, Guarrera, Lungren, Chaudhari, Brooks, Hashir and Bertrand, 2022,
"TorchXRayVision: A library of chest X-ray datasets and models", arXiv:2111.00595. Its network is torchvision's
DenseNet-121 with one grey channel and 18 outputs, under the same names, and sees values from -1024 to 1024.

Departures: the outputs are logits, where that package scales probabilities by operating points; and of the 18 only
those are given that the data ask for, by name.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from distill.messages import nearest
from distill.models import from_torchvision
from distill.models.loaded import Loaded
from distill.models.pickled import module_tensors
from distill.models.weights import fit_tensors, read_tensors
from distill.view import View

PATHOLOGIES = (
    *("Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion"),
    *("Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia"),
    *("Lung Lesion", "Fracture", "Lung Opacity", "Enlarged Cardiomediastinum"),
)
"""What the 18 outputs stand for, in their order."""

VIEW = View(224, (0.5,), (1 / 2048,))
"""Values from -1024 to 1024, on 224 pixels."""


class _Released(NamedTuple):
    """Weights as released: what the file was trained on, as its name says, and the pathologies that had labels."""

    data: str
    trained: tuple[str, ...]


_NIH = PATHOLOGIES[:14]
_REPORTS = (
    *("Atelectasis", "Consolidation", "Pneumothorax", "Edema", "Effusion", "Pneumonia", "Cardiomegaly"),
    *PATHOLOGIES[14:],
)
_RELEASED = {
    "densenet121-res224-all": _Released("nih-pc-chex-mimic_ch-google-openi-kaggle", PATHOLOGIES),
    "densenet121-res224-nih": _Released("nih", _NIH),
    "densenet121-res224-pc": _Released("pc", (*_NIH, "Fracture")),
    "densenet121-res224-chex": _Released("chex", _REPORTS),
    "densenet121-res224-mimic_nb": _Released("mimic_nb", _REPORTS),
    "densenet121-res224-mimic_ch": _Released("mimic_ch", _REPORTS),
    "densenet121-res224-rsna": _Released("kaggle", ("Pneumonia", "Lung Opacity")),
}
_PLACE = "https://github.com/mlmed/torchxrayvision/releases/download/v1"
_OPERATING_POINTS = "op_threshs"


def build(name: str, *, num_classes: int | None, in_channels: int, arguments: Mapping[str, Any]) -> nn.Module:
    """The network with fresh weights, of 18 outputs or of as many as asked for.

    Raises:
        ValueError: no such network, images that are not grey, or arguments.
    """
    _check(name, in_channels, arguments)
    return from_torchvision.build(
        "densenet121",
        num_classes=len(PATHOLOGIES) if num_classes is None else num_classes,
        in_channels=in_channels,
        arguments={"in_channels": 1},
    )


def load(
    name: str,
    path: Path,
    *,
    weights: str,
    num_classes: int | None,
    labels: Sequence[str] | None,
    in_channels: int,
    arguments: Mapping[str, Any],
) -> Loaded:
    """The network with the weights of a file: one that torchxrayvision releases, or tensors by name.

    labels: what it is to answer, in this order; compared without case, spaces and underscores. None for all 18.
    weights: how the user named the file.

    Raises:
        ValueError: as in `build`; a label that the weights were not trained for; the file can't be read or does not
            fit.
    """
    _check(name, in_channels, arguments)
    rows = list(range(len(PATHOLOGIES))) if labels is None else _rows(name, labels)
    if num_classes not in (None, len(rows)):
        raise ValueError(
            f"xrv:{name} answers by name, and got {num_classes} classes for {len(rows)} labels. Give the labels' names."
        )
    tensors = _read(path)
    model = build(name, num_classes=None, in_channels=in_channels, arguments=arguments)
    fit_tensors(model, tensors, source=f"xrv:{name}", weights=weights)
    _keep_rows(model, rows)
    note = f"xrv:{name} has all of its tensors from {weights} ({len(tensors)})"
    if labels is not None:
        return Loaded(model, tuple(labels), VIEW, f"{note}, and {len(rows)} of its {len(PATHOLOGIES)} outputs.")
    untrained = [label for label in PATHOLOGIES if label not in _RELEASED[name].trained]
    note += f". Untrained are its outputs for {', '.join(untrained)}." if untrained else "."
    return Loaded(model, PATHOLOGIES, VIEW, note)


def missing(name: str, weights: str) -> str:
    """What to say where there is no such file of weights.

    Raises:
        ValueError: no such network.
    """
    _check_name(name)
    file = f"{_RELEASED[name].data}-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
    return f"There is no weight file {weights} for xrv:{name}. Download {_PLACE}/{file} and give its path."


def _check(name: str, in_channels: int, arguments: Mapping[str, Any]) -> None:
    _check_name(name)
    if in_channels != 1:
        raise ValueError(f"xrv:{name} sees grey images, got images of {in_channels} channels. Take another model.")
    if arguments:
        raise ValueError(f"xrv:{name} takes no arguments, got {', '.join(arguments)}. Leave them out.")


def _check_name(name: str) -> None:
    if name not in _RELEASED:
        raise ValueError(f"xrv has no network '{name}'. Nearest: {nearest(name, _RELEASED)}.")


def _rows(name: str, labels: Sequence[str]) -> list[int]:
    trained = _RELEASED[name].trained
    rows = {_plain(label): row for row, label in enumerate(PATHOLOGIES) if label in trained}
    strange = [label for label in labels if _plain(label) not in rows]
    if strange:
        raise ValueError(
            f"xrv:{name} has no output for {', '.join(strange)}; it was trained for {', '.join(trained)}. "
            "Take other weights, or data with these labels."
        )
    return [rows[_plain(label)] for label in labels]


def _plain(label: str) -> str:
    return label.casefold().replace(" ", "").replace("_", "")


def _keep_rows(model: nn.Module, rows: list[int]) -> None:
    """Leave those outputs only, in this order: a smaller linear layer in the same place."""
    whole = model.get_submodule("classifier")
    assert isinstance(whole, nn.Linear)
    kept = nn.Linear(whole.in_features, len(rows))
    kept.load_state_dict({key: tensor[rows] for key, tensor in whole.state_dict().items()})
    model.set_submodule("classifier", kept)


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors by name, of a file of tensors or of the whole pickled module that is released."""
    module = None if path.suffix == ".safetensors" else module_tensors(path, kind="torchxrayvision.models.DenseNet")
    tensors = read_tensors(path) if module is None else module
    return {name: tensor for name, tensor in tensors.items() if name != _OPERATING_POINTS}
