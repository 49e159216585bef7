"""Chance that depends on a key alone: the same draw in every worker, on every process and in any order."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(*key: int | str) -> int:
    """A seed below 2**63 hashed from the key: equal keys get the same one everywhere, neighbours unrelated ones."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A new generator on the CPU, seeded by the key."""
    return torch.Generator().manual_seed(seed_of(*key))


@contextmanager
def drawn_from(*key: int | str) -> Iterator[None]:
    """Inside, torch's own CPU generator is seeded by the key; afterwards it goes on as if nothing had been drawn.

    torchvision's transforms draw from that generator and take no other. Seeding it alone, and not the accelerators' as
    `torch.manual_seed` does, keeps this at two microseconds.
    """
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed_of(*key))
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
