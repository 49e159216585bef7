"""Every loss keeps the promises of one number for each example, a teacher at rest, and arithmetic that stays finite."""

import inspect
import os
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import distill.losses
from distill.losses import Coupled, Loss, Task
from tests.losses.contract import Inputs, Row, Value, each, flat, floats, mean_and_gradient
from tests.losses.rows import ROWS, SHARES

ROOT = Path(__file__).parents[2]
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.loss))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def lowered(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    student, teacher = (each(floats(lambda x: x.to(dtype)), value) for value in (inputs.student, inputs.teacher))
    return replace(inputs, student=student, teacher=teacher)


def assert_finite(loss: Loss, inputs: Inputs) -> None:
    value, gradients = mean_and_gradient(loss, inputs)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def assert_equal(row: Row, result: object, expected: object) -> None:
    message = lambda text: f"{row.loss}: {text}"  # noqa: E731
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-5, msg=message)


def inputs_of_ranks(inputs: Inputs) -> list[Inputs]:
    return [inputs.rows(slice(sum(SHARES[:rank]), sum(SHARES[: rank + 1]))) for rank in range(len(SHARES))]


def exported() -> list[type]:
    found = [x for x in vars(distill.losses).values() if is_dataclass(x) and isinstance(x, type)]
    assert found
    return found


@every_row
@pytest.mark.parametrize("size", [1, 2, 7])
def test_one_number_for_each_example(row: Row, size: int) -> None:
    inputs = row.make(size)
    loss = row.loss(inputs.student, inputs.teacher, inputs.batch)
    assert loss.shape == (size,)
    assert loss.dtype == torch.float64
    assert isinstance(row.loss, Loss)


@every_row
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_value_is_float32_and_the_gradient_finite_in_low_precision(row: Row, dtype: torch.dtype) -> None:
    inputs = lowered(row.make(6), dtype)
    assert row.loss(inputs.student, inputs.teacher, inputs.batch).dtype == torch.float32
    assert_finite(row.loss, inputs)


@every_row
def test_autocast_does_not_change_the_value(row: Row) -> None:
    inputs = lowered(row.make(6), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = row.loss(inputs.student, inputs.teacher, inputs.batch)
    torch.testing.assert_close(value, row.loss(inputs.student, inputs.teacher, inputs.batch), atol=1e-6, rtol=1e-6)


@every_row
def test_smallest_with_zero_gradient_at_its_minimum(row: Row) -> None:
    inputs = row.make(6)
    at_best = replace(inputs, student=row.best(inputs))
    loss = row.loss(at_best.student, at_best.teacher, at_best.batch)
    minimum = row.minimum(inputs) if callable(row.minimum) else torch.full_like(loss, row.minimum)
    torch.testing.assert_close(loss, minimum, atol=1e-6, rtol=0)
    for gradient in mean_and_gradient(row.loss, at_best)[1]:
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-7, rtol=0)
    assert row.loss(inputs.student, inputs.teacher, inputs.batch).mean() > minimum.mean() + 1e-4


@every_row
def test_permuting_the_batch_permutes_the_loss(row: Row) -> None:
    inputs, order = row.make(7), torch.randperm(7)
    permuted = inputs.rows(order)
    torch.testing.assert_close(
        row.loss(permuted.student, permuted.teacher, permuted.batch),
        row.loss(inputs.student, inputs.teacher, inputs.batch)[order],
    )


@every_row
def test_only_coupled_losses_depend_on_the_rest_of_the_batch(row: Row) -> None:
    inputs = row.make(6)
    whole = row.loss(inputs.student, inputs.teacher, inputs.batch)
    parts = [inputs.rows(slice(0, 2)), inputs.rows(slice(2, 6))]
    cut = torch.cat([row.loss(part.student, part.teacher, part.batch) for part in parts])
    assert torch.allclose(whole, cut) != isinstance(row.loss, Coupled)


@every_row
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_with_duplicate_rows(row: Row, dtype: torch.dtype) -> None:
    for order in ([0, 0, 1, 2, 2, 2], [0] * 6):
        inputs = lowered(row.make(6), dtype)
        alike = inputs.rows(torch.tensor(order))
        assert_finite(row.loss, alike)
        assert_finite(row.loss, replace(inputs, student=alike.student))
        assert_finite(row.loss, replace(inputs, teacher=alike.teacher))


@every_row
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_with_saturated_zero_and_constant_values(row: Row, dtype: torch.dtype) -> None:
    inputs = lowered(row.make(6), dtype)
    for change in (lambda x: 80 * x.sign(), torch.zeros_like, torch.ones_like):
        student, teacher = each(change, inputs.student), each(floats(change), inputs.teacher)
        assert_finite(row.loss, replace(inputs, student=student))
        assert_finite(row.loss, replace(inputs, teacher=teacher))
        assert_finite(row.loss, replace(inputs, student=student, teacher=teacher))
    saturated = each(lambda x: 80 * x.sign(), inputs.student)
    opposite = each(floats(lambda x: -80 * x.sign()), inputs.teacher)
    assert_finite(row.loss, replace(inputs, student=saturated, teacher=opposite))


@every_row
def test_finite_in_a_batch_of_one(row: Row) -> None:
    inputs = row.make(1)
    assert_finite(row.loss, inputs)
    if isinstance(row.loss, Coupled) and not row.own_part:  # one example has no relation
        value, gradients = mean_and_gradient(row.loss, inputs)
        assert abs(value) < 1e-12
        assert all(gradient.abs().max() < 1e-12 for gradient in gradients)


