from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F

from distill.numerics import gather_rows, safe_norm, safe_sqrt, unit, widen, without_autocast


@pytest.mark.parametrize(
    ("given", "wide"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_widen_gives_at_least_float32_and_never_lowers(given: torch.dtype, wide: torch.dtype) -> None:
    assert widen(torch.ones(2, dtype=given)).dtype == wide


def test_safe_sqrt_is_the_root_with_zero_gradient_at_and_below_zero() -> None:
    x = torch.tensor([4.0, 0.0, -1.0], requires_grad=True)
    root = safe_sqrt(x)
    root.sum().backward()
    assert root.tolist() == [2.0, 0.0, 0.0]
    assert x.grad is not None
    assert x.grad.tolist() == [0.25, 0.0, 0.0]  # 1 / (2 √4)


def test_safe_norm_has_the_unit_vector_as_gradient_and_zero_at_zero() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    norm = safe_norm(x)
    norm.sum().backward()
    assert norm.tolist() == [5.0, 0.0]
    torch.testing.assert_close(x.grad, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert safe_norm(x, 0, keepdim=True).shape == (1, 2)


def test_unit_equals_normalize_with_zero_gradient_at_the_zero_vector() -> None:
    x = torch.randn(4, 3, dtype=torch.float64)
    x[1] *= 1e-14  # below the smallest norm that is divided by
    torch.testing.assert_close(unit(x), F.normalize(x), rtol=1e-9, atol=0)
    torch.testing.assert_close(unit(x, 0), F.normalize(x, dim=0))
    zero = torch.zeros(2, 3, requires_grad=True)
    unit(zero).sum().backward()
    assert zero.grad is not None
    assert not zero.grad.any()


def test_without_autocast_keeps_products_wide() -> None:
    x = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with without_autocast(x):
            assert (x @ x).dtype == torch.float32


def test_one_process_gathers_its_own_rows() -> None:
    x = torch.ones(3, 2)
    rows, start = gather_rows(x)
    assert rows is x
    assert start == 0


ROWS = (1, 3, 2)  # rows of each process, uneven


def _gather(rank: int, folder: str) -> None:
    store = dist.FileStore(f"{folder}/store", len(ROWS))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=len(ROWS), timeout=timedelta(seconds=60))
    own = torch.full((ROWS[rank], 2), float(rank), requires_grad=True)
    rows, start = gather_rows(own)
    passed: list[torch.Tensor] = []
    rows.register_hook(passed.append)
    weights = torch.arange(1.0, sum(ROWS) + 1)[:, None] * 10**rank
    (rows * weights).sum().backward()
    torch.save((rows.detach(), start, own.grad, passed[0]), Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


def test_rows_of_uneven_processes_are_gathered_in_order_with_their_gradients(tmp_path: Path) -> None:
    mp.spawn(_gather, (str(tmp_path),), nprocs=len(ROWS))
    # Process r weighs row i by (i + 1) · 10^r, so row i's gradient summed over processes is (i + 1) · 111.
    whole = torch.arange(1.0, 7.0)[:, None].expand(6, 2)
    starts = (0, 1, 4)
    for rank, start in enumerate(starts):
        rows, where, gradient, passed = torch.load(tmp_path / f"rank{rank}.pt")
        assert rows[:, 0].tolist() == [0.0, 1.0, 1.0, 1.0, 2.0, 2.0]
        assert where == start
        torch.testing.assert_close(gradient, 111 * whole[start : start + ROWS[rank]])
        torch.testing.assert_close(passed, 10**rank * whole)  # the gradient that autograd passed in is left as it was
