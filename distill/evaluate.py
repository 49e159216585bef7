"""A model's answers to every example of a split, once each, whatever the number of processes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from distill import metrics
from distill.batch import Batch
from distill.losses.task import NOT_MASKED
from distill.measure import evaluating
from distill.numerics import gather_rows
from distill.taps import Tapped


@dataclass(frozen=True)
class Predictions:
    """Logits (N, K) in float32 and labels of a whole split, in the order of the data set, on the CPU.

    labels: int (N,), or float (N, K) where an example has several labels, NaN unknown.
    """

    logits: Tensor
    labels: Tensor

    @property
    def several(self) -> bool:
        """Whether an example may have several labels."""
        return self.labels.is_floating_point()

    def quality(self) -> dict[str, float]:
        """See `metrics.quality`, or `metrics.label_quality` for several labels."""
        return (metrics.label_quality if self.several else metrics.quality)(self.logits, self.labels)


@dataclass(frozen=True)
class Guesses:
    """What became of each hidden token of a whole split, in the order of the data set, on the CPU.

    losses: negative log likelihood in nats, float32 (M,). right: whether it was the likeliest, bool (M,).
    """

    losses: Tensor
    right: Tensor

    def quality(self) -> dict[str, float]:
        """See `metrics.guess_quality`."""
        return metrics.guess_quality(self.losses, self.right)


def evaluate(model: Tapped, loader: Iterable[Batch], accelerator: Accelerator) -> Predictions:
    """The predictions of a model that has the tap `logits`; the same on every process.

    loader: this process's share of the split; the shares together hold each example once. The model's buffers
    (BatchNorm's statistics, which each process keeps for itself) are first made those of the first process. The
    training state is put back.
    """
    logits, labels, index = list[Tensor](), list[Tensor](), list[Tensor]()

    def take(batch: Batch, of_batch: Tensor) -> None:
        logits.append(of_batch.float())
        labels.append(batch.labels)
        index.append(batch.index)

    _answer(model, loader, accelerator, take)
    whole = [gather_rows(torch.cat(rows).contiguous())[0].cpu() for rows in (logits, labels, index)]
    order = whole[2].argsort()
    assert torch.equal(whole[2][order], torch.arange(len(order))), "each example of the split is answered once"
    return Predictions(whole[0][order], whole[1][order])


def guess(model: Tapped, loader: Iterable[Batch], accelerator: Accelerator) -> Guesses:
    """What a masked language model makes of the hidden tokens, as `evaluate`.

    Its logits are over positions and a whole vocabulary, so only one batch's are held at a time.
    """
    losses, right, index, place = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()

    def take(batch: Batch, logits_BTV: Tensor) -> None:
        hidden_BT = batch.labels != NOT_MASKED
        logits_MV, labels_M = logits_BTV[hidden_BT].float(), batch.labels[hidden_BT]
        losses.append(F.cross_entropy(logits_MV, labels_M, reduction="none"))
        right.append((logits_MV.argmax(1) == labels_M).byte())  # gloo gathers no bool
        row, column = hidden_BT.nonzero().unbind(1)
        index.append(batch.index[row])
        place.append(column)

    _answer(model, loader, accelerator, take)
    whole = [gather_rows(torch.cat(rows).contiguous())[0].cpu() for rows in (losses, right, index, place)]
    order = whole[3].argsort(stable=True)
    order = order[whole[2][order].argsort(stable=True)]
    return Guesses(whole[0][order], whole[1][order].bool())


def _answer(
    model: Tapped, loader: Iterable[Batch], accelerator: Accelerator, take: Callable[[Batch, Tensor], None]
) -> None:
    """Give each batch, on the device, with the model's logits to `take`."""
    with evaluating(model), torch.no_grad():
        if accelerator.num_processes > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)
        for cpu_batch in loader:
            batch = cpu_batch.to(accelerator.device)
            with accelerator.autocast():
                logits = model(batch.inputs)["logits"]
            take(batch, logits)
