"""A recipe with `Speed`, and graphs of it without generated code."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from distill import speed as speeding
from distill.recipe import SGD, Recipe, Speed
from tests.tiny import pair_recipe


@pytest.fixture(autouse=True)
def quick_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Graphs as they are compiled, but run by torch's own operations: generating code takes a minute here."""
    monkeypatch.setattr(speeding, "_BACKEND", "aot_eager")
    monkeypatch.setattr(speeding, "check_compiler", lambda device: None)
    counters.clear()
    yield
    torch.compiler.reset()


def pair(speed: Speed | None, **changes: Any) -> Recipe:
    """Three steps an epoch of 13, 13 and 10 examples; the last batch is ragged."""
    return pair_recipe(**{"batch_size": 13, "speed": speed, "optimizer": SGD(lr=0.02), **changes})
