"""Reading a model's inner tensors: what can be tapped, and what must not be.

A tap is a name: `logits` (the model's answer), `embedding` (what its last linear layer, the classifier, is given), or
the path of a module in the tree (`layer2`, `encoder.layer.3`), whose output it reads. `PATH:ITEM` picks one tensor of a
module that gives several, by position or by key (`lstm:0`, `encoder:last_hidden_state`); `PATH:input` reads what the
module is given (`layer3.0.relu2:input` is the map before that ReLU). `PATH:scores` of a transformers attention module
is how its tokens attend to each other, (B, H, T, T) before mask and softmax; `PATH:1` of it are the probabilities, for
which the model is switched to eager attention, with a warning. `PATH:contributions` of a linear layer with K outputs
and an input (B, D) is weight times input before the sum, (B, K, D): what embeds an example once for each label.
"""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from distill.messages import nearest
from distill.taps.attention import SCORES, attend_eagerly, attention_scores, score_places
from distill.taps.contributions import CONTRIBUTIONS, check_linear, contributions_of
from distill.taps.outputs import TapError, logits_item, pick, tensors

Inputs = Tensor | Mapping[str, Tensor]

_MODEL_TAPS = ("logits", "embedding")
_INPUT = "input"


class _Stop(Exception):
    """Raised behind the last tap: the rest of the forward pass is not needed."""


