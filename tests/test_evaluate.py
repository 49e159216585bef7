"""A model's answers to a split, once each and in order, whatever the number of processes; the model stays as it was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from distill.batch import Batch
from distill.build import answering, evaluation_loader
from distill.data import Batches
from distill.evaluate import Predictions, evaluate
from distill.taps import Tapped
from tests.processes import run_processes
from tests.tiny import on_cpu, parts_of, plain_recipe

EXAMPLES = 7


class Centred(nn.Module):
    """Answers (x - m, x + m) with m the running mean of a BatchNorm whose variance is 1: exact in whole numbers."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1, eps=0.0, affine=False)
        self.norm.running_mean.fill_(mean)

    def forward(self, x: Tensor) -> Tensor:
        centred = self.norm(x)
        return torch.cat([centred, centred + 2 * self.norm.running_mean], 1)


def shares(rank: int, processes: int, micro_batch_size: int | None = None) -> Iterator[Batch]:
    """This process's batches of the examples 0..6, of value 10, 11, ..., and of class 0, 1, 0, 1, ..."""
    batches = Batches(
        EXAMPLES,
        batch_size=EXAMPLES,
        micro_batch_size=micro_batch_size,
        rank=rank,
        processes=processes,
        shuffle=False,
    )
    for keys in batches:
        index = torch.tensor([number for _, number in keys])
        yield Batch(10.0 + index.float().unsqueeze(1), index % 2, index)


EXPECTED = torch.tensor([[10.0 + n - 3, 10.0 + n + 3] for n in range(EXAMPLES)])
LABELS = torch.tensor([0, 1, 0, 1, 0, 1, 0])


def in_process(micro_batch_size: int | None) -> dict[str, Any]:
    accelerator = on_cpu()
    rank = accelerator.process_index
    # Each process has its own statistics, as BatchNorm has in training; the first one's hold.
    model = Centred(3.0 if rank == 0 else 8.0)
    loader = list(shares(rank, accelerator.num_processes, micro_batch_size))
    predictions = evaluate(Tapped(model, ("logits",)), loader, accelerator)
    parts = parts_of(plain_recipe())
    tapped = answering(parts.student, parts.student_view, accelerator)
    whole = evaluate(tapped, evaluation_loader(parts, "test", accelerator), accelerator)
    return {
        "logits": predictions.logits,
        "labels": predictions.labels,
        "own": sum(len(batch) for batch in loader),
        "mean": model.norm.running_mean,
        "net": whole.logits,
        "net labels": whole.labels,
    }


def test_two_processes_with_uneven_shares_answer_as_one_does(tmp_path: Path) -> None:
    first, second = run_processes(in_process, 2, tmp_path, 2)
    assert (first["own"], second["own"]) == (4, 3)
    alone = in_process(2)
    for result in (alone, first, second):
        assert torch.equal(result["logits"], EXPECTED)
        assert torch.equal(result["labels"], LABELS)
        assert float(result["mean"]) == 3.0
        assert torch.equal(result["net labels"], alone["net labels"])
        torch.testing.assert_close(result["net"], alone["net"], rtol=1e-5, atol=1e-6)
    assert torch.equal(first["net"], second["net"])


def test_answers_are_in_the_order_of_the_data_set() -> None:
    accelerator = on_cpu()
    batches = [batch.rows(torch.arange(len(batch) - 1, -1, -1)) for batch in shares(0, 1, 3)][::-1]
    predictions = evaluate(Tapped(Centred(3.0), ("logits",)), batches, accelerator)
    assert torch.equal(predictions.logits, EXPECTED)
    assert torch.equal(predictions.labels, LABELS)


def test_a_missing_example_is_noticed() -> None:
    batches = [batch.rows(slice(1, EXAMPLES)) for batch in shares(0, 1)]
    with pytest.raises(AssertionError, match="each example of the split is answered once"):
        evaluate(Tapped(Centred(0.0), ("logits",)), batches, on_cpu())


def test_an_example_that_comes_twice_is_noticed() -> None:
    batches = [*shares(0, 1), *shares(0, 1)]
    with pytest.raises(AssertionError, match="each example of the split is answered once"):
        evaluate(Tapped(Centred(0.0), ("logits",)), batches, on_cpu())


def evaluate_parts() -> tuple[nn.Module, Predictions]:
    parts, accelerator = parts_of(plain_recipe()), on_cpu()
    parts.student.train()
    parts.student.layer1.eval()
    parts.student.layer2[1].eval()
    tapped = answering(parts.student, parts.student_view, accelerator)
    loader = evaluation_loader(parts, "validation", accelerator)
    return parts.student, evaluate(tapped, loader, accelerator)


def test_each_module_is_in_its_own_mode_again() -> None:
    student, _ = evaluate_parts()
    evaluated = {name for name, module in student.named_modules() if not module.training}
    assert evaluated == {"layer1", "layer1.0", "layer1.1", "layer1.2", "layer2.1"}


def test_evaluation_draws_no_dropout_and_keeps_the_statistics() -> None:
    torch.manual_seed(1)
    student, first = evaluate_parts()
    torch.manual_seed(2)
    _, second = evaluate_parts()
    assert torch.equal(first.logits, second.logits)
    counts = [buffer for name, buffer in student.named_buffers() if name.endswith("num_batches_tracked")]
    assert len(counts) == 2 and not any(counts)


def test_answers_in_half_precision_come_in_float32() -> None:
    AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(cpu=True, mixed_precision="bf16")
        answered: list[torch.dtype] = []
        model = nn.Sequential(nn.Linear(1, 2))
        model[0].register_forward_hook(lambda module, args, output: answered.append(output.dtype))
        predictions = evaluate(Tapped(model, ("logits",)), shares(0, 1), accelerator)
        assert answered == [torch.bfloat16] and predictions.logits.dtype == torch.float32
        assert not predictions.logits.requires_grad
    finally:
        AcceleratorState._reset_state()


def test_the_whole_of_each_split_is_answered() -> None:
    parts, accelerator = parts_of(plain_recipe(micro_batch_size=5)), on_cpu()
    tapped = answering(parts.student, parts.student_view, accelerator)
    for split, examples in (("validation", parts.splits.validation), ("test", parts.splits.test)):
        predictions = evaluate(tapped, evaluation_loader(parts, split, accelerator), accelerator)
        assert torch.equal(predictions.labels, examples.labels)
        assert predictions.logits.shape == (12, 3)
