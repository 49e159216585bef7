"""The training step, and the loop around it. How a batch is cut or spread over processes does not change the update."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from distill.batch import Batch
from distill.clock import Stopwatch
from distill.heads import Remembers
from distill.numerics import gather_rows, whole_tensor
from distill.pair import BALANCE, Met, Teacher, Value
from distill.plan import Plan, compare
from distill.trainer.average import Average
from distill.trainer.buffers import Kept, kept_buffers, put_back
from distill.trainer.coupled import Coupled, couple, factors_of
from distill.trainer.finite import NotFinite, fault, finite_rows, mean_losses
from distill.trainer.gradients import Probe, Shared, as_line, norms_and_cosines
from distill.trainer.start import Start
from distill.weighting import NormFactors

LogLine = Mapping[str, object]


@dataclass
class Trainer:
    """Built objects only: it never sees a recipe.

    learner: as `accelerator.prepare` gave it; optimizer: likewise.
    learning_rate: the multiplier of each group's own rate, after a (fractional) number of epochs.
    clip: largest norm of the whole gradient; None for no clipping.
    average: exponential moving average of the student, updated after each step; None for none.
    shared: the layer at which the terms' gradients are compared; None where nobody asks.
    gradients_every: steps between two comparisons for the log; None for none.
    start: draws parameters back to where they began, as part of the gradient and not of the logged loss; None for not.
    skip_not_finite: updates in a row that may be left out where a loss or the gradient is NaN or infinite; None stops
        at the first. Each step then waits for the device once.
    """

    accelerator: Accelerator
    teacher: Teacher | None
    learner: nn.Module
    plan: Plan
    optimizer: Optimizer
    learning_rate: Callable[[float], float] = lambda epoch: 1.0
    clip: float | None = None
    average: Average | None = None
    shared: Shared | None = None
    gradients_every: int | None = None
    start: Start | None = None
    skip_not_finite: int | None = None
    steps: int = 0
    watch: Stopwatch = field(init=False)
    _pending: list[Tensor] = field(default_factory=list, init=False)
    _examples: int = field(default=0, init=False)
    _factors: Mapping[str, Tensor | float] = field(default_factory=dict, init=False)
    _gradients: tuple[Tensor, Tensor] | None = field(default=None, init=False)
    _left_out: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.watch = Stopwatch(self.accelerator.device)
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self._remembering = [module for module in self.learner.modules() if isinstance(module, Remembers)]
        self._norm_factors = [module for module in self.learner.modules() if isinstance(module, NormFactors)]

    def step(self, window: Sequence[Batch], epoch: float = 0.0) -> dict[str, Tensor]:
        """One update from a window's micro-batches; gives each term's mean over all examples, and the gradient norm.

        Losses are summed over the window and divided once by the number of examples over all processes, so neither
        ragged micro-batches nor uneven processes shift the update. Nothing here waits for the device, but where
        `skip_not_finite` is set the question whether the update counts. All processes see the same numbers and answer
        alike; one that is left out changes neither weights nor buffers, optimizer, average or memories.

        Raises:
            NotFinite: more updates in a row than `skip_not_finite` are not finite.
        """
        count = self._count(window)
        weights = {name: term.weight_at(epoch) for name, term in self.plan.items()}
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * self.learning_rate(epoch)
        kept = None if self.skip_not_finite is None else kept_buffers(self.learner)
        coupled = couple(self.plan, weights, window, self.learner, self._teach)
        probe = self._probe()
        sums: dict[str, Tensor] = dict(coupled.sums)
        for position, batch in enumerate(window):
            targets = coupled.targets[position] if coupled.targets else self._teach(batch)
            last = position == len(window) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.learner):
                outputs = self.learner(batch.inputs, targets, batch)
                losses = compare(coupled.alone, outputs, targets, batch)
                parts = self._weighted(weights, losses, coupled, position, outputs, batch)
                if probe is not None:
                    probe.add(parts, self._loss_scale())
                self.accelerator.backward(sum(parts.values()) * (self.accelerator.num_processes / count))
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach().sum()
        norm, means = self._gradient_norm(), self._reduced(sums, count)
        self._factors = factors_of(self.plan, outputs)
        row = torch.stack([*means.values(), whole_tensor(norm.detach()).float()])
        if kept is not None and not self._finite(row[None]).item():
            self._leave_out(row, kept)
        else:
            self._left_out = 0
            self._update(norm)
            if probe is not None:
                self._compare_gradients(probe, count, means)
        self._pending.append(row)
        self.steps += 1
        return {**means, "gradient_norm": row[-1]}

    def fit(
        self,
        windows: Callable[[int, int], Iterable[tuple[float, Sequence[Batch]]]],
        *,
        epochs: range,
        after_epoch: Callable[[int], bool],
        log: Callable[[LogLine], None],
        log_every: int = 50,
        tick: Callable[[int], None] = lambda examples: None,
        start_step: int = 0,
        after_step: Callable[[int, int], None] = lambda epoch, step: None,
    ) -> None:
        """Run epochs until their end, or until `after_epoch` answers True.

        windows: epoch and first step -> pairs of progress in epochs and the micro-batches of one step, on the device.
        after_epoch: validates, saves, decides; called with the number of the epoch that ended.
        log: gets one line of plain values every `log_every` steps and at the end of each epoch.
        tick: told the number of this process's examples after each step, for a progress bar.
        start_step: steps of the first epoch that were done before, in a run that goes on.
        after_step: called behind each step and its line of the log, with the epoch and its steps so far.

        Raises:
            NotFinite: a loss or the gradient norm is NaN or infinite, more often in a row than may be left out.
        """
        for epoch in epochs:
            self.learner.train()
            self.watch.read()
            progress, done = float(epoch), start_step if epoch == epochs[0] else 0
            for progress, window in self._waited(windows(epoch, done)):
                self.step(window, progress)
                done += 1
                self._examples += sum(len(batch) for batch in window)
                tick(sum(len(batch) for batch in window))
                if len(self._pending) >= log_every:
                    log(self._line(progress))
                after_step(epoch, done)
            if self._pending:
                log(self._line(progress))
            if after_epoch(epoch):
                return

    def unlogged(self) -> dict[str, object]:
        """What the next line of the log will tell of the steps since the last one, for a checkpoint between them.

        Raises:
            NotFinite: a loss or the gradient norm of these steps is NaN or infinite, and none may be left out.
        """
        rows = torch.stack(self._pending).cpu() if self._pending else None
        if rows is not None and self.skip_not_finite is None:
            self._left_in(rows)
        told = {"rows": rows, "examples": self._examples, "gradients": self._gradients}
        return {**told, "left_out": self._left_out}

    def go_on(self, unlogged: Mapping[str, Any]) -> None:
        """Take up what `unlogged` told, in a run that goes on."""
        rows, gradients = unlogged["rows"], unlogged["gradients"]
        self._pending = [] if rows is None else list(rows.to(self.accelerator.device).unbind())
        self._examples, self._gradients = unlogged["examples"], None if gradients is None else tuple(gradients)
        self._left_out = unlogged["left_out"]

    def _weighted(
        self,
        weights: Mapping[str, float],
        losses: Mapping[str, Tensor],
        coupled: Coupled,
        position: int,
        outputs: Mapping[str, Value | Met],
        batch: Batch,
    ) -> dict[str, Tensor]:
        """What each term adds to this micro-batch's total: weight times (factor · loss + penalty), summed."""
        parts = {name: weights[name] * loss.sum() for name, loss in losses.items()}
        balance = outputs.get(BALANCE)
        if not isinstance(balance, Tensor):
            return {**parts, **coupled.surrogates(position, outputs)}
        factors, penalties = (dict(zip(self.plan, row.unbind(), strict=True)) for row in balance)
        parts = {name: factors[name] * part for name, part in parts.items()}
        for name, surrogate in coupled.surrogates(position, outputs).items():
            # The surrogate has the factor in it; the factor's own gradient needs the loss, once a window.
            parts[name] = surrogate + (weights[name] * factors[name] * coupled.sums[name] if position == 0 else 0.0)
        return {name: part + weights[name] * penalties[name] * len(batch) for name, part in parts.items()}

    def _probe(self) -> Probe | None:
        due = self.gradients_every is not None and self.steps % self.gradients_every == 0
        return Probe(self.shared) if self.shared is not None and (due or self._norm_factors) else None

    def _loss_scale(self) -> float:
        return 1.0 if self.accelerator.scaler is None else float(self.accelerator.scaler.get_scale())

    def _compare_gradients(self, probe: Probe, count: Tensor | int, means: Mapping[str, Tensor]) -> None:
        gradients = probe.total()
        if self.accelerator.num_processes > 1:
            gradients = self.accelerator.reduce(gradients, reduction="sum")
        norms, cosines = norms_and_cosines(gradients / count)
        for module in self._norm_factors:
            assert self.shared is not None
            of_terms = dict(zip(self.shared.terms, norms.unbind(), strict=True))
            zero = torch.zeros_like(norms[0])
            losses = torch.stack([means[name] for name in self.plan])
            module.follow(losses, torch.stack([of_terms.get(name, zero) for name in self.plan]))
        if self.gradients_every is not None and self.steps % self.gradients_every == 0:
            self._gradients = norms, cosines

    def _teach(self, batch: Batch) -> dict[str, Tensor]:
        if self.teacher is None or not self.teacher.tapped.taps:
            return {}
        with self.watch.device("teacher"), self.accelerator.autocast():
            answers: dict[str, Tensor] = self.teacher(batch.inputs)
        return answers

    def _count(self, window: Sequence[Batch]) -> Tensor | int:
        own = sum(len(batch) for batch in window)
        if self.accelerator.num_processes == 1:
            return own
        count = torch.tensor(own, device=self.accelerator.device, dtype=torch.float32)
        reduced: Tensor = self.accelerator.reduce(count, reduction="sum")
        return reduced

    def _reduced(self, sums: Mapping[str, Tensor], count: Tensor | int) -> dict[str, Tensor]:
        stacked = torch.stack([sums[name].float() for name in self.plan])
        if self.accelerator.num_processes > 1:
            stacked = self.accelerator.reduce(stacked, reduction="sum")
        return dict(zip(self.plan, (stacked / count).unbind(), strict=True))

    def _gradient_norm(self) -> Tensor:
        self.accelerator.unscale_gradients(self.optimizer)
        if self.start is not None:
            self.start.pull()
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def _update(self, norm: Tensor) -> None:
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self.clip, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for module in self._remembering:
            module.remember(lambda rows: gather_rows(rows)[0])
        if self.average is not None:
            self.average.update()

    def _leave_out(self, row: Tensor, kept: Kept) -> None:
        """Make the step one that never was; its numbers go into the log."""
        if self._left_out == self.skip_not_finite:
            before = f"behind {self._left_out} left out in a row (skip_not_finite={self.skip_not_finite})"
            raise NotFinite(f"{fault(row, self.plan, self.steps + 1)}, {before}.")
        self._left_out += 1
        put_back(kept)
        self.optimizer.zero_grad(set_to_none=True)
        for module in self._remembering:
            module.forget()
        scaler = self.accelerator.scaler
        if scaler is not None:  # not an overflow of its making: the scale stays
            scaler.update(scaler.get_scale())

    def _waited(self, windows: Iterable[tuple[float, Sequence[Batch]]]) -> Iterator[tuple[float, Sequence[Batch]]]:
        iterator = iter(windows)
        while True:
            with self.watch.host("wait"):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    def _finite(self, rows: Tensor) -> Tensor:
        return finite_rows(rows, scaled=self.accelerator.scaler is not None)

    def _left_in(self, rows: Tensor) -> Tensor:
        """The rows of the last steps whose updates counted; of one that did not it warns, or stops."""
        finite = self._finite(rows)
        count = int((~finite).sum())
        if count == 0:
            return rows
        first = finite.tolist().index(False)
        found = fault(rows[first], self.plan, self.steps - len(rows) + first + 1)
        if self.skip_not_finite is None:
            raise NotFinite(f"{found}.")
        if self.accelerator.is_main_process:
            warnings.warn(f"{found}. Left out: {count} of the last {len(rows)} updates.", stacklevel=2)
        return rows[finite]

    def _line(self, progress: float) -> dict[str, object]:
        """The log's line for the steps since the last one; the only place where numbers are read from the device."""
        rows = torch.stack(self._pending).cpu()
        counted = self._left_in(rows)
        examples, self._examples = self._examples, 0
        self._pending.clear()
        factors = {name: float(self._factors[name]) for name in self.plan}
        weights = {name: term.weight_at(progress) * factors[name] for name, term in self.plan.items()}
        seconds, parts = self.watch.read()
        return {
            "step": self.steps,
            "epoch": round(progress, 6),
            **mean_losses(counted, weights),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "examples_per_second": examples * self.accelerator.num_processes / max(seconds, 1e-9),
            "teacher_share": parts.get("teacher", 0.0) / max(seconds, 1e-9),
            "wait_share": parts.get("wait", 0.0) / max(seconds, 1e-9),
            **({} if len(counted) == len(rows) else {"skipped": len(rows) - len(counted)}),
            **({} if all(factor == 1.0 for factor in factors.values()) else {"balance": factors}),
            **self._gradient_line(),
        }

    def _gradient_line(self) -> dict[str, object]:
        if self._gradients is None or self.shared is None:
            return {}
        norms, cosines = self._gradients
        self._gradients = None
        return as_line(self.shared.terms, self.shared.layer, norms, cosines)
