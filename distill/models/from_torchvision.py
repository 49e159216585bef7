"""torchvision's classification networks, fresh or with its weights by name, for colour or for grey images.

They take three channels, and see grey images as three equal ones. With arguments={"in_channels": 1} the first
convolution takes the one channel there is: its kernel is the sum over the colours, so that on equally normalised images
the network answers as with three equal channels, up to rounding, at a third of that convolution's cost.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn
from torchvision import models

from distill.messages import first_line, nearest
from distill.models.loaded import Loaded, renew_classifier
from distill.view import View

GREY_VIEW = View(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""Grey images as three equal channels in [-1, 1]."""

_CHANNELS = "in_channels"
_COLOURS = 3


def view(*, in_channels: int | None, arguments: Mapping[str, Any]) -> View | None:
    """What a network without named weights sees of such images; None where any view will do."""
    return GREY_VIEW if in_channels == 1 and not _is_grey(arguments) else None


def build(name: str, *, num_classes: int | None, in_channels: int, arguments: Mapping[str, Any]) -> nn.Module:
    """A network with fresh weights; `in_channels` among the arguments are those of its first convolution, 3 or 1.

    Raises:
        ValueError: no such network; images of neither one nor three channels; arguments that it does not take.
    """
    _check(name, in_channels, arguments)
    classes = {} if num_classes is None else {"num_classes": num_classes}
    model = _call(name, {**classes, **_others(arguments)})
    if _is_grey(arguments):
        _sum_colours(model, name)
    return model


def pretrained(
    name: str, weights: str, *, num_classes: int | None, in_channels: int, arguments: Mapping[str, Any]
) -> Loaded:
    """A network with torchvision's weights; its classifier is kept unless another number of classes is asked for.

    A grey network is normalised by the mean over the colours of its weights' means and deviations.

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
    others = {key: value for key, value in _others(arguments).items() if key != "num_classes"}
    try:
        model = _call(name, {**others, "weights": member})
    except (OSError, RuntimeError) as error:
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(member.url).name
        raise ValueError(
            f"The weights {weights} of torchvision:{name} can't be loaded ({first_line(error)}). Without a network, "
            f"put {member.url} at {place}."
        ) from error
    preset = member.transforms()
    sees = View(preset.crop_size[0], tuple(preset.mean), tuple(preset.std))
    note = f"torchvision:{name} has torchvision's weights {member.name}"
    if _is_grey(arguments):
        _sum_colours(model, name)
        sees = View(sees.size, (fmean(sees.mean),), (fmean(sees.std),))
        note += ", summed over the colours for grey images, which it sees by one mean and deviation for all three"
    if num_classes is None or num_classes == len(categories):
        return Loaded(model, categories, sees, f"{note}.")
    fresh = renew_classifier(model, len(categories), num_classes, source=f"torchvision:{name}")
    note = f"{note}, but its classifier is fresh: {num_classes} classes for {len(categories)}."
    return Loaded(model, None, sees, note, fresh)


def _check(name: str, in_channels: int, arguments: Mapping[str, Any]) -> None:
    names = models.list_models(module=models)
    if name not in names:
        raise ValueError(f"torchvision has no classification network '{name}'. Nearest: {nearest(name, names)}.")
    if in_channels not in (1, _COLOURS):
        raise ValueError(
            f"torchvision:{name} sees three channels (grey images become three), got images of {in_channels}. Take a "
            "model whose factory has in_channels."
        )
    own = arguments.get(_CHANNELS, _COLOURS)
    if own not in (1, _COLOURS):
        raise ValueError(f"torchvision:{name} takes in_channels 3, or 1 for grey images, got {own!r}.")
    if own < in_channels:
        raise ValueError(
            f"torchvision:{name} with in_channels=1 sees grey images, got images of {in_channels} channels. Leave "
            "in_channels out of its arguments."
        )
    if "weights" in arguments:
        raise ValueError(f"The weights of torchvision:{name} are named in weights=, not in arguments.")


def _is_grey(arguments: Mapping[str, Any]) -> bool:
    return bool(arguments.get(_CHANNELS, _COLOURS) == 1)


def _others(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if key != _CHANNELS}


def _sum_colours(model: nn.Module, name: str) -> None:
    """Make the first convolution take one channel, and answer as it did to three equal ones.

    Sums of fresh weights are fresh weights: where their spread follows from the number of inputs, it is just that of a
    convolution of one channel.
    """
    if isinstance(model, (models.GoogLeNet, models.Inception3)) and model.transform_input:
        raise ValueError(
            f"torchvision:{name} with these weights changes three colours before its first convolution, so it can't "
            "take one channel. Leave in_channels out: it sees grey images as three equal channels."
        )
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    assert first is not None and first.in_channels == _COLOURS and first.groups == 1, name
    first.in_channels = 1
    first.weight = nn.Parameter(first.weight.detach().sum(1, keepdim=True))


def _call(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        model = models.get_model(name, **arguments)
    except TypeError as error:
        raise ValueError(f"torchvision:{name} does not take these arguments: {first_line(error)}.") from error
    assert isinstance(model, nn.Module)
    return model
