"""The training step, and the loop around it. How a batch is cut or spread over processes does not change the update."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from distill.batch import Batch
from distill.clock import Stopwatch
from distill.heads import Remembers
from distill.numerics import gather_rows, whole_tensor
from distill.pair import Teacher
from distill.plan import Plan, compare
from distill.taps import Tapped
from distill.teacher_cache import Cache
from distill.trainer.average import Average
from distill.trainer.buffers import Kept, kept_buffers, put_back
from distill.trainer.coupled import couple, factors_of, weighted
from distill.trainer.finite import NotFinite, fault
from distill.trainer.gradients import Probe, Shared, norms_and_cosines
from distill.trainer.lines import Lines
from distill.trainer.start import Start
from distill.trainer.totals import examples_in, means_of
from distill.weighting import NormFactors
from distill.zero import Zero

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
    cache: where the teacher's answers are kept; None where it is asked each time.
    zero: takes the gradients, clips and updates in shares; the learner is its engine. None where the trainer does.
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
    cache: Cache | None = None
    zero: Zero | None = None
    steps: int = 0
    watch: Stopwatch = field(init=False)
    lines: Lines = field(init=False)
    _left_out: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.watch = Stopwatch(self.accelerator.device)
        self.lines = Lines(self.accelerator, self.plan, self.shared, lenient=self.skip_not_finite is not None)
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self._remembering = [module for module in self.learner.modules() if isinstance(module, Remembers)]
        self._replayed = any(module.replayed for module in self.learner.modules() if isinstance(module, Tapped))
        self._norm_factors = [module for module in self.learner.modules() if isinstance(module, NormFactors)]
        if self.accelerator.scaler is not None and isinstance(self.optimizer, AcceleratedOptimizer):
            # A fused optimizer would be told of an overflow and skip by itself, which nobody sees: the scaler asks for
            # this and skips the step where it is not there.
            vars(self.optimizer.optimizer).pop("_step_supports_amp_scaling", None)

    def step(self, window: Sequence[Batch], epoch: float = 0.0) -> dict[str, Tensor]:
        """One update from a window's micro-batches; gives each term's mean over all examples, and the gradient norm.

        Losses are summed over the window and divided once by the number of examples over all processes, so neither
        ragged micro-batches nor uneven processes shift the update. Nothing here waits for the device, but where
        `skip_not_finite` is set the question whether the update counts. All processes see the same numbers and answer
        alike; one that is left out changes neither weights nor buffers, optimizer, average or memories.

        Raises:
            NotFinite: more updates in a row than `skip_not_finite` are not finite.
        """
        count = examples_in(window, self.accelerator)
        weights = {name: term.weight_at(epoch) for name, term in self.plan.items()}
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * self.learning_rate(epoch)
        kept = None if self.skip_not_finite is None else kept_buffers(self.learner)
        coupled = couple(self.plan, weights, window, self.learner, self._teach, self.watch)
        probe = self._probe()
        sums: dict[str, Tensor] = dict(coupled.sums)
        for position, batch in enumerate(window):
            targets = coupled.targets[position] if coupled.targets else self._teach(batch)
            with self._adding(last=position == len(window) - 1):
                with self.watch.part("forward"):
                    outputs = self.learner(batch.inputs, targets, batch)
                with self.watch.part("losses"):
                    losses = compare(coupled.alone, outputs, targets, batch)
                    parts = weighted(self.plan, weights, losses, coupled, position, outputs, batch)
                with self.watch.part("backward"):
                    if probe is not None:
                        probe.add(parts, self._loss_scale())
                    self._backward(sum(parts.values()) * (self.accelerator.num_processes / count))
                    if self._replayed and position == 0 < len(window) - 1:
                        self._own_gradients()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach().sum()
        self.lines.factors = factors_of(self.plan, outputs)
        with self.watch.part("optimizer"):
            norm = self._gradient_norm() if self.zero is None else self.zero.step()
            means = means_of(sums, self.plan, count, self.accelerator)
            row = torch.stack([*means.values(), whole_tensor(norm.detach()).float()])
            if kept is not None and not self.lines.finite(row[None]).item():
                self._leave_out(row, kept)
            else:
                self._left_out = 0
                self._update(norm)
                if probe is not None:
                    self._compare_gradients(probe, count, means)
        self.lines.rows.append(row)
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
                examples = sum(len(batch) for batch in window)
                self.lines.examples += examples
                tick(examples)
                if len(self.lines.rows) >= log_every:
                    log(self._line(progress))
                after_step(epoch, done)
            if self.lines.rows:
                log(self._line(progress))
            if after_epoch(epoch):
                return

    def unlogged(self) -> dict[str, object]:
        """What the next line of the log will tell of the steps since the last one, for a checkpoint between them.

        Raises:
            NotFinite: a loss or the gradient norm of these steps is NaN or infinite, and none may be left out.
        """
        return {**self.lines.unlogged(self.steps), "left_out": self._left_out}

    def go_on(self, unlogged: Mapping[str, Any]) -> None:
        """Take up what `unlogged` told, in a run that goes on."""
        self.lines.go_on(unlogged)
        self._left_out = unlogged["left_out"]

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
            self.lines.gradients = norms, cosines

    def _teach(self, batch: Batch) -> dict[str, Tensor]:
        if self.teacher is None or not self.teacher.tapped.taps:
            return {}
        kept = batch.kept
        with self.watch.part("teacher"):
            if self.cache is not None and kept is not None and kept.rows is not None:
                return self.cache.read(kept)
            with self.accelerator.autocast():
                answers: dict[str, Tensor] = self.teacher(batch.inputs)
            return answers if self.cache is None or kept is None else self.cache.add(kept, answers)

    def _adding(self, *, last: bool) -> AbstractContextManager[None]:
        """In which a micro-batch adds its gradient; those of all processes are taken together behind the last one."""
        if self.zero is not None:
            self.zero.begin(last=last)
            return nullcontext()
        whole: AbstractContextManager[None] = nullcontext() if last else self.accelerator.no_sync(self.learner)
        return whole

    def _backward(self, loss: Tensor) -> None:
        if self.zero is None:
            self.accelerator.backward(loss)
        else:
            self.zero.backward(loss)

    def _own_gradients(self) -> None:
        """Move the gradients out of the memory that a recording wrote them to, and writes the next ones to."""
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad = parameter.grad.clone()

    def _gradient_norm(self) -> Tensor:
        self.accelerator.unscale_gradients(self.optimizer)
        if self.start is not None:
            self.start.pull()
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def _update(self, norm: Tensor) -> None:
        if self.zero is None:
            if self.clip is not None:
                torch.nn.utils.clip_grads_with_norm_(self._parameters, self.clip, norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        skipped = getattr(self.optimizer, "step_was_skipped", False)  # by loss scaling, which found an overflow
        for module in self._remembering:
            if skipped:
                module.forget()
            else:
                module.remember(lambda rows: gather_rows(rows)[0])
        if self.average is not None and not skipped:
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
            with self.watch.part("wait"):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    def _line(self, progress: float) -> LogLine:
        return self.lines.line(self.steps, progress, self.optimizer.param_groups[0]["lr"], self.watch.read())
