"""A model's answers to every example of a split, once each, whatever the number of processes."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from distill.batch import Batch
from distill.measure import evaluating
from distill.numerics import gather_rows
from distill.taps import Tapped


@dataclass(frozen=True)
class Predictions:
    """Logits (N, K) in float32 and labels of a whole split, in the order of the data set, on the CPU."""

    logits: Tensor
    labels: Tensor


def evaluate(model: Tapped, loader: Iterable[Batch], accelerator: Accelerator) -> Predictions:
    """The predictions of a model that has the tap `logits`; the same on every process.

    loader: this process's share of the split; the shares together hold each example once. The model's buffers
    (BatchNorm's statistics, which each process keeps for itself) are first made those of the first process. The
    training state is put back.
    """
    with evaluating(model), torch.no_grad():
        if accelerator.num_processes > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)
        logits, labels, index = [], [], []
        for cpu_batch in loader:
            batch = cpu_batch.to(accelerator.device)
            with accelerator.autocast():
                logits.append(model(batch.inputs)["logits"].float())
            labels.append(batch.labels)
            index.append(batch.index)
        whole = [gather_rows(torch.cat(rows).contiguous())[0].cpu() for rows in (logits, labels, index)]
    order = whole[2].argsort()
    assert torch.equal(whole[2][order], torch.arange(len(order))), "each example of the split is answered once"
    return Predictions(whole[0][order], whole[1][order])
