"""How many examples of a forward pass fit the memory: tried before training, recorded, and followed on resume."""

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distill.batch import Batch
from distill.build import connected, freeze, shared_of
from distill.data import Batches
from distill.messages import is_out_of_memory
from distill.numerics import alone
from distill.optimize import optimizer_of, start_of
from distill.pair import Learner, Teacher
from distill.prepare import Parts, batch_of, cost_batch, sample_batch
from distill.recipe import Stage
from distill.sharding import asked_to_shard
from distill.trainer import Average, Trainer

RECORD = "micro_batch_size.json"
# Adam's state comes with the first update; the second step needs its activations beside it.
_STEPS = 2
# Share of a GPU that a trial leaves free, for what processes send each other and for gaps between tensors.
_FREE = 0.05


def choose_micro_batch(parts: Parts, accelerator: Accelerator, record: Path | None = None) -> Parts:
    """The parts with a recipe that names its micro-batch, and a note of it, where the recipe leaves it to the memory.

    It is the largest of a process's share of a batch, half of it rounded up, and so on down to one example, with which
    every process survives two training steps of each stage, on the examples that cost most. Each process tries for
    itself, on a copy of the student that is thrown away with its optimizer, and then all agree; so none waits for one
    that ran out of memory. Models and random numbers stay as they were, and training is that of a recipe which names
    the number. Controls are trained with the same: BatchNorm takes its statistics from a micro-batch.

    On a CPU the system may end a process that takes too much, and then nothing is found.

    record: the file that an interrupted run wrote; it is followed, and nothing is tried again.

    Raises:
        ValueError: not even one example fits, the launcher asks to shard the student, or the record is damaged.
    """
    if parts.recipe.micro_batch_size != "auto":
        return parts
    batches = _batches(parts, accelerator)
    share = -(-batches.size(0) // batches.processes)
    size = _largest(parts, accelerator, share) if record is None or not record.exists() else _read(record)
    tried = ", ".join(map(str, halvings(share)))
    note = f"micro_batch_size is {size}, the largest of {tried} that fits the memory."
    return replace(parts, recipe=replace(parts.recipe, micro_batch_size=size), notes=(*parts.notes, note))


def to_text(parts: Parts) -> str:
    """What a run records of what was found, as JSON."""
    return json.dumps({"micro_batch_size": parts.recipe.micro_batch_size})


def halvings(share: int) -> Iterator[int]:
    """The share, half of it rounded up, and so on down to 1."""
    yield share
    if share > 1:
        yield from halvings(-(-share // 2))


def costliest(parts: Parts, examples: int) -> Batch:
    """The training examples that cost most: the longest texts, or texts filled up to the longest; images cost alike."""
    lengths = parts.splits.train.lengths
    if lengths is None:
        return cost_batch(parts.splits, examples)
    return batch_of(parts.splits, lengths.argsort(descending=True, stable=True)[:examples].tolist())


def _batches(parts: Parts, accelerator: Accelerator, size: int | None = None) -> Batches:
    batch_size, processes = parts.recipe.batch_size, accelerator.num_processes
    return Batches(len(parts.splits.train), batch_size=batch_size, micro_batch_size=size, processes=processes)


def _read(record: Path) -> int:
    try:
        size = json.loads(record.read_text())["micro_batch_size"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        size = None
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"{record} is damaged. Change --name, or start anew with --overwrite.")
    return size


def _largest(parts: Parts, accelerator: Accelerator, share: int) -> int:
    sharded = asked_to_shard()
    if sharded:
        raise ValueError(
            f'micro_batch_size="auto" tries the whole student in one process, and under {sharded} none trains it '
            "alone. Write a number."
        )
    examples, stages = costliest(parts, share), parts.recipe.all_stages()
    for size in halvings(share):
        cuts = _batches(parts, accelerator, size).cuts(0)
        window = [examples.rows(which) for which in torch.arange(share).tensor_split(cuts)]
        failed = next((stage for stage in stages if not _fits(parts, stage, accelerator, window)), None)
        if failed is None:
            return size
    assert failed is not None
    batch, processes = parts.recipe.batch_size, accelerator.num_processes
    raise ValueError(
        f"Out of memory with micro-batches of one example: batch of {batch} over {processes} "
        f"process{'es' if processes > 1 else ''}, terms {', '.join(failed.plan)}. Lower batch_size, drop a term, or "
        "take smaller inputs or a lower precision."
    )


def _fits(parts: Parts, stage: Stage, accelerator: Accelerator, window: Sequence[Batch]) -> bool:
    """Whether every process survives: each tries without the others, and only then do they tell each other."""
    survived = _survives(parts, stage, accelerator, window)
    accelerator.free_memory()
    total: Tensor = accelerator.reduce(torch.tensor(float(survived), device=accelerator.device), reduction="sum")
    return bool(total == accelerator.num_processes)


def _survives(parts: Parts, stage: Stage, accelerator: Accelerator, window: Sequence[Batch]) -> bool:
    cuda_devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(cuda_devices), alone():
            _train(parts, stage, accelerator, window)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _train(parts: Parts, stage: Stage, accelerator: Accelerator, window: Sequence[Batch]) -> None:
    """The first steps of a stage, on a copy of the student."""
    student, device = copy.deepcopy(parts.student), accelerator.device
    freeze(student, stage.freeze)
    teacher, learner = connected(replace(parts, student=student), stage, sample_batch(parts.splits))
    before = None if teacher is None else next(teacher.parameters(), torch.empty(0)).device
    try:
        trainer = _trainer(parts, stage, accelerator, teacher, learner)
        beside = _held_beside(learner, accelerator)
        for _ in range(_STEPS):
            trainer.step([batch.to(device) for batch in window])
        del beside
    finally:
        if teacher is not None:
            teacher.tapped.close()
            teacher.to(before)


def _trainer(
    parts: Parts, stage: Stage, accelerator: Accelerator, teacher: Teacher | None, learner: Learner
) -> Trainer:
    """As the stage is trained, but by this process alone."""
    recipe = parts.recipe
    shared = shared_of(recipe, stage, teacher, learner, sample_batch(parts.splits))
    learner.to(accelerator.device).train()
    if teacher is not None:
        teacher.to(accelerator.device)
    optimizer = optimizer_of(learner, stage, parts.started)
    start = start_of(learner, stage, parts.started)
    return Trainer(
        cast(Accelerator, _Alone(accelerator)),
        teacher,
        accelerator.prepare_model(learner, evaluation_mode=True),  # in the run's precision, without DDP
        stage.plan,
        optimizer,
        clip=recipe.clip,
        average=None if recipe.ema is None else Average(learner, recipe.ema),
        shared=shared,
        gradients_every=recipe.compare_gradients_every,
        start=start,
    )


def _held_beside(learner: Learner, accelerator: Accelerator) -> list[Tensor]:
    """What a run holds besides: the gradient once more in DDP's buckets, and of a GPU what is to stay free."""
    several, device = accelerator.num_processes > 1, accelerator.device
    held = [torch.empty_like(p) for p in learner.parameters() if p.requires_grad and several]
    if device.type == "cuda":
        free = int(_FREE * torch.cuda.mem_get_info(device)[1])
        held.append(torch.empty(free, dtype=torch.uint8, device=device))
    return held


@dataclass(frozen=True)
class _Alone:
    """What a trainer asks of an accelerator, for a process that knows of no other.

    There is no loss scaling, which would leave out the first updates and Adam's state with them.
    """

    accelerator: Accelerator
    num_processes: int = 1
    is_main_process: bool = True
    scaler: None = None

    @property
    def device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    def autocast(self) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = self.accelerator.autocast()
        return context

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def unscale_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Nothing was scaled."""
