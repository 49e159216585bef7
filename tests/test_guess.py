"""A masked language model is judged by each hidden token once, in the order of the data, whatever the processes."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.evaluate import Guesses, guess
from distill.metrics import guess_quality
from distill.progress import Best
from distill.taps import Tapped
from tests.processes import run_processes
from tests.tiny import on_cpu

VOCABULARY = 11


class Answers(nn.Module):
    """Logits of each token by a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, VOCABULARY)
        self.table.weight.data = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0))

    def forward(self, input_ids: Tensor) -> Tensor:
        answers: Tensor = self.table(input_ids)
        return answers


def batch(numbers: list[int], length: int) -> Batch:
    """Of each text number n the tokens n, n + 1, ...; every third is hidden, and none of text 4."""
    ids = torch.stack([(torch.arange(length) + number) % VOCABULARY for number in numbers])
    labels = ((ids * 7 + 3) % VOCABULARY).masked_fill(torch.arange(length) % 3 != 1, -100)
    labels[torch.tensor(numbers) == 4] = -100
    return Batch({"input_ids": ids}, labels, torch.tensor(numbers))


def guessed(*batches: Batch) -> Guesses:
    return guess(Tapped(Answers(), ("logits",)), batches, on_cpu())


def test_tokens_come_in_the_order_of_the_data_and_equal_those_computed_one_by_one() -> None:
    found = guessed(batch([3, 0, 4], 5), batch([2, 1], 5))
    losses, right = [], []
    for number in range(5):
        one = batch([number], 5)
        assert not isinstance(one.inputs, Tensor)
        logits = Answers()(one.inputs["input_ids"])[0].detach().log_softmax(1)
        for place, label in enumerate(one.labels[0].tolist()):
            if label != -100:
                losses.append(-float(logits[place, label]))
                right.append(int(logits[place].argmax()) == label)
    assert len(losses) == 8  # two of each of four texts
    assert found.losses.tolist() == pytest.approx(losses, abs=1e-6)
    assert found.right.tolist() == right


def share(folder: Path) -> Guesses:
    rank = on_cpu().process_index
    return guessed(*([batch([3, 0, 4], 5)] if rank == 0 else [batch([2], 5), batch([1], 5)]))


@pytest.mark.slow
def test_two_processes_with_uneven_shares_guess_as_one_does(tmp_path: Path) -> None:
    whole = guessed(batch([0, 1, 2, 3, 4], 5))
    for found in run_processes(share, 2, tmp_path, tmp_path):
        assert torch.equal(found.losses, whole.losses) and torch.equal(found.right, whole.right)


def test_quality_is_over_the_tokens_alike() -> None:
    found = guess_quality(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([True, False, True, True]))
    assert found == {"accuracy": 0.75, "nll": 1.5, "perplexity": pytest.approx(math.exp(1.5))}
    assert guess_quality(torch.tensor([1e4]), torch.tensor([False]))["perplexity"] == math.inf


def test_guesses_without_a_token_are_refused() -> None:
    for losses, right in ((torch.empty(0), torch.empty(0)), (torch.ones(2), torch.ones(3)), (torch.ones(1, 1),) * 2):
        with pytest.raises(ValueError, match="at least one, got"):
            guess_quality(losses, right)


def test_the_epoch_of_a_masked_language_model_is_chosen_by_its_loss() -> None:
    lower_loss, right_more = Best(0, 1, 0.3, 1.0), Best(1, 2, 0.4, 1.1)
    assert lower_loss.beats(right_more, by="nll") and not right_more.beats(lower_loss, by="nll")
    assert right_more.beats(lower_loss) and not lower_loss.beats(right_more)
    assert lower_loss.beats(None, by="nll")