@every_row
def test_gradient_is_that_of_finite_differences(row: Row) -> None:
    inputs = row.make(5)

    def of_tensors(*tensors: Tensor) -> Tensor:
        student: Value = tensors[0] if isinstance(inputs.student, Tensor) else tensors
        return row.loss(student, inputs.teacher, inputs.batch)

    assert torch.autograd.gradcheck(of_tensors, tuple(x.requires_grad_() for x in flat(inputs.student)))


@every_row
def test_one_small_descent_step_lowers_the_loss(row: Row) -> None:
    inputs = row.make(6)
    before, gradients = mean_and_gradient(row.loss, inputs)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    moved = tuple(x - 1e-4 * gradient / norm for x, gradient in zip(flat(inputs.student), gradients, strict=True))
    student = moved[0] if isinstance(inputs.student, Tensor) else moved
    after = row.loss(student, inputs.teacher, inputs.batch).mean()
    # To first order the loss falls by the step times the gradient's norm.
    torch.testing.assert_close(before - after, 1e-4 * norm, rtol=0.05, atol=0)


@every_row
def test_no_gradient_reaches_the_teacher(row: Row) -> None:
    inputs = row.make(6)
    student = each(lambda x: x.clone().requires_grad_(), inputs.student)
    teacher = each(floats(lambda x: x.clone().requires_grad_()), inputs.teacher)
    row.loss(student, teacher, inputs.batch).sum().backward()
    assert all(x.grad is None for x in flat(teacher))
    assert all(x.grad is not None for x in flat(student))


@every_row
def test_arguments_are_left_as_they_were(row: Row) -> None:
    inputs = row.make(6)
    before = each(torch.clone, inputs.student), each(torch.clone, inputs.teacher)
    mean_and_gradient(row.loss, inputs)
    for now, then in zip((inputs.student, inputs.teacher), before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(flat(now), flat(then), strict=True))


@every_row
def test_settings_are_frozen_and_checked(row: Row) -> None:
    with pytest.raises(FrozenInstanceError):
        row.loss.anything = 1  # type: ignore[attr-defined]
    names = {field.name for field in fields(row.loss) if not isinstance(field.default, bool)}  # type: ignore[arg-type]
    assert set(row.refused) == names
    for name, values in row.refused.items():
        for value in values:
            with pytest.raises(ValueError, match=rf"{row.name}\.{name} must be .*, got "):
                type(row.loss)(**{name: value})


@every_row
def test_arguments_that_do_not_meet_are_refused_by_name(row: Row) -> None:
    inputs = row.make(4)
    one_less = inputs.rows(slice(0, 3))
    wrapped = (inputs.student, inputs.student) if isinstance(inputs.student, Tensor) else inputs.student[0]
    wrong = [(wrapped, inputs.teacher, inputs)]
    if isinstance(row.loss, Task):
        wrong.append((inputs.student, None, one_less))
    else:
        wrong += [(inputs.student, one_less.teacher, inputs), (inputs.student, None, inputs)]
    for student, teacher, source in wrong:
        with pytest.raises(ValueError, match=rf"^{row.name} (compares|takes) .*, got .*\. [A-Z].*\.$"):
            row.loss(student, teacher, source.batch)


@every_row
def test_a_task_loss_needs_no_teacher(row: Row) -> None:
    if isinstance(row.loss, Task):
        inputs = row.make(4)
        loss = row.loss(inputs.student, None, inputs.batch)
        torch.testing.assert_close(loss, row.loss(inputs.student, inputs.teacher, inputs.batch))


def test_two_processes_with_uneven_shares_equal_one_and_each_alone_with_local_scope(tmp_path: Path) -> None:
    batches = [lowered(row.make(sum(SHARES)), torch.float32) for row in ROWS]
    torch.save(batches, tmp_path / "inputs.pt")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.losses.rows"]
    ranks = range(len(SHARES))
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path)], cwd=ROOT, env=environment) for rank in ranks]
    try:
        assert [process.wait(120) for process in processes] == [0] * len(SHARES)
    finally:
        for process in processes:
            process.kill()
    results = [torch.load(tmp_path / f"rank{rank}.pt") for rank in ranks]
    for row, inputs, *shares in zip(ROWS, batches, *results, strict=True):
        values, gradients = zip(*(share for share, _ in shares), strict=True)
        together = sum(values), tuple(torch.cat(parts) for parts in zip(*gradients, strict=True))
        assert_equal(row, together, mean_and_gradient(row.loss, inputs))
        for alone, rows in zip((alone for _, alone in shares), inputs_of_ranks(inputs), strict=True):
            assert_equal(row, alone, mean_and_gradient(row.loss, rows))


@pytest.mark.parametrize("kind", exported(), ids=lambda kind: kind.__name__)
def test_every_exported_loss_has_a_row(kind: type) -> None:
    assert any(type(row.loss) is kind for row in ROWS)


@pytest.mark.parametrize("kind", exported(), ids=lambda kind: kind.__name__)
def test_its_file_states_source_formula_departures_and_setting(kind: type) -> None:
    text = inspect.getdoc(inspect.getmodule(kind))
    assert text is not None
    for part in (
        r"\b(19|20)\d\d, \"",
        r"arXiv",
        r"(section|sections|eq\.) \d",
        r"\n    L = ",
        r"\nDepartures: ",
        r"\nNeeds: ",
        r"\nCost: (light|moderate|heavy)",
    ):
        assert re.search(part, text), f"{kind.__name__}: no {part}"
    assert re.search(r"\nPaper setting: .*weight \d", text)
    assert inspect.getdoc(kind).splitlines()[0].endswith(".")
