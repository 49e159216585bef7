"""How many heads an attention of transformers has, which its linear layers do not tell: its nearest config does."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import nn


class _Config(Protocol):
    num_attention_heads: int


@runtime_checkable
class _Configured(Protocol):
    """A transformers model, or a part of one that knows its settings."""

    config: _Config


def num_heads(path: str, modules: Mapping[str, nn.Module]) -> int | None:
    """The heads by the nearest config, from the module at `path` up to the whole model; None where there is none."""
    parts = path.split(".")
    for end in range(len(parts), -1, -1):
        module = modules[".".join(parts[:end])]
        if isinstance(module, _Configured):
            return int(module.config.num_attention_heads)
    return None