class Tapped(nn.Module):
    """A model whose forward returns {tap: tensor}, and keeps nothing after the call.

    model: the network; it is used, not copied, and answers as before when called by itself.
    taps: names as above; each is checked for its spelling here and for its tensor at every call.
    view: a module that turns the batch's inputs into what this model sees; None for none.
    stop: end the forward pass behind the last tap (learnt from the first call); for a frozen model only.

    `replayed` says that what runs in its place is a recording, which writes each time where it wrote before.

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
        self.replayed = False
        self._accepts = accepted_names(model)
        self._stop = stop and not any(tap.partition(":")[0] in _MODEL_TAPS for tap in self.taps)
        self._last: str | None = None
        self._live = False
        self._outputs: dict[str, tuple[Any, list[tuple[Tensor, int]]]] = {}
        self._calls: dict[str, int] = {}
        self._linear: tuple[Tensor, int, Tensor] | None = None
        self._handles: list[RemovableHandle] = []
        self._scores: dict[str, tuple[str, str, int]] = {}
        modules = dict(model.named_modules())
        for place in self._places(modules):
            path, _, item = place.partition(":")
            read = self._reader(place)
            if item == _INPUT:
                self._handles.append(modules[path].register_forward_pre_hook(_before(read)))
            else:
                self._handles.append(modules[path].register_forward_hook(_after(read)))
        if "embedding" in self.taps:
            for module in modules.values():
                if isinstance(module, nn.Linear):
                    self._handles.append(module.register_forward_hook(self._read_linear))
        said = attend_eagerly(model, self.taps)
        if said:
            warnings.warn(said, stacklevel=2)

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

    def answers(self, inputs: Inputs) -> dict[str, Tensor]:
        """What a call gives, and what no later call changes."""
        answers: dict[str, Tensor] = self(inputs)
        return {tap: tensor.clone() for tap, tensor in answers.items()} if self.replayed else answers

    def run_to_the_end(self) -> None:
        """Never stop behind the last tap: the processes that share a sharded model wait for each other in it."""
        self._stop = False

    def close(self) -> None:
        """Take the hooks off the model; afterwards this object can't be called any more."""
        for handle in self._handles:
            handle.remove()

    def _places(self, modules: Mapping[str, nn.Module]) -> list[str]:
        """Where the taps are read, each place once; notes those that are computed out of two places."""
        places: list[str] = []
        for tap in self.taps:
            path, _, item = tap.partition(":")
            if path in _MODEL_TAPS:
                continue
            if path not in modules or path == "":
                raise TapError(_no_such_module(self.model, path, modules))
            if item == CONTRIBUTIONS:
                check_linear(path, modules)
            computed = score_places(path, modules) if item == SCORES else None
            if computed is not None:
                self._scores[tap] = computed
            places += [_place(tap)] if computed is None else computed[:2]
        return list(dict.fromkeys(places))

    def _reader(self, place: str) -> Callable[[Any], None]:
        def read(value: Any) -> None:
            if not self._live:
                return
            self._calls[place] = self._calls.get(place, 0) + 1
            self._outputs[place] = (value, [(tensor, _changes(tensor)) for tensor in tensors(value)])
            if self._stop and place == self._last:
                raise _Stop

        return read

    def _read_linear(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if self._live:
            self._linear = (args[0], _changes(args[0]), output)

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
        place, kind = _place(tap), type(self.model).__name__
        what = "input" if item == _INPUT else "output"
        if path == "logits":
            return pick(answer, item or logits_item(answer), tap)
        if path == "embedding":
            logits = pick(answer, logits_item(answer), "logits")
            if linear is None or not _same_memory(linear[2], logits):
                raise TapError(
                    f"{kind} does not end in a linear layer, so 'embedding' is not defined. Name a module instead."
                )
            if _changes(linear[0]) != linear[1]:
                raise TapError(
                    f"The input of {kind}'s classifier is changed in place after it was read. Name a module instead."
                )
            return linear[0]
        if tap in self._scores:
            query, key, heads = self._scores[tap]
            query_BTD, key_BTD = (self._read(one, answer, outputs, calls, linear, inputs) for one in (query, key))
            return attention_scores(query_BTD, key_BTD, heads)
        if item == CONTRIBUTIONS:
            given = self._read(place, answer, outputs, calls, linear, inputs)
            return contributions_of(self.model.get_submodule(path), given, tap)
        if place not in outputs:
            reached = [name for name in self._good(inputs) if name != path]
            raise TapError(
                f"Module '{path}' of {kind} was not reached by the forward pass. Nearest: {nearest(path, reached)}."
            )
        if calls[place] > 1:
            good = nearest(path, [name for name in self._good(inputs) if name != path])
            raise TapError(
                f"Module '{path}' of {kind} is called {calls[place]} times in one forward pass, so its {what} is not "
                f"one tensor. "
                f"Nearest: {good}."
            )
        output, versions = outputs[place]
        if any(_changes(tensor) != version for tensor, version in versions):
            raise TapError(
                f"The {what} of '{path}' of {kind} is changed in place after it was read. "
                f"Next that is safe: {self._next_safe(path, inputs)}."
            )
        return pick(output, None if item == _INPUT else item or None, tap)

    def _good(self, inputs: Inputs) -> list[str]:
        return tappable(self.model, inputs, self._accepts)

    def _next_safe(self, path: str, inputs: Inputs) -> str:
        good = self._good(inputs)
        order = [name for name, _ in self.model.named_modules()]
        after = [name for name in good if order.index(name) > order.index(path)]
        parents = [name for name in good if path.startswith(f"{name}.")]
        return (after or parents[::-1] or ["none; tap 'logits'"])[0]


def _place(tap: str) -> str:
    """Where a tap is read: at a module's path, or at `PATH:input`."""
    path, _, item = tap.partition(":")
    return f"{path}:{_INPUT}" if item in (_INPUT, CONTRIBUTIONS) else path


def _same_memory(one: Tensor, other: Tensor) -> bool:
    """Whether both begin at the same place. While a model is compiled that is not known; the dry run has looked."""
    return torch.compiler.is_compiling() or one.data_ptr() == other.data_ptr()


def _changes(tensor: Tensor) -> int:
    """How often a tensor was changed in place. While a model is compiled that is not known; the dry run has looked."""
    return 0 if torch.compiler.is_compiling() else tensor._version


def _before(read: Callable[[Any], None]) -> Callable[[nn.Module, Any], None]:
    return lambda module, args: read(args[0] if len(args) == 1 else args)


def _after(read: Callable[[Any], None]) -> Callable[[nn.Module, Any, Any], None]:
    return lambda module, args, output: read(output)


def call(model: nn.Module, inputs: Inputs, accepted: frozenset[str] | None) -> Any:
    """The model's answer to a tensor, or to those entries of a mapping that its forward takes (None: it takes any)."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(**_accepted(inputs, accepted))


def taken(model: nn.Module, inputs: Inputs) -> Inputs:
    """What the model takes of its inputs, see `call`."""
    return inputs if isinstance(inputs, Tensor) else _accepted(inputs, accepted_names(model))


def _accepted(inputs: Mapping[str, Tensor], accepted: frozenset[str] | None) -> dict[str, Tensor]:
    return {name: value for name, value in inputs.items() if accepted is None or name in accepted}


def accepted_names(model: nn.Module) -> frozenset[str] | None:
    """What the model's forward takes by name; None where it takes anything."""
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
            seen.setdefault(name, []).append((output, [(tensor, tensor._version) for tensor in tensors(output)]))

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


def _no_such_module(model: nn.Module, path: str, modules: Mapping[str, nn.Module]) -> str:
    names = [*_MODEL_TAPS, *(name for name in modules if name)]
    return f"{type(model).__name__} has no module '{path}'. Nearest: {nearest(path, names)}."
