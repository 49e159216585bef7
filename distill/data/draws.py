"""Chance that depends on a key alone: the same draw in every worker, on every process and in any order."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

Key = tuple[int, int]
Purpose = tuple[int | str, ...]
Numbers = npt.NDArray[np.float64]

_STEP = np.uint64(0x9E3779B97F4A7C15)


def seed_of(*key: int | str) -> int:
    """A seed below 2**63 hashed from the key: equal keys get the same one everywhere, neighbours unrelated ones."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A new generator on the CPU, seeded by the key."""
    return torch.Generator().manual_seed(seed_of(*key))


def uniforms(purpose: Purpose, keys: Sequence[Key], count: int) -> Numbers:
    """Numbers in [0, 1), float64 (len(keys), count): each row depends on the purpose and on its (epoch, index) alone.

    SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195, fig. 14), begun anew for each key at a place
    that is hashed from it. A generator that is seeded for each example takes ten times as long as what it is asked for.
    """
    begins = {epoch: seed_of(*purpose, epoch) for epoch in {epoch for epoch, _ in keys}}
    begin = np.array([begins[epoch] for epoch, _ in keys], dtype=np.uint64)
    index = np.array([index for _, index in keys], dtype=np.uint64)
    own = _mixed(begin + _STEP * index)
    drawn = _mixed(own[:, None] + _STEP * np.arange(1, count + 1, dtype=np.uint64))
    numbers: Numbers = (drawn >> np.uint64(11)) * 2.0**-53
    return numbers


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    numbers ^= numbers >> np.uint64(31)
    return numbers


@contextmanager
def drawn_from(*key: int | str) -> Iterator[None]:
    """Inside, torch's own CPU generator is seeded by the key; afterwards it goes on as if nothing had been drawn.

    torchvision's transforms draw from that generator and take no other. It is seeded alone, and not the accelerators'
    as `torch.manual_seed` would.
    """
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed_of(*key))
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
