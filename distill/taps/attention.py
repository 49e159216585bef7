"""How transformers' tokens attend to each other: raw scores out of queries and keys, and probabilities on request.

Fused attention computes neither where a hook could read it. The scores follow from what the query's and the key's
linear layers give, so they need no other kind of attention; the probabilities do, and `attend_eagerly` switches to it.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

from einops import rearrange
from torch import Tensor, nn

from distill.attention import num_heads
from distill.messages import nearest
from distill.taps.outputs import TapError

SCORES = "scores"
_PROBABILITIES = "1"  # the second of what a transformers attention module gives
_QUERY_AND_KEY = (("query", "key"), ("q_lin", "k_lin"))  # BERT, RoBERTa and their like; DistilBERT


class _Config(Protocol):
    _attn_implementation: str


@runtime_checkable
class _Attends(Protocol):
    """A transformers model, whose kind of attention can be chosen."""

    config: _Config

    def set_attn_implementation(self, attn_implementation: str) -> None: ...


def attention_scores(query_BTD: Tensor, key_BTD: Tensor, heads: int) -> Tensor:
    """Q Kᵀ / √d of each head, d its width, before mask and softmax: (B, H, T, T)."""
    query_BHTR, key_BHTR = (rearrange(x, "b t (h r) -> b h t r", h=heads) for x in (query_BTD, key_BTD))
    return query_BHTR @ key_BHTR.mT / math.sqrt(query_BHTR.shape[3])


def query_and_key(module: nn.Module) -> tuple[str, str] | None:
    """Names of the two linear layers of an attention module; None where it is none that we know."""
    children = dict(module.named_children())
    for names in _QUERY_AND_KEY:
        if all(isinstance(children.get(name), nn.Linear) for name in names):
            return names
    return None


def score_places(path: str, modules: Mapping[str, nn.Module]) -> tuple[str, str, int] | None:
    """Paths of the query and the key that `PATH:scores` is computed from, and the number of heads.

    None where no module of the model is such an attention, so that `scores` can only be an item of an output.

    Raises:
        TapError: the module is no attention and another one is, or its number of heads is not known.
    """
    attentions = [name for name, module in modules.items() if query_and_key(module) is not None]
    if not attentions:
        return None
    names = query_and_key(modules[path])
    if names is None:
        raise TapError(
            f"Module '{path}' has no query and key of its own, so it has no scores. "
            f"Nearest: {nearest(f'{path}:{SCORES}', [f'{name}:{SCORES}' for name in attentions])}."
        )
    heads = num_heads(path, modules)
    widths = [len(modules[f"{path}.{name}"].get_parameter("weight")) for name in names]
    if heads is None or widths[0] != widths[1] or widths[0] % heads:
        raise TapError(
            f"The heads of '{path}' are not known: {_described(heads)} for widths {widths[0]} and {widths[1]}. "
            "Give the model a config with num_attention_heads, or tap the query and the key themselves."
        )
    return f"{path}.{names[0]}", f"{path}.{names[1]}", heads


def taps_of_probabilities(model: nn.Module, taps: Iterable[str]) -> tuple[str, ...]:
    """Those of the taps that read attention probabilities, `PATH:1` of an attention module or of what wraps one."""
    modules = dict(model.named_modules())
    found = []
    for tap in taps:
        path, _, item = tap.partition(":")
        if item == _PROBABILITIES and path in modules:
            module = modules[path]
            if any(query_and_key(one) is not None for one in (module, *module.children())):
                found.append(tap)
    return tuple(found)


def attend_eagerly(model: nn.Module, taps: Iterable[str]) -> str | None:
    """Switch a transformers model to eager attention where a tap reads probabilities, which fused attention has not.

    The model's answers stay as they were, up to rounding. Returns what to tell the user; None where nothing changed.
    """
    wanted = taps_of_probabilities(model, taps)
    attending = next((module for module in model.modules() if isinstance(module, _Attends)), None)
    if not wanted or attending is None or attending.config._attn_implementation == "eager":
        return None
    attending.set_attn_implementation("eager")
    return (
        f"{type(attending).__name__} attends eagerly now, which is slower: tap '{wanted[0]}' reads probabilities, "
        f"and fused attention gives none. '{wanted[0].partition(':')[0]}:{SCORES}' reads the scores without."
    )


def _described(heads: int | None) -> str:
    return "no config tells their number" if heads is None else f"{heads} of them"
