"""torchvision's classification networks, fresh or with its weights by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models

from distill.messages import first_line, nearest
from distill.models.loaded import Loaded, renew_classifier
from distill.view import View

GREY_VIEW = View(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""Grey images as three equal channels in [-1, 1]: torchvision's networks take three."""


def build(name: str, *, num_classes: int | None, in_channels: int, arguments: Mapping[str, Any]) -> nn.Module:
    """A network with fresh weights.

    Raises:
        ValueError: no such network; images of neither one nor three channels; arguments that it does not take.
    """
    _check(name, in_channels, arguments)
    classes = {} if num_classes is None else {"num_classes": num_classes}
    return _call(name, {**classes, **arguments})


def pretrained(
    name: str, weights: str, *, num_classes: int | None, in_channels: int, arguments: Mapping[str, Any]
) -> Loaded:
    """A network with torchvision's weights; its classifier is kept unless another number of classes is asked for.

    Raises:
        ValueError: as in `build`; no such weights, or they can't be downloaded.
    """
    _check(name, in_channels, arguments)
    members = models.get_model_weights(name).__members__
    if weights not in members:
        raise ValueError(
            f"torchvision:{name} has no weights '{weights}'. Nearest: {nearest(weights, members)}. "
            "A run's folder or a weight file is given by its path."
        )
    member = members[weights]
    categories = tuple(member.meta["categories"])
    num_classes = arguments.get("num_classes", num_classes)
    others = {key: value for key, value in arguments.items() if key != "num_classes"}
    try:
        model = _call(name, {**others, "weights": member})
    except (OSError, RuntimeError) as error:
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(member.url).name
        raise ValueError(
            f"The weights {weights} of torchvision:{name} can't be loaded ({first_line(error)}). Without a network, "
            f"put {member.url} at {place}."
        ) from error
    preset = member.transforms()
    view = View(preset.crop_size[0], tuple(preset.mean), tuple(preset.std))
    note = f"torchvision:{name} has torchvision's weights {member.name}"
    if num_classes is None or num_classes == len(categories):
        return Loaded(model, categories, view, f"{note}.")
    fresh = renew_classifier(model, len(categories), num_classes, source=f"torchvision:{name}")
    note = f"{note}, but its classifier is fresh: {num_classes} classes for {len(categories)}."
    return Loaded(model, None, view, note, fresh)


def _check(name: str, in_channels: int, arguments: Mapping[str, Any]) -> None:
    names = models.list_models(module=models)
    if name not in names:
        raise ValueError(f"torchvision has no classification network '{name}'. Nearest: {nearest(name, names)}.")
    if in_channels not in (1, 3):
        raise ValueError(
            f"torchvision:{name} sees three channels (grey images become three), got images of {in_channels}. Take a "
            "model whose "
            "factory has in_channels."
        )
    if "weights" in arguments:
        raise ValueError(f"The weights of torchvision:{name} are named in weights=, not in arguments.")


def _call(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        model = models.get_model(name, **arguments)
    except TypeError as error:
        raise ValueError(f"torchvision:{name} does not take these arguments: {first_line(error)}.") from error
    assert isinstance(model, nn.Module)
    return model
