"""Three processes with uneven shares count, weigh, average and remember what one does: all that keeps a sum or a state.

What two processes do stands beside the tests of each part; here the shares differ by more, and one may be empty.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.data import Batches
from distill.evaluate import Predictions, evaluate
from distill.heads import Contrast
from distill.losses import CRD, CrossEntropy
from distill.metrics import label_quality, quality
from distill.plan import Plan, Term, connect
from distill.taps import Tapped
from distill.trainer import Average, Trainer
from tests.metrics.test_processes import answers
from tests.metrics.test_processes import in_process as label_predictions
from tests.processes import run_processes
from tests.test_similarity import sums_of
from tests.tiny import on_cpu
from tests.trainer import test_balance, test_step
from tests.trainer.test_step import Net, batch_of, cut

pytestmark = pytest.mark.slow
# Of the 8 examples of a step, and how each process cuts its own.
SHARES = ((3, 1), (1, 1), (1, 1))
# The batches of which a split's similarity is summed: one process has two of them, one has one, one has none.
CKA_BATCHES = ((0, 4), (4, 15), (15, 23))
CKA_SHARES = (CKA_BATCHES[:2], (), CKA_BATCHES[2:])
ROWS = 8
MEMORIES: Plan = {
    "task": Term(CrossEntropy()),
    "bank": Term(CRD(), student="hidden", teacher="hidden", head=Contrast(examples=ROWS, width=4, negatives=5)),
    "queue": Term(CRD(), student="hidden", teacher="hidden", head=Contrast(examples=None, width=4, negatives=11)),
}


@dataclass(frozen=True)
class Found:
    """What one process has in the end."""

    classes: Predictions
    labels: Predictions
    evaluated: int
    cka: Tensor
    update: Tensor
    gradients: Mapping[str, Any]
    balances: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    memories: Mapping[str, Tensor]


def class_answers() -> tuple[Tensor, Tensor]:
    """Logits (23, 4) in whole numbers, with ties, and classes."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(-3, 4, (23, 4), generator=generator).float(), torch.randint(0, 4, (23,), generator=generator)


def class_predictions() -> tuple[Predictions, int]:
    """What `evaluate` puts together out of this process's share, and how many examples that has."""
    accelerator, (logits, labels) = on_cpu(), class_answers()
    batches = Batches(
        len(labels),
        batch_size=len(labels),
        micro_batch_size=3,
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
        shuffle=False,
    )
    loader = [Batch(logits[index], labels[index], index) for index in (torch.tensor(keys)[:, 1] for keys in batches)]
    return evaluate(Tapped(nn.Identity(), ("logits",)), loader, accelerator), sum(map(len, loader))


def remembered(windows: Sequence[Sequence[Batch]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The student's average and the state of bank and queue, behind a step for each window."""
    accelerator = on_cpu()
    torch.manual_seed(0)
    student, teacher = Net(4), Net(8)
    guide, learner = connect(teacher, student, MEMORIES, batch_of(4))
    average = Average(learner, 0.5)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.05)
    prepared, optimizer = accelerator.prepare(learner, optimizer)
    trainer = Trainer(accelerator, guide, prepared, MEMORIES, optimizer, average=average)
    for window in windows:
        trainer.step(window)
    memories = {name: tensor.clone() for name, tensor in learner.heads.named_buffers()}
    return copy.deepcopy(average.shadow), memories


def own_windows(rank: int) -> list[list[Batch]]:
    """Three steps of 8, 8 and 3 examples, of which this process has its share."""
    whole, ragged = batch_of(8), batch_of(8).rows(torch.tensor([6, 1, 4]))
    start, size = sum(sum(share) for share in SHARES[:rank]), sum(SHARES[rank])
    share = cut(whole.rows(slice(start, start + size)), SHARES[rank])
    return [share, share, [ragged.rows(slice(rank, rank + 1))]]


def whole_windows() -> list[list[Batch]]:
    return [[batch_of(8)], [batch_of(8)], [batch_of(8).rows(torch.tensor([6, 1, 4]))]]


def in_process() -> Found:
    rank = on_cpu().process_index
    classes, evaluated = class_predictions()
    gradients, balances = test_balance.in_process(SHARES)
    average, memories = remembered(own_windows(rank))
    return Found(
        classes=classes,
        labels=label_predictions()[0],
        evaluated=evaluated,
        cka=sums_of(CKA_SHARES[rank]).over_ranks().cka(),
        update=test_step.in_process(SHARES),
        gradients=gradients,
        balances=balances,
        average=average,
        memories=memories,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    return run_processes(in_process, 3, tmp_path_factory.mktemp("processes"))


def test_metrics_count_each_example_once(found: list[Found]) -> None:
    """To the bit: accuracy, calibration, and AUROC with ties and unknown labels."""
    assert [one.evaluated for one in found] == [8, 8, 7]
    logits, classes = class_answers()
    label_logits, labels = answers()
    for one in found:
        assert torch.equal(one.classes.logits, logits) and torch.equal(one.classes.labels, classes)
        assert one.classes.quality() == quality(logits, classes)
        assert one.labels.quality() == label_quality(label_logits, labels)
    right = int((logits.argmax(1) == classes).sum())
    assert found[0].classes.quality()["accuracy"] == pytest.approx(right / 23, abs=1e-7)


def test_cka_is_of_all_batches_though_a_process_has_none(found: list[Found]) -> None:
    expected = sums_of(CKA_BATCHES).cka()
    for one in found:
        torch.testing.assert_close(one.cka, expected, rtol=1e-12, atol=1e-12)


def test_three_processes_make_the_same_clipped_update_as_one(found: list[Found]) -> None:
    expected, _ = test_step.after_two_steps((8,), clip=1.0)
    for one in found:
        assert torch.equal(one.update, found[0].update)
    torch.testing.assert_close(found[0].update, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("balance", test_balance.BALANCES)
def test_learned_factors_are_those_of_one_process(balance: str, found: list[Found]) -> None:
    expected, _ = test_balance.after_three_steps(balance, (8,), every=1)
    for one in found:
        torch.testing.assert_close(one.balances[balance], expected, rtol=0, atol=1e-5, equal_nan=True)
        torch.testing.assert_close(one.balances[balance], found[0].balances[balance], rtol=0, atol=0, equal_nan=True)


def test_the_gradients_compared_are_those_of_the_whole_batch(found: list[Found]) -> None:
    for one in found:
        test_balance.assert_as_expected(dict(one.gradients))


def test_the_average_is_that_of_one_process(found: list[Found]) -> None:
    expected, _ = remembered(whole_windows())
    for one in found:
        torch.testing.assert_close(one.average, found[0].average, rtol=0, atol=0)
    torch.testing.assert_close(found[0].average, expected, rtol=0, atol=1e-5)


def test_bank_and_queue_are_those_of_one_process(found: list[Found]) -> None:
    """What is drawn, counted and labelled exactly; the queue of 11 rows went round: 8 + 8 + 3 embeddings came."""
    _, expected = remembered(whole_windows())
    assert int(expected["queue.memory.written"]) == 19 and int(expected["bank.memory.updates"]) == 3
    for one in found:
        assert one.memories.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(one.memories[name], found[0].memories[name]), name
            close = {"rtol": 0, "atol": 1e-5 if tensor.is_floating_point() else 0}
            torch.testing.assert_close(one.memories[name], tensor, **close)
