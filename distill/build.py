"""From a recipe to built objects: the only file that knows everything."""

import copy
import fnmatch
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, patch_environment, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader

from distill.batch import Batch
from distill.data import Batches, Examples, MaskedTexts, TextExamples
from distill.messages import nearest
from distill.optimize import optimizer_of, start_of
from distill.pair import Learner, Teacher
from distill.plan import connect
from distill.prepare import Parts, open_cache, sample_batch
from distill.recipe import Recipe, Stage
from distill.sharding import asked_to_shard, shard, shard_frozen
from distill.speed import check_launcher, fast_model, quicken
from distill.taps import Tapped
from distill.teacher_cache import Cache
from distill.trainer import Average, Shared, Trainer, shared_layer
from distill.view import Sees
from distill.weighting import GradNorm
from distill.zero import Zero

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Feed:
    """The training examples of this process: epoch by epoch, step by step, as micro-batches on the device.

    cache: gives each what is kept of the teacher's answers to it.
    """

    loader: Iterable[Batch]
    batches: Batches
    device: torch.device
    cache: Cache | None = None

    def __call__(self, epoch: int, start_step: int = 0) -> Iterator[tuple[float, Sequence[Batch]]]:
        """Pairs of progress in epochs and the micro-batches of one step."""
        self.batches.set_epoch(epoch, start_step)
        micro_batches = iter(self.loader)
        for step in range(start_step, self.batches.steps):
            window = [self._complete(next(micro_batches), epoch) for _ in range(self.batches.cuts(step))]
            yield epoch + step / self.batches.steps, window

    def _complete(self, batch: Batch, epoch: int) -> Batch:
        return (batch if self.cache is None else self.cache.with_kept(batch, epoch)).to(self.device)


def make_accelerator(recipe: Recipe) -> Accelerator:
    """An Accelerator in the recipe's precision, or in the launcher's where the recipe says nothing.

    Raises:
        ValueError: the launcher started several processes that do not know of each other, or asks to shard in a way
            that is not built.
    """
    _check_sharding(recipe)
    AcceleratorState._reset_state()
    names = {None: None, "float32": "no", "bf16": "bf16", "fp16": "fp16"}
    try:
        # Evaluation takes the first process's buffers; before each forward pass that would only cost, and a bank a lot.
        buffers = DistributedDataParallelKwargs(broadcast_buffers=False)
        with patch_environment(accelerate_use_deepspeed="false"):  # its engine gets the learner alone, from us
            accelerator = Accelerator(mixed_precision=names[recipe.precision], kwargs_handlers=[buffers])
    except ValueError as error:
        raise ValueError(f"precision={recipe.precision!r} can't be had on this machine: {error}") from error
    if accelerator.mixed_precision != "no" and not accelerator.native_amp:
        raise ValueError(
            f"precision={accelerator.mixed_precision!r} has no effect on {accelerator.device.type}. "
            "Train there in bf16 or float32."
        )
    check_launcher(recipe.speed, accelerator)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise ValueError(
            f"The launcher started {launched} processes, but each sees {accelerator.num_processes}. On CPUs set "
            "ACCELERATE_USE_CPU=true and launch with --multi_gpu."
        )
    return accelerator


def _check_sharding(recipe: Recipe) -> None:
    sharded = asked_to_shard()
    if sharded != "FSDP" and recipe.shard_teacher:
        raise ValueError(
            "shard_teacher has no effect under this launcher. Launch with recipes/accelerate/fsdp2.yaml, or leave it "
            "out."
        )
    if sharded is None:
        return
    balance = isinstance(recipe.balance, GradNorm)
    refused = {
        f"balance={recipe.balance!r} compares gradients at one layer": balance,
        f"compare_gradients_every={recipe.compare_gradients_every} compares gradients at one layer": bool(
            recipe.compare_gradients_every
        ),
    }
    if sharded == "DeepSpeed":
        drawn = [stage.decay_to_start for stage in recipe.all_stages() if stage.decay_to_start is not None]
        precision = recipe.precision or os.environ.get("ACCELERATE_MIXED_PRECISION")
        refused |= {
            f"decay_to_start={next(iter(drawn), None)} adds to the gradient": bool(drawn),
            f"skip_not_finite={recipe.skip_not_finite} looks at the gradient": recipe.skip_not_finite is not None,
            "precision='fp16' scales the gradient": precision == "fp16",
        }
    for what, given in refused.items():
        if given:
            raise ValueError(
                f"{what}, which no process has whole under {sharded}. Leave it out, or launch with "
                "recipes/accelerate/many_gpus.yaml."
            )


