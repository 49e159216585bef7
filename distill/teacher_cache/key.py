"""What answers depend on: where any of it changes, they are asked anew."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

RECORD = "record.json"


def fingerprint(*values: str | Tensor | Mapping[str, Tensor] | nn.Module) -> str:
    """A hash of texts, tensors, mappings of tensors and models (names, shapes and values of parameters and buffers)."""
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        if isinstance(value, str):
            digest.update(value.encode())
            continue
        named = (
            {"": value} if isinstance(value, Tensor) else value.state_dict() if isinstance(value, nn.Module) else value
        )
        for name, tensor in named.items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def what_changed(folder: Path, parts: Mapping[str, str], name: str) -> tuple[str, ...]:
    """The parts that differ from the latest cache of a run of this name; none where there was none.

    folder: of all caches, each with its record.
    """
    records = []
    for path in folder.glob(f"*/{RECORD}"):
        try:
            record = json.loads(path.read_text())
            if record["name"] == name:
                records.append((path.stat().st_mtime, dict(record["parts"])))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    if not records:
        return ()
    before = max(records, key=lambda pair: pair[0])[1]
    return tuple(part for part, value in parts.items() if before.get(part) != value)


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
