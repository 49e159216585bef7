"""Run a function in several cooperating CPU processes, as `accelerate launch` would."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp


def run_processes(function: Callable[..., Any], processes: int, folder: Path, *arguments: Any) -> list[Any]:
    """What `function(*arguments)` gives in each process of a gloo group; the results go through `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_enter, (function, processes, port, folder, arguments), nprocs=processes, join=True)
    return [torch.load(folder / f"result-{rank}.pt", weights_only=False) for rank in range(processes)]


def _enter(rank: int, function: Callable[..., Any], processes: int, port: int, folder: Path, arguments: Any) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(processes),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        ACCELERATE_USE_CPU="true",
        OMP_NUM_THREADS="1",
    )
    torch.set_num_threads(1)
    torch.save(function(*arguments), folder / f"result-{rank}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
