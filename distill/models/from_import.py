"""Models by import path: `package.module:factory`."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from distill.messages import first_line, nearest

_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def build(
    path: str,
    *,
    num_classes: int | None,
    in_channels: int | None,
    vocab_size: int | None,
    arguments: Mapping[str, Any],
) -> nn.Module:
    """Call the factory with the arguments, and with num_classes, in_channels, vocab_size if it takes these names.

    Raises:
        ValueError: there is no such module or factory, it does not take the arguments, or it does not make a module.
    """
    factory = _find(path)
    signature = inspect.signature(factory)
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    names = [name for name, parameter in signature.parameters.items() if parameter.kind not in _VARIADIC]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for argument in arguments:
            if argument not in names:
                raise ValueError(f"{path} takes no argument '{argument}'. Nearest: {nearest(argument, names)}.")
    offered = {"num_classes": num_classes, "in_channels": in_channels, "vocab_size": vocab_size}
    given = {name: value for name, value in offered.items() if name in names and value is not None}
    given = {**given, **arguments}
    try:
        signature.bind(**given)
    except TypeError as error:
        raise ValueError(f"{path}: {error}. Give it in arguments; it takes {', '.join(names)}.") from error
    model = factory(**given)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{path} makes a {type(model).__name__}, no torch.nn.Module. Name a model's class or factory.")
    return model


def takes(path: str, argument: str) -> bool:
    """Whether the factory takes an argument of this name.

    Raises:
        ValueError: there is no such module or factory.
    """
    return argument in inspect.signature(_find(path)).parameters


def _find(path: str) -> Callable[..., Any]:
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module fails in its own way, and a name such as '../net' in importlib's
        raise ValueError(
            f"Module {module_name} of the model {path} can't be imported ({first_line(error)}). Check its "
            "spelling, and that it is installed or on PYTHONPATH."
        ) from error
    factories = {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("_")}
    if name not in factories:
        raise ValueError(f"{module_name} has no model '{name}'. Nearest: {nearest(name, factories)}.")
    factory: Callable[..., Any] = factories[name]
    return factory
