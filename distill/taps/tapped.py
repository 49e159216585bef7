"""Reading a model's inner tensors: what can be tapped, and what must not be.

A tap is a name: `logits` (the model's answer), `embedding` (what its last linear layer, the classifier, is given), or
the path of a module in the tree (`layer2`, `encoder.layer.3`), whose output it reads. `PATH:ITEM` picks one tensor of a
module that gives several, by position or by key (`lstm:0`, `encoder:last_hidden_state`).
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from distill.messages import nearest

Inputs = Tensor | Mapping[str, Tensor]

_MODEL_TAPS = ("logits", "embedding")


class TapError(ValueError):
    """A tap that does not exist, was not reached, was reached twice or was changed after it was read."""


class _Stop(Exception):
    """Raised behind the last tap: the rest of the forward pass is not needed."""


class Tapped(nn.Module):
    """A model whose forward returns {tap: tensor}, and keeps nothing after the call.

    model: the network; it is used, not copied, and answers as before when called by itself.
    taps: names as above; each is checked for its spelling here and for its tensor at every call.
    view: a module that turns the batch's inputs into what this model sees; None for none.
    stop: end the forward pass behind the last tap (learnt from the first call); for a frozen model only.

    Raises:
        TapError: a tap names no module; or at a call, its module was not reached, was called more than once, gives no
        single tensor,
            or its tensor was changed in place afterwards. The message names the nearest tap that is good.
    """

    def __init__(
        self, model: nn.Module, taps: Iterable[str], *, view: nn.Module | None = None, stop: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.view = view
        self.taps = tuple(dict.fromkeys(taps))
        self._accepts = _accepted_names(model)
        self._stop = stop and not any(tap.partition(":")[0] in _MODEL_TAPS for tap in self.taps)
        self._last: str | None = None
        self._live = False
        self._outputs: dict[str, tuple[Any, list[tuple[Tensor, int]]]] = {}
        self._calls: dict[str, int] = {}
        self._linear: tuple[Tensor, int, Tensor] | None = None
        self._handles: list[RemovableHandle] = []
        modules = dict(model.named_modules())
        for path in dict.fromkeys(tap.partition(":")[0] for tap in self.taps):
            if path in _MODEL_TAPS:
                continue
            if path not in modules or path == "":
                raise TapError(_no_such_module(model, path, modules))
            self._handles.append(modules[path].register_forward_hook(self._reader(path)))
        if "embedding" in self.taps:
            for module in modules.values():
                if isinstance(module, nn.Linear):
                    self._handles.append(module.register_forward_hook(self._read_linear))

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Run the model; `inputs` is a tensor, or a mapping of which the model gets what its signature takes."""
        if self.view is not None:
            inputs = self.view(inputs)
        answer: Any = None
        self._live = True
        try:
            answer = call(self.model, inputs, self._accepts)
        except _Stop:
            pass
        finally:
            self._live = False
            outputs, calls, linear = self._outputs, self._calls, self._linear
            self._outputs, self._calls, self._linear = {}, {}, None
        if self._last is None and outputs:
            self._last = list(outputs)[-1]
        return {tap: self._read(tap, answer, outputs, calls, linear, inputs) for tap in self.taps}

    def close(self) -> None:
        """Take the hooks off the model; afterwards this object can't be called any more."""
        for handle in self._handles:
            handle.remove()

    def _reader(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def read(module: nn.Module, args: Any, output: Any) -> None:
            if not self._live:
                return
            self._calls[path] = self._calls.get(path, 0) + 1
            self._outputs[path] = (output, [(tensor, tensor._version) for tensor in _tensors(output)])
            if self._stop and path == self._last:
                raise _Stop

        return read

    def _read_linear(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if self._live:
            self._linear = (args[0], args[0]._version, output)

    def _read(
        self,
        tap: str,
        answer: Any,
        outputs: Mapping[str, tuple[Any, list[tuple[Tensor, int]]]],
        calls: Mapping[str, int],
        linear: tuple[Tensor, int, Tensor] | None,
        inputs: Inputs,
    ) -> Tensor:
        path, _, item = tap.partition(":")
        kind = type(self.model).__name__
        if path == "logits":
            return pick(answer, item or _logits_item(answer), tap)
        if path == "embedding":
            logits = pick(answer, _logits_item(answer), "logits")
            if linear is None or linear[2].data_ptr() != logits.data_ptr():
                raise TapError(
                    f"{kind} does not end in a linear layer, so 'embedding' is not defined. Name a module instead."
                )
            if linear[0]._version != linear[1]:
                raise TapError(
                    f"The input of {kind}'s classifier is changed in place after it was read. Name a module instead."
                )
            return linear[0]
        if path not in outputs:
            reached = [name for name in self._good(inputs) if name != path]
            raise TapError(
                f"Module '{path}' of {kind} was not reached by the forward pass. Nearest: {nearest(path, reached)}."
            )
        if calls[path] > 1:
            good = nearest(path, [name for name in self._good(inputs) if name != path])
            raise TapError(
                f"Module '{path}' of {kind} is called {calls[path]} times in one forward pass, so its output is not "
                f"one tensor. "
                f"Nearest: {good}."
            )
        output, versions = outputs[path]
        if any(tensor._version != version for tensor, version in versions):
            raise TapError(
                f"The output of '{path}' of {kind} is changed in place after it was read. "
                f"Next that is safe: {self._next_safe(path, inputs)}."
            )
        return pick(output, item or None, tap)

    def _good(self, inputs: Inputs) -> list[str]:
        return tappable(self.model, inputs, self._accepts)

    def _next_safe(self, path: str, inputs: Inputs) -> str:
        good = self._good(inputs)
        order = [name for name, _ in self.model.named_modules()]
        after = [name for name in good if order.index(name) > order.index(path)]
        parents = [name for name in good if path.startswith(f"{name}.")]
        return (after or parents[::-1] or ["none; tap 'logits'"])[0]


def call(model: nn.Module, inputs: Inputs, accepted: frozenset[str] | None) -> Any:
    """The model's answer to a tensor, or to those entries of a mapping that its forward takes (None: it takes any)."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(**{name: value for name, value in inputs.items() if accepted is None or name in accepted})


def _accepted_names(model: nn.Module) -> frozenset[str] | None:
    parameters = inspect.signature(model.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


def tappable(model: nn.Module, inputs: Inputs, accepted: frozenset[str] | None = None) -> list[str]:
    """Names of the modules that can be tapped: reached once, giving one tensor that is not changed in place afterwards.

    Runs the model once, as it stands (training or not), with gradients off.
    """
    seen: dict[str, list[tuple[Any, list[tuple[Tensor, int]]]]] = {}

    def reader(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def read(module: nn.Module, args: Any, output: Any) -> None:
            seen.setdefault(name, []).append((output, [(tensor, tensor._version) for tensor in _tensors(output)]))

        return read

    handles = [module.register_forward_hook(reader(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            call(model, inputs, accepted)
    finally:
        for handle in handles:
            handle.remove()
    return [
        name
        for name, reads in seen.items()
        if len(reads) == 1
        and len(reads[0][1]) == 1
        and all(tensor._version == version for tensor, version in reads[0][1])
    ]


def pick(output: Any, item: str | None, tap: str) -> Tensor:
    """The tensor of a module's output that `item` names by position or key; without an item there must be just one.

    Raises:
        TapError: there is no such item, or more than one tensor to choose from.
    """
    if item is None:
        if isinstance(output, Tensor):
            return output
        tensors = _tensors(output)
        if len(tensors) == 1:
            return tensors[0]
        raise TapError(f"Tap '{tap}' gives {_describe(output)}. Name one: {_choices(output, tap)}.")
    if isinstance(output, Mapping) and item in output:
        chosen = output[item]
    elif isinstance(output, (tuple, list)) and item.isdigit() and int(item) < len(output):
        chosen = output[int(item)]
    elif isinstance(output, tuple) and item in getattr(output, "_fields", ()):
        chosen = getattr(output, item)
    else:
        raise TapError(f"Tap '{tap}' has no item '{item}': it gives {_describe(output)}. {_way_out(output, tap)}")
    if not isinstance(chosen, Tensor):
        raise TapError(f"Tap '{tap}' is {_describe(chosen)}, not a tensor. {_way_out(output, tap)}")
    return chosen


def _no_such_module(model: nn.Module, path: str, modules: Mapping[str, nn.Module]) -> str:
    names = [*_MODEL_TAPS, *(name for name in modules if name)]
    return f"{type(model).__name__} has no module '{path}'. Nearest: {nearest(path, names)}."


def _logits_item(answer: Any) -> str | None:
    named = isinstance(answer, Mapping) or (isinstance(answer, tuple) and "logits" in getattr(answer, "_fields", ()))
    return "logits" if named else None


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = list(output.values()) if isinstance(output, Mapping) else output
    if isinstance(values, (tuple, list)):
        return [tensor for value in values for tensor in _tensors(value)]
    return []


def _describe(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"a mapping of {len(output)} ({', '.join(map(str, output))})"
    if isinstance(output, (tuple, list)):
        return f"{len(output)} values"
    return "one tensor" if isinstance(output, Tensor) else type(output).__name__


def _choices(output: Any, tap: str) -> str:
    path = tap.partition(":")[0]
    keys = (
        list(output) if isinstance(output, Mapping) else range(len(output)) if isinstance(output, (tuple, list)) else ()
    )
    return ", ".join(f"'{path}:{key}'" for key in keys) or "a module that gives a tensor"


def _way_out(output: Any, tap: str) -> str:
    if isinstance(output, Tensor):
        return f"Name it '{tap.partition(':')[0]}'."
    return f"Name one: {_choices(output, tap)}."
