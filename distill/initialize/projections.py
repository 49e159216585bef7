"""Attention whose queries, keys and values have linear layers of their own, as in transformers: where its heads lie.

`nn.MultiheadAttention` says itself how its rows are heads; here names and the nearest config tell it.
"""

from collections.abc import Mapping
from typing import Literal

from torch import nn

from distill.attention import num_heads

Modules = Mapping[str, nn.Module]
Side = Literal["rows", "columns"]

# BERT, RoBERTa and ViT; DistilBERT; most others. Beside each, its output projection, from the attention module on.
_LAYERS = (
    (("query", "key", "value"), None),
    (("q_lin", "k_lin", "v_lin"), "out_lin"),
    (("q_proj", "k_proj", "v_proj"), "out_proj"),
)
# Where BERT and its like have theirs: beside the attention module.
_BESIDE = ".output.dense"
_INSIDE = (".self", ".attention")


def heads_of(path: str, modules: Modules) -> tuple[Side, int] | None:
    """Which side of the linear layer at `path` lists attention heads, and how many; None where it is no projection.

    Queries, keys and values have heads along their rows, the output projection along its columns.
    """
    parent, _, name = path.rpartition(".")
    for inputs, output in _LAYERS:
        if name in inputs and _has(parent, inputs, modules):
            return _with_heads("rows", parent, modules)
        if name == output and _has(parent, inputs, modules):
            return _with_heads("columns", parent, modules)
    if path.endswith(_BESIDE):
        block = path.removesuffix(_BESIDE)
        if any(_has(block + inside, _LAYERS[0][0], modules) for inside in _INSIDE):
            return _with_heads("columns", block, modules)
    return None


def _has(path: str, names: tuple[str, ...], modules: Modules) -> bool:
    return all(isinstance(modules.get(f"{path}.{name}"), nn.Linear) for name in names)


def _with_heads(side: Side, path: str, modules: Modules) -> tuple[Side, int] | None:
    heads = num_heads(path, modules)
    return None if heads is None else (side, heads)
