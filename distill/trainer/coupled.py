"""Losses that relate the examples of a whole batch, when the batch comes in several micro-batches.

A first pass without gradient collects the tensors that such losses compare; the loss of the whole batch gives the
gradient at those tensors; in the pass that trains, each micro-batch adds the product of its own tensors with that
gradient. The update is then the one of the whole batch (Gao et al., 2021, arXiv:2101.06983, section 3.1), for a second
forward pass of the student. Where one micro-batch holds the whole batch there is no first pass.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.batch import Batch
from distill.clock import Stopwatch
from distill.pair import BALANCE, Met, Value
from distill.plan import Plan, compare
from distill.trainer.buffers import kept_buffers, put_back


@dataclass(frozen=True)
class Coupled:
    """What the first pass leaves to the second.

    alone: the terms that the second pass still computes.
    targets: the teacher's answers to each micro-batch, so that it is asked once only; empty where there was no first
    pass.
    gradients: for each coupled term and each of its tensors, the gradient of the weighted sum of losses, cut by
    micro-batch.
    sums: each coupled term's loss, summed over this process's examples, unweighted.
    """

    alone: Plan
    targets: Sequence[Mapping[str, Tensor]] = ()
    gradients: Mapping[str, Sequence[Sequence[Tensor]]] = field(default_factory=dict)
    sums: Mapping[str, Tensor] = field(default_factory=dict)

    def surrogates(self, position: int, outputs: Mapping[str, Value | Met]) -> dict[str, Tensor]:
        """For each coupled term, a scalar whose gradient at micro-batch `position` is that of its weighted loss."""
        return {
            name: torch.stack(
                [(x * cut[position]).sum() for x, cut in zip(_tensors(_student(outputs[name])), parts, strict=True)]
            ).sum()
            for name, parts in self.gradients.items()
        }


def couple(
    plan: Plan,
    weights: Mapping[str, float],
    window: Sequence[Batch],
    learner: nn.Module,
    teach: Callable[[Batch], Mapping[str, Tensor]],
    watch: Stopwatch,
) -> Coupled:
    """The first pass over a window; does nothing where no term couples examples or one micro-batch holds them all."""
    couples = {name: term for name, term in plan.items() if term.couples}
    if not couples or len(window) == 1:
        return Coupled(plan)
    targets = [teach(batch) for batch in window]
    with watch.part("forward"):
        outputs = _forward_without_trace(learner, window, targets)
    with watch.part("losses"):
        return _coupled(plan, couples, weights, window, targets, outputs)


def factors_of(plan: Plan, outputs: Mapping[str, Value | Met]) -> Mapping[str, Tensor | float]:
    """The factor of each term's weight that the learner's balance gives, without gradient; 1 where there is none."""
    if BALANCE not in outputs:
        return dict.fromkeys(plan, 1.0)
    balance = outputs[BALANCE]
    assert isinstance(balance, Tensor)
    return dict(zip(plan, balance[0].detach().unbind(), strict=True))


def weighted(
    plan: Plan,
    weights: Mapping[str, float],
    losses: Mapping[str, Tensor],
    coupled: Coupled,
    position: int,
    outputs: Mapping[str, Value | Met],
    batch: Batch,
) -> dict[str, Tensor]:
    """What each term adds to the total of micro-batch `position`: weight times (factor · loss + penalty), summed."""
    parts = {name: weights[name] * loss.sum() for name, loss in losses.items()}
    balance = outputs.get(BALANCE)
    if not isinstance(balance, Tensor):
        return {**parts, **coupled.surrogates(position, outputs)}
    factors, penalties = (dict(zip(plan, row.unbind(), strict=True)) for row in balance)
    parts = {name: factors[name] * part for name, part in parts.items()}
    for name, surrogate in coupled.surrogates(position, outputs).items():
        # The surrogate has the factor in it; the factor's own gradient needs the loss, once a window.
        parts[name] = surrogate + (weights[name] * factors[name] * coupled.sums[name] if position == 0 else 0.0)
    return {name: part + weights[name] * penalties[name] * len(batch) for name, part in parts.items()}


def _coupled(
    plan: Plan,
    couples: Plan,
    weights: Mapping[str, float],
    window: Sequence[Batch],
    targets: Sequence[Mapping[str, Tensor]],
    outputs: Sequence[Mapping[str, Value | Met]],
) -> Coupled:
    leaves = {name: _joined([_student(part[name]) for part in outputs], learned=True) for name in couples}
    whole = {tap: torch.cat([part[tap] for part in targets]) for tap in targets[0]}
    sides = {name: _met(leaf, [part[name] for part in outputs]) for name, leaf in leaves.items()}
    losses = compare(couples, sides, whole, _joined_batch(window))
    flat = [tensor for value in leaves.values() for tensor in _tensors(value)]
    factors = factors_of(plan, outputs[0])
    total = torch.stack([weights[name] * factors[name] * loss.sum() for name, loss in losses.items()]).sum()
    gradients = iter(torch.autograd.grad(total, flat))
    sizes = [len(batch) for batch in window]
    return Coupled(
        alone={name: term for name, term in plan.items() if name not in couples},
        targets=targets,
        gradients={
            name: [torch.split(next(gradients), sizes) for _ in _tensors(value)] for name, value in leaves.items()
        },
        sums={name: loss.detach().sum() for name, loss in losses.items()},
    )


def _forward_without_trace(
    learner: nn.Module, window: Sequence[Batch], targets: Sequence[Mapping[str, Tensor]]
) -> list[Mapping[str, Value | Met]]:
    """The learner's outputs; its buffers and the random state stay, so that the second pass sees the same."""
    kept = kept_buffers(learner)
    device = window[0].index.device
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        outputs = [learner(batch.inputs, target, batch) for batch, target in zip(window, targets, strict=True)]
    put_back(kept)
    return outputs


def _student(value: Value | Met) -> Value:
    return value.student if isinstance(value, Met) else value


def _met(student: Value, parts: Sequence[Value | Met]) -> Value | Met:
    """The joined student beside the joined teacher's side, where a head maps both."""
    sides = [part.teacher for part in parts if isinstance(part, Met) and part.teacher is not None]
    return Met(student, _joined(sides, learned=False)) if sides else student


def _tensors(value: Value) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else value


def _joined(parts: Sequence[Value], *, learned: bool) -> Value:
    columns = zip(*map(_tensors, parts), strict=True)
    leaves = tuple(torch.cat(column).requires_grad_(learned) for column in columns)
    return leaves[0] if isinstance(parts[0], Tensor) else leaves


def _joined_batch(window: Sequence[Batch]) -> Batch:
    """The batch's labels, numbers and masks; the inputs are the first micro-batch's, since no loss reads them.

    Micro-batches of texts may be padded to different lengths: the shorter masks go on with positions that don't count.
    """
    masks = [batch.mask for batch in window if batch.mask is not None]
    longest = max((mask.shape[1] for mask in masks if mask.ndim > 1), default=0)
    masks = [F.pad(mask, (0, longest - mask.shape[1])) if mask.ndim == 2 else mask for mask in masks]
    labels = torch.cat([batch.labels for batch in window])
    index = torch.cat([batch.index for batch in window])
    return Batch(window[0].inputs, labels, index, torch.cat(masks) if masks else None)
