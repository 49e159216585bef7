"""A recipe's first stage, set up to time its steps beside those of other settings."""

import copy
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from distill.batch import Batch
from distill.build import make_accelerator, stage_trainer, training_feed
from distill.prepare import Parts
from distill.recipe import Recipe
from distill.trainer import Trainer


@dataclass
class Running:
    """A recipe's first stage on copies of its models, ready to take steps on the same few batches again and again.

    seen: what `steps` gave so far.
    """

    recipe: Recipe
    trainer: Trainer
    windows: Sequence[Sequence[Batch]]
    first_seconds: float = 0.0
    memory: int | None = None
    taken: int = 0
    seen: list[float] = field(default_factory=list)

    def steps(self, count: int) -> float:
        """Seconds of each of `count` steps."""
        make_accelerator(self.recipe)  # all accelerators share one state: that of the one made last
        device = self.trainer.accelerator.device
        wait_for(device)
        began = time.perf_counter()
        for _ in range(count):
            self.trainer.step(self.windows[self.taken % len(self.windows)])
            self.taken += 1
        wait_for(device)
        self.seen.append((time.perf_counter() - began) / count)
        return self.seen[-1]


def start(parts: Parts, recipe: Recipe, examples: int) -> Running:
    """Build the first stage on copies, and take steps, the first of which is timed by itself.

    With CUDA graphs the second step records them, for each size of a batch.

    examples: of a step, at most.

    Raises:
        Exception: whatever the settings make torch or a check say.
    """
    accelerator = make_accelerator(recipe)
    device, on_gpu = accelerator.device, accelerator.device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if on_gpu else 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    own = replace(parts, recipe=recipe, student=copy.deepcopy(parts.student), teacher=copy.deepcopy(parts.teacher))
    trainer, _ = stage_trainer(own, recipe.all_stages()[0], accelerator, recipe.seed)
    trainer.learner.train()
    feed = training_feed(replace(own, recipe=replace(recipe, workers=0)), accelerator, recipe.seed)
    windows = [cut(window, examples) for _, window in itertools.islice(feed(0), 3)]
    alike = [window for window in windows if [*map(len, window)] == [*map(len, windows[0])]]
    running = Running(recipe, trainer, alike)
    running.first_seconds = running.steps(1)
    running.steps(1)
    running.seen.clear()
    running.memory = torch.cuda.max_memory_allocated(device) - before if on_gpu else None
    return running


def cut(window: Sequence[Batch], examples: int) -> list[Batch]:
    """The first examples of a window."""
    left, found = examples, []
    for batch in window:
        if left > 0:
            found.append(batch if len(batch) <= left else batch.rows(slice(left)))
            left -= len(batch)
    return found


def wait_for(device: torch.device) -> None:
    """Let a device finish what it was given; the CPU has by then."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