def stage_trainer(
    parts: Parts, stage: Stage, accelerator: Accelerator, seed: int, heads: Mapping[str, State] | None = None
) -> tuple[Trainer, Learner]:
    """The trainer of one stage, and its learner as it is before Accelerate wraps it.

    Where the launcher asks to shard, what is trained is a copy of the parts' student, which stays whole.

    heads: the states of those of the stage before, which go on under the same term's name.
    """
    recipe, sample, sharded = parts.recipe, sample_batch(parts.splits), asked_to_shard()
    freeze(parts.student, stage.freeze)
    back_to_cpu(parts)
    student = copy.deepcopy(parts.student) if sharded else parts.student
    model = fast_model(asked_teacher(parts, stage), recipe.speed, stage.plan, sample, parts.teacher_view)
    set_seed(seed)
    teacher, learner = connected(
        replace(parts, teacher=copy.deepcopy(model) if recipe.shard_teacher else model, student=student), stage, sample
    )
    carry_heads(learner, heads or {})
    shared = shared_of(recipe, stage, teacher, learner, sample)
    learner.to(accelerator.device)
    if teacher is not None and recipe.shard_teacher:
        teacher.tapped.run_to_the_end()
        shard_frozen(teacher.tapped.model, accelerator)
    cache = None
    if teacher is not None and recipe.teacher_cache is not None:
        cache, _ = open_cache(parts, teacher, sample, seed=seed, precision=accelerator.mixed_precision)
        if accelerator.is_main_process:
            cache.record(recipe.name)
    quicken(teacher, learner, recipe.speed)
    if teacher is not None:
        teacher.to(accelerator.device)
    if sharded == "FSDP":
        shard(learner, accelerator)
    optimizer = optimizer_of(learner, stage, parts.started)
    if sharded == "FSDP" and isinstance(optimizer, torch.optim.SGD):
        for group in optimizer.param_groups:
            group["fused"] = False  # torch has this of shares for Adam alone
    start = start_of(learner, stage, parts.started)
    if sharded:  # for Accelerate it is then a model that needs no wrapper but autocast
        prepared: nn.Module = accelerator.prepare_model(learner, evaluation_mode=True)
    else:
        prepared = accelerator.prepare_model(learner)
    zero = Zero(prepared, optimizer, accelerator.device, recipe.clip) if sharded == "DeepSpeed" else None
    set_seed(seed, device_specific=True)
    trainer = Trainer(
        accelerator,
        teacher,
        prepared if zero is None else zero.engine,
        stage.plan,
        accelerator.prepare_optimizer(optimizer) if zero is None else optimizer,
        learning_rate=lambda epoch: stage.schedule.factor(epoch, stage.epochs),
        clip=recipe.clip,
        average=None if recipe.ema is None else Average(learner, recipe.ema),
        shared=shared,
        gradients_every=recipe.compare_gradients_every,
        start=start,
        skip_not_finite=recipe.skip_not_finite,
        cache=cache,
        zero=zero,
    )
    return trainer, learner


def asked_teacher(parts: Parts, stage: Stage) -> nn.Module | None:
    """The teacher, where a term of the stage asks it."""
    return parts.teacher if any(term.needs_teacher for term in stage.plan.values()) else None


def connected(parts: Parts, stage: Stage, sample: Batch) -> tuple[Teacher | None, Learner]:
    """The stage's teacher and learner out of the parts' models, with heads sized by a dry run on the sample.

    Raises:
        ValueError: what `connect` refuses.
    """
    return connect(
        asked_teacher(parts, stage),
        parts.student,
        stage.plan,
        sample,
        teacher_view=parts.teacher_view.module(),
        student_view=parts.student_view.module(),
        balance=balance_of(parts.recipe, stage),
        aligned=parts.aligned,
    )


def back_to_cpu(parts: Parts) -> None:
    """Bring both models back to the CPU, where a few examples are run before training; a stage may have moved them."""
    parts.student.cpu()
    if parts.teacher is not None:
        parts.teacher.cpu()


