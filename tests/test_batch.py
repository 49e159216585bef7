"""Batches: what moves with them, and what stays where it is."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from distill.batch import Batch, Kept


def batch_of(count: int) -> Batch:
    tokens = torch.arange(2 * count).view(count, 2)
    kept = Kept(np.arange(10, 10 + count), {"logits": torch.arange(count, dtype=torch.uint8)[:, None]})
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return Batch(inputs, torch.arange(count), torch.arange(count), tokens > 2, kept)


@pytest.mark.parametrize("which", [slice(1, 3), torch.tensor([1, 2])], ids=["slice", "numbers"])
def test_rows_of_a_batch_take_what_is_kept_of_them(which: slice | Tensor) -> None:
    rows = batch_of(4).rows(which)
    assert isinstance(rows.inputs, dict) and rows.inputs["input_ids"].tolist() == [[2, 3], [4, 5]]
    assert rows.kept is not None and rows.kept.rows is not None and rows.mask is not None
    assert rows.kept.numbers.tolist() == [11, 12] and rows.kept.rows["logits"].tolist() == [[1], [2]]
    assert len(rows) == 2 and rows.mask.shape == (2, 2)


def test_a_data_loader_pins_every_tensor_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a loader does on a GPU, with copies in place of pinned memory."""
    pinned: list[tuple[int, ...]] = []

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(tuple(tensor.shape))
        return tensor.clone()

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    before = batch_of(3)
    after = pin_memory(before)
    assert isinstance(after, Batch) and len(pinned) == 6
    assert torch.equal(after.labels, before.labels) and after.labels is not before.labels
    assert after.kept is not None and before.kept is not None and after.kept.numbers is before.kept.numbers
