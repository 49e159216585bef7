"""Every loss under contract, and what one process of two does with all of them."""

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from distill.losses import Coupled
from tests.losses import rows_hints, rows_layers, rows_logits, rows_samples, rows_tokens
from tests.losses.contract import mean_and_gradient, value_and_gradient

ROWS = (*rows_logits.ROWS, *rows_hints.ROWS, *rows_samples.ROWS, *rows_layers.ROWS, *rows_tokens.ROWS)
SHARES = (5, 3)  # examples of each process


def main(rank: int, folder: str) -> None:
    """One process of two: saves value and gradient of its share of the batch, with global and with local scope."""
    store = dist.FileStore(f"{folder}/store", len(SHARES))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=len(SHARES), timeout=timedelta(seconds=60))
    start = sum(SHARES[:rank])
    results = []
    for row, inputs in zip(ROWS, torch.load(f"{folder}/inputs.pt", weights_only=False), strict=True):
        own = inputs.rows(slice(start, start + SHARES[rank]))
        alone = replace(row.loss, scope="local") if isinstance(row.loss, Coupled) else row.loss
        results.append((value_and_gradient(row.loss, own, sum(SHARES)), mean_and_gradient(alone, own)))
    torch.save(results, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
