"""What a window comes to over all processes: its examples, and each term's mean."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from distill.batch import Batch


def examples_in(window: Sequence[Batch], accelerator: Accelerator) -> Tensor | int:
    """The examples of all processes' windows; a tensor on the device where there are several, so that none waits."""
    own = sum(len(batch) for batch in window)
    if accelerator.num_processes == 1:
        return own
    count = torch.tensor(own, device=accelerator.device, dtype=torch.float32)
    reduced: Tensor = accelerator.reduce(count, reduction="sum")
    return reduced


def means_of(
    sums: Mapping[str, Tensor], terms: Iterable[str], count: Tensor | int, accelerator: Accelerator
) -> dict[str, Tensor]:
    """Each term's mean, of sums over this process's examples and the count of all."""
    names = tuple(terms)
    stacked = torch.stack([sums[name].float() for name in names])
    if accelerator.num_processes > 1:
        stacked = accelerator.reduce(stacked, reduction="sum")
    return dict(zip(names, (stacked / count).unbind(), strict=True))
