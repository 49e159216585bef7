"""Two processes with uneven shares of a split measure what one does, and what scikit-learn measures."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn

from distill.batch import Batch
from distill.data import Batches
from distill.evaluate import Predictions, evaluate
from distill.metrics import auroc, average_precision, delong, label_quality
from distill.taps import Tapped
from tests.processes import run_processes
from tests.tiny import on_cpu

EXAMPLES, LABELS = 41, 3


def answers() -> tuple[Tensor, Tensor]:
    """Logits (N, K) with ties, of the last label constant, and labels of which some are unknown."""
    generator = torch.Generator().manual_seed(5)
    truth = (torch.rand(EXAMPLES, LABELS, generator=generator) < 0.4).float()
    logits = (2 * torch.randn(EXAMPLES, LABELS, generator=generator) + truth).round()
    logits[:, -1] = 0.5
    return logits, truth.masked_fill(torch.rand(EXAMPLES, LABELS, generator=generator) < 0.2, torch.nan)


def shares(rank: int, processes: int) -> Iterator[Batch]:
    logits, labels = answers()
    batches = Batches(EXAMPLES, batch_size=EXAMPLES, micro_batch_size=6, rank=rank, processes=processes, shuffle=False)
    for keys in batches:
        index = torch.tensor([number for _, number in keys])
        yield Batch(logits[index], labels[index], index)


def in_process() -> tuple[Predictions, int]:
    accelerator = on_cpu()
    loader = list(shares(accelerator.process_index, accelerator.num_processes))
    predictions = evaluate(Tapped(nn.Identity(), ("logits",)), loader, accelerator)
    return predictions, sum(len(batch) for batch in loader)


@pytest.mark.slow
def test_two_processes_with_uneven_shares_measure_what_one_and_scikit_learn_do(tmp_path: Path) -> None:
    first, second = run_processes(in_process, 2, tmp_path)
    assert first[1] != second[1] and first[1] + second[1] == EXAMPLES
    logits, labels = answers()
    for predictions, _ in (in_process(), first, second):
        torch.testing.assert_close(predictions.labels, labels, rtol=0, atol=0, equal_nan=True)
        assert label_quality(predictions.logits, predictions.labels) == label_quality(logits, labels)
        assert predictions.quality() == label_quality(logits, labels)
        areas = auroc(predictions.logits, predictions.labels), average_precision(predictions.logits, predictions.labels)
        for label in range(LABELS):
            known = ~labels[:, label].isnan()
            given = labels[known, label], logits[known, label]
            assert areas[0][label].item() == pytest.approx(roc_auc_score(*given), abs=1e-6)
            assert areas[1][label].item() == pytest.approx(average_precision_score(*given), abs=1e-6)
        paired = delong(*predictions.logits[:, :2].unbind(1), predictions.labels[:, 0])
        assert paired == delong(logits[:, 0], logits[:, 1], labels[:, 0])
