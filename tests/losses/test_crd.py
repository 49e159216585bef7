import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.naive import naive_crd
from distill.batch import Batch
from distill.losses import CRD
from distill.losses.relations.samples import crd
from distill.losses.relations.samples.crd import log_partition

Arguments = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def batch_of(size: int) -> Batch:
    return Batch(torch.zeros(size), torch.zeros(size).long(), torch.arange(size))


def arguments(size: int, rows: int, others: int, dtype: torch.dtype = torch.float64) -> Arguments:
    units = (F.normalize(torch.randn(n, 8, dtype=dtype), dim=1) for n in (size, size, rows, rows))
    v_s, v_t, bank_s, bank_t = units
    chosen = torch.randint(rows, (size, 1 + others))
    return (v_s.requires_grad_(), v_t.requires_grad_()), (bank_s, bank_t, chosen)


def value_and_gradients(values: Tensor, student: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    weights = torch.linspace(1, 2, len(values), dtype=values.dtype)
    return values.detach(), *torch.autograd.grad(values @ weights, student)


def test_value_with_a_memory_of_two_rows() -> None:
    # τ = 1, D = 1, n = 2, K = 1: a = 1/2 and Z = 2 e^½, so o = exp(v M − ½) / 2 and o / a = exp(v M − ½). The memory is
    # (1, −1) for both; row 0 is the example's own. h = ln(1 + a / o_0) + ln(1 + o_1 / a), ε aside. With v_s = 1 the
    # products are 1 and −1: ln(1 + e^−½) + ln(1 + e^−3/2). With v_t = −1 they are −1 and 1, so the same with the signs
    # of the exponents turned.
    memory = torch.tensor([[1.0], [-1.0]])
    student = torch.tensor([[1.0]]), torch.tensor([[-1.0]])
    loss = CRD(temperature=1.0)(student, (memory, memory, torch.tensor([[0, 1]])), batch_of(1))
    expected = sum(math.log(1 + math.exp(x)) for x in (-0.5, -1.5, 1.5, 0.5))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_the_student_meets_the_teachers_memory_and_the_teacher_the_students() -> None:
    # One row in each memory would do if they were the same; here only v_s · M_t and v_t · M_s are 1, all else is 0.
    student = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    memories = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    chosen = torch.tensor([[0, 1]])
    right, wrong = (CRD()(student, (*banks, chosen), batch_of(1)) for banks in (memories, memories[::-1]))
    assert right.item() < wrong.item() - 10


@pytest.mark.parametrize("largest", [2**25, 70, 1])
def test_equals_the_naive_form(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crd, "_LARGEST", largest)  # whole, in parts of three examples, in parts of one
    torch.manual_seed(0)
    student, teacher = arguments(7, 23, 40)  # more draws than rows: some come twice
    ours = value_and_gradients(CRD()(student, teacher, batch_of(7)), student)
    expected = value_and_gradients(naive_crd(student, teacher), student)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_the_pair_itself_may_be_the_positive_one() -> None:
    # As if the last row of each memory were the example's other embedding, but with gradient to both.
    student, (bank_s, bank_t, _) = arguments(1, 11, 6)
    others = torch.randint(10, (1, 6))
    paired = torch.cat([bank_s[:10], student[0]]), torch.cat([bank_t[:10], student[1]])
    chosen = (torch.cat([torch.tensor([[row]]), others], 1) for row in (-1, 10))
    loss = CRD()(student, (bank_s, bank_t, next(chosen)), batch_of(1))
    expected = naive_crd(student, (*paired, next(chosen)))
    ours, theirs = value_and_gradients(loss, student), value_and_gradients(expected, student)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_a_row_left_out_costs_nothing() -> None:
    # What it would cost is ln((o + a + ε) / a), in each direction.
    student, (bank_s, bank_t, chosen) = arguments(4, 9, 5)
    whole = CRD()(student, (bank_s, bank_t, chosen), batch_of(4))
    left = chosen.clone()
    left[1, 3] = -1
    without = CRD()(student, (bank_s, bank_t, left), batch_of(4))
    rows = torch.stack([bank_t[chosen[1, 3]], bank_s[chosen[1, 3]]])
    products = (rows * torch.stack([student[0][1], student[1][1]])).sum(1)
    odds = (products / 0.07 - log_partition(9, 8, 0.07)).exp()
    expected = torch.zeros(4, dtype=torch.float64)
    expected[1] = ((odds + 5 / 9 + 1e-7) / (5 / 9)).log().sum().detach()
    torch.testing.assert_close((whole - without).detach(), expected, atol=1e-9, rtol=1e-9)


def test_the_partition_is_what_a_first_batch_estimates() -> None:
    # The public code's estimate: n times the mean of exp(M · v / τ) over a batch, the memory at its random start.
    torch.manual_seed(0)
    memory = torch.empty(20000, 128).uniform_(-1, 1) / math.sqrt(128 / 3)
    products = F.normalize(torch.randn(64, 128), dim=1) @ memory.T
    estimate = len(memory) * (products / 0.07).exp().mean()
    assert log_partition(20000, 128, 0.07) == pytest.approx(math.log(estimate), abs=0.02)


@pytest.fixture
def kept() -> Iterator[list[int]]:
    """Elements of every tensor that autograd keeps for the gradient."""
    sizes: list[int] = []

    def keep(x: Tensor) -> Tensor:
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        yield sizes


def test_nothing_of_the_memorys_size_is_kept_for_the_gradient(kept: list[int]) -> None:
    student, teacher = arguments(6, 500, 300, torch.float32)
    CRD()(student, teacher, batch_of(6)).sum().backward()
    assert kept
    assert max(kept) <= 6 * 8


def test_a_memory_in_another_precision_is_taken() -> None:
    (v_s, v_t), teacher = arguments(4, 9, 5, torch.float32)
    exact = CRD()((v_s.double(), v_t.double()), teacher, batch_of(4))
    torch.testing.assert_close(exact.float(), CRD()((v_s, v_t), teacher, batch_of(4)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wrong", [0, 1, 2, 3])
def test_what_is_not_of_the_head_is_refused(wrong: int) -> None:
    (v_s, v_t), (bank_s, bank_t, chosen) = arguments(4, 9, 5)
    student, teacher = [
        ((v_s, v_t[:, :7]), (bank_s, bank_t, chosen)),
        ((v_s, v_t), (bank_s, bank_t[:8], chosen)),
        ((v_s, v_t), (bank_s, bank_t, chosen[:, :1])),
        ((v_s, v_t), (bank_s, bank_t)),
    ][wrong]
    with pytest.raises(ValueError, match=r"^CRD compares .* Add head=Contrast\(examples=\.\.\.\), with"):
        CRD()(student, teacher, batch_of(4))  # type: ignore[arg-type]
