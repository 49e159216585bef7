"""timm's networks, fresh or with the weights that their names stand for; timm is imported only when asked for."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from distill.messages import first_line, nearest
from distill.models.loaded import Loaded, classifier_name
from distill.view import View


def build(name: str, *, num_classes: int | None, in_channels: int, arguments: Mapping[str, Any]) -> nn.Module:
    """A network with fresh weights, for images of any number of channels.

    Raises:
        ValueError: timm is not installed; no such network; arguments that it does not take.
    """
    timm = _timm(name)
    classes = {} if num_classes is None else {"num_classes": num_classes}
    model: nn.Module = _create(timm, name, {**classes, "in_chans": in_channels, **arguments})
    return model


def pretrained(
    name: str, weights: str, *, num_classes: int | None, in_channels: int, arguments: Mapping[str, Any]
) -> Loaded:
    """A network with the weights of its name; its classifier is kept unless another number of classes is asked for.

    Grey images become three equal channels, so that the first convolution is the one that was trained.

    Raises:
        ValueError: as in `build`; there are no weights of this name, or they can't be downloaded.
    """
    timm = _timm(name)
    if weights != "pretrained":
        raise ValueError(
            f"timm:{name} has the weights 'pretrained' (others by its name, as in timm:resnet18.a1_in1k), got "
            f"'{weights}'."
        )
    if not timm.is_model_pretrained(name):
        raise ValueError(f"timm has no weights for {name}. Nearest: {nearest(name, timm.list_pretrained())}.")
    channels = {"in_chans": 3 if in_channels == 1 else in_channels}
    classes = {} if num_classes is None else {"num_classes": num_classes}
    model = _create(timm, name, {**classes, **channels, **arguments}, pretrained=True)
    config = timm.data.resolve_model_data_config(model)
    view = View(config["input_size"][-1], tuple(config["mean"]), tuple(config["std"]))
    before = model.pretrained_cfg["num_classes"]
    note = f"timm:{name} has timm's weights"
    fresh = None
    if model.num_classes != before:
        fresh = classifier_name(model, model.num_classes)
        note = f"{note}, but its classifier is fresh: {model.num_classes} classes for {before}"
    return Loaded(model, None, view, f"{note}.", fresh)


def _timm(name: str) -> ModuleType:
    try:
        import timm
        import timm.data
    except ImportError as error:
        raise ValueError(f"timm:{name} needs timm. Install it with: pip install 'distill[hub]'.") from error
    if not timm.is_model(name):
        names = [*timm.list_models(), *timm.list_pretrained()]
        raise ValueError(f"timm has no model '{name}'. Nearest: {nearest(name, names)}.")
    module: ModuleType = timm
    return module


def _create(timm: ModuleType, name: str, arguments: Mapping[str, Any], *, pretrained: bool = False) -> Any:
    if "pretrained" in arguments:
        raise ValueError(f"The weights of timm:{name} are asked for by weights='pretrained', not in arguments.")
    try:
        return timm.create_model(name, pretrained, **arguments)
    except (OSError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"timm:{name} can't be made: {first_line(error)}. Check its name and arguments; weights need a network."
        ) from error
