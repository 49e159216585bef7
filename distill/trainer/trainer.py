"""The training step, and the loop around it. How a batch is cut or spread over processes does not change the update."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from distill.batch import Batch
from distill.clock import Stopwatch
from distill.pair import Teacher
from distill.plan import Plan, compare
from distill.trainer.average import Average
from distill.trainer.coupled import couple

LogLine = Mapping[str, object]


class NotFinite(ValueError):
    """A loss or a gradient became NaN or infinite; names the term and the step."""


@dataclass
class Trainer:
    """Built objects only: it never sees a recipe.

    learner: as `accelerator.prepare` gave it; optimizer: likewise.
    learning_rate: the multiplier of each group's own rate, after a (fractional) number of epochs.
    clip: largest norm of the whole gradient; None for no clipping.
    average: exponential moving average of the student, updated after each step; None for none.
    """

    accelerator: Accelerator
    teacher: Teacher | None
    learner: nn.Module
    plan: Plan
    optimizer: Optimizer
    learning_rate: Callable[[float], float] = lambda epoch: 1.0
    clip: float | None = None
    average: Average | None = None
    steps: int = 0
    watch: Stopwatch = field(init=False)
    _pending: list[Tensor] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.watch = Stopwatch(self.accelerator.device)
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]

    def step(self, window: Sequence[Batch], epoch: float = 0.0) -> dict[str, Tensor]:
        """One update from a window's micro-batches; gives each term's mean over all examples, and the gradient norm.

        Losses are summed over the window and divided once by the number of examples over all processes, so neither
        ragged micro-batches nor uneven processes shift the update. Nothing here waits for the device.
        """
        count = self._count(window)
        weights = {name: term.weight_at(epoch) for name, term in self.plan.items()}
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * self.learning_rate(epoch)
        coupled = couple(self.plan, weights, window, self.learner, self._teach)
        sums: dict[str, Tensor] = dict(coupled.sums)
        for position, batch in enumerate(window):
            targets = coupled.targets[position] if coupled.targets else self._teach(batch)
            last = position == len(window) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.learner):
                outputs = self.learner(batch.inputs)
                losses = compare(coupled.alone, outputs, targets, batch)
                total = coupled.surrogate(position, outputs) + sum(
                    weights[name] * loss.sum() for name, loss in losses.items()
                )
                self.accelerator.backward(total * (self.accelerator.num_processes / count))
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach().sum()
        norm = self._update()
        means = self._reduced(sums, count)
        self._pending.append(torch.stack([*means.values(), norm]))
        self.steps += 1
        return {**means, "gradient_norm": norm}

    def fit(
        self,
        windows: Callable[[int], Iterable[tuple[float, Sequence[Batch]]]],
        *,
        epochs: range,
        after_epoch: Callable[[int], bool],
        log: Callable[[LogLine], None],
        log_every: int = 50,
        tick: Callable[[int], None] = lambda examples: None,
    ) -> None:
        """Run epochs until their end, or until `after_epoch` answers True.

        windows: epoch -> pairs of progress in epochs and the micro-batches of one step, on the device.
        after_epoch: validates, saves, decides; called with the number of the epoch that ended.
        log: gets one line of plain values every `log_every` steps and at the end of each epoch.
        tick: told the number of this process's examples after each step, for a progress bar.

        Raises:
            NotFinite: a loss or the gradient norm is NaN or infinite.
        """
        for epoch in epochs:
            self.learner.train()
            self.watch.read()
            examples, progress = 0, float(epoch)
            for progress, window in self._waited(windows(epoch)):
                self.step(window, progress)
                examples += sum(len(batch) for batch in window)
                tick(sum(len(batch) for batch in window))
                if len(self._pending) >= log_every:
                    log(self._line(progress, examples))
                    examples = 0
            if self._pending:
                log(self._line(progress, examples))
            if after_epoch(epoch):
                return

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

    def _update(self) -> Tensor:
        self.accelerator.unscale_gradients(self.optimizer)
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self.clip, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        return norm.detach().float()

    def _waited(self, windows: Iterable[tuple[float, Sequence[Batch]]]) -> Iterator[tuple[float, Sequence[Batch]]]:
        iterator = iter(windows)
        while True:
            with self.watch.host("wait"):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    def _line(self, progress: float, examples: int) -> dict[str, object]:
        """The log's line for the steps since the last one; the only place where numbers are read from the device."""
        rows = torch.stack(self._pending).cpu()
        first, names = self.steps - len(self._pending), [*self.plan, "gradient_norm"]
        self._pending.clear()
        scaled = self.accelerator.scaler is not None
        for row, values in enumerate(rows):
            for name, value in zip(names, values, strict=True):
                if not torch.isfinite(value) and not (scaled and name == "gradient_norm"):
                    what = f"loss of term '{name}'" if name in self.plan else "gradient norm"
                    raise NotFinite(f"The {what} is {float(value)} at step {first + row + 1}.")
        means = dict(zip(names, map(float, rows.mean(0)), strict=True))
        weights = {name: term.weight_at(progress) for name, term in self.plan.items()}
        seconds, parts = self.watch.read()
        return {
            "step": self.steps,
            "epoch": round(progress, 6),
            "loss": sum(weights[name] * means[name] for name in self.plan),
            "raw": {name: means[name] for name in self.plan},
            "weighted": {name: weights[name] * means[name] for name in self.plan},
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": means["gradient_norm"],
            "examples_per_second": examples * self.accelerator.num_processes / max(seconds, 1e-9),
            "teacher_share": parts.get("teacher", 0.0) / max(seconds, 1e-9),
            "wait_share": parts.get("wait", 0.0) / max(seconds, 1e-9),
        }
