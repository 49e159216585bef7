"""Batch norms folded into the convolutions before them, in a model that is not trained."""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from distill.measure import evaluating
from distill.taps import Inputs, Tapped

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# Folding rounds otherwise; a fold that is wrong is off by far more than this share of the largest value.
_ROUNDING = 1e-3
# {path: (tensor, how often it was changed in place by then), of each call}
_Seen = dict[str, list[tuple[Tensor, int]]]


def fold(model: nn.Module, taps: Iterable[str], inputs: Inputs, *, view: nn.Module | None = None) -> nn.Module:
    """A copy of a model, in evaluation, with each batch norm folded into the convolution whose output it is given.

    Pairs are found by running the model: a norm's input is the very tensor that a convolution gave. The copy is then
    compared with the model on the same inputs, since a convolution's output may be used elsewhere too.

    taps: what will be read, each of which must stay as it is. inputs: a few examples. view: maps them to the model's.

    Raises:
        ValueError: there is no such pair, a tap reads between the two, or the taps read otherwise afterwards.
    """
    seen = inputs if view is None else view(inputs)
    pairs = _pairs(model, seen)
    if not pairs:
        raise ValueError(
            "speed.fold_teacher has no effect on a teacher without batch norms behind convolutions. Leave it out."
        )
    for convolution, norm in pairs:
        between = [tap for tap in taps if tap.partition(":")[::2] in ((convolution, ""), (norm, "input"))]
        if between:
            raise ValueError(
                f"speed.fold_teacher would change tap '{between[0]}', which reads before batch norm '{norm}'. Tap "
                f"'{norm}' or a later module, or leave it out."
            )
    folded = copy.deepcopy(model).eval()
    for convolution, norm in pairs:
        first, second = folded.get_submodule(convolution), folded.get_submodule(norm)
        assert isinstance(first, _ConvNd) and isinstance(second, _BatchNorm)
        folded.set_submodule(convolution, fuse_conv_bn_eval(first, second))
        folded.set_submodule(norm, nn.Identity())
    _check_same(model, folded, taps, seen)
    return folded


def _check_same(model: nn.Module, folded: nn.Module, taps: Iterable[str], inputs: Inputs) -> None:
    before, after = (_read(one, taps, inputs) for one in (model, folded))
    for tap, tensor in before.items():
        off = (tensor - after[tap]).abs().max() / tensor.abs().max().clamp(min=1e-12)
        if not off <= _ROUNDING:
            raise ValueError(
                f"speed.fold_teacher would change tap '{tap}' by {float(off):.1%} of its largest value: a batch norm's "
                "input is read elsewhere too. Leave it out."
            )


def _read(model: nn.Module, taps: Iterable[str], inputs: Inputs) -> dict[str, Tensor]:
    tapped = Tapped(model, taps)
    try:
        with torch.no_grad(), evaluating(model):
            answers: dict[str, Tensor] = tapped(inputs)
            return answers
    finally:
        tapped.close()


def _pairs(model: nn.Module, inputs: Inputs) -> list[tuple[str, str]]:
    """Paths of convolution and batch norm where each is called once, and the one's output is the other's input."""
    given: _Seen = {}
    taken: _Seen = {}
    handles = []
    for path, module in model.named_modules():
        # Their own classes only: those derived from them, as timm's, do more than these.
        if type(module) in _CONVOLUTIONS:
            handles.append(module.register_forward_hook(_note(given, path, output=True)))
        elif type(module) in _NORMS and module.track_running_stats:
            handles.append(module.register_forward_hook(_note(taken, path, output=False)))
    try:
        _read(model, ("logits",), inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [
        (convolution, norm)
        for norm, inputs_of in taken.items()
        for convolution, outputs in given.items()
        if len(inputs_of) == len(outputs) == 1
        if inputs_of[0][0] is outputs[0][0] and inputs_of[0][1] == outputs[0][1]
    ]


def _note(seen: _Seen, path: str, *, output: bool) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def note(module: nn.Module, args: tuple[Tensor, ...], answer: Tensor) -> None:
        tensor = answer if output else args[0]
        seen.setdefault(path, []).append((tensor, tensor._version))

    return note