def balance_of(recipe: Recipe, stage: Stage) -> nn.Module | None:
    """What weighs the stage's terms against each other; None where their weights are fixed, or there is one only."""
    if recipe.balance is None or len(stage.plan) < 2:
        return None
    return recipe.balance.build(tuple(stage.plan))


def shared_of(recipe: Recipe, stage: Stage, teacher: Teacher | None, learner: Learner, sample: Batch) -> Shared | None:
    """The layer at which the stage's terms are compared; None where nobody asks, or there is one only."""
    asked = isinstance(recipe.balance, GradNorm) or recipe.compare_gradients_every is not None
    return shared_layer(teacher, learner, stage.plan, sample) if asked and len(stage.plan) > 1 else None


def carry_heads(learner: Learner, heads: Mapping[str, State]) -> tuple[str, ...]:
    """Give each head the state of the head that the stage before had under the same term's name; names those terms.

    Only tensors of equal name and shape go over, and none where a shared name has another shape: the term then reads
    another layer, and its head is a new one.
    """
    carried = []
    for name, head in learner.heads.items():
        here = head.state_dict()
        same = {key: tensor for key, tensor in heads.get(name, {}).items() if key in here}
        if same and all(here[key].shape == tensor.shape for key, tensor in same.items()):
            head.load_state_dict(same, strict=False)
            carried.append(name)
    return tuple(carried)


def training_feed(parts: Parts, accelerator: Accelerator, seed: int, cache: Cache | None = None) -> Feed:
    """This process's share of the training examples, with what a cache of the teacher's answers holds of them."""
    recipe, processes = parts.recipe, accelerator.num_processes
    batches = Batches(
        len(parts.splits.train),
        batch_size=recipe.batch_size,
        micro_batch_size=recipe.micro_batch_bound,
        rank=accelerator.process_index,
        processes=processes,
        seed=seed,
        lengths=parts.splits.train.lengths,
        views=None if cache is None else cache.views,
    )
    return Feed(_loader(parts, parts.splits.train, batches, accelerator), batches, accelerator.device, cache)


def evaluation_loader(parts: Parts, split: str, accelerator: Accelerator) -> Iterable[Batch]:
    """This process's share of the "validation" or the "test" examples, each once over all processes."""
    recipe = parts.recipe
    examples = {"validation": parts.splits.validation, "test": parts.splits.test}[split]
    bound = recipe.micro_batch_bound or recipe.batch_size
    # Without a gradient a pass takes less memory. Logits over a vocabulary take so much that they get no more at once
    # than in training.
    at_once = bound if parts.masked else max(bound, min(256, 4 * bound))
    batches = Batches(
        len(examples),
        batch_size=len(examples),
        micro_batch_size=at_once,
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
        shuffle=False,
        lengths=examples.lengths,
    )
    return _loader(parts, examples, batches, accelerator)


def answering(model: nn.Module, view: Sees, accelerator: Accelerator) -> Tapped:
    """A model as it is evaluated: its logits under its own view, on the device."""
    return Tapped(model, ("logits",), view=view.module()).to(accelerator.device)


def freeze(student: nn.Module, patterns: Sequence[str]) -> None:
    """Let every parameter of the student be trained but those whose name fits a pattern (`layer1.*`).

    Raises:
        ValueError: a pattern fits nothing.
    """
    parameters = dict(student.named_parameters())
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    for pattern in patterns:
        names = fnmatch.filter(parameters, pattern)
        if not names:
            modules = [f"{name}.*" for name, module in student.named_modules() if name and [*module.parameters()]]
            raise ValueError(
                f"freeze={pattern!r} fits no parameter of the student. "
                f"Nearest: {nearest(pattern, [*modules, *parameters])}."
            )
        for name in names:
            parameters[name].requires_grad_(False)


def _loader(
    parts: Parts, examples: Examples | TextExamples | MaskedTexts, batches: Batches, accelerator: Accelerator
) -> Iterable[Batch]:
    workers = parts.recipe.workers
    # A generator of its own: workers that stay alive draw once, and a resumed run would draw again, out of the random
    # state that dropout uses.
    return DataLoader(
        examples,
        batch_sampler=batches,
        collate_fn=parts.splits.collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator(),
        pin_memory=accelerator.device.type == "cuda",
    )
