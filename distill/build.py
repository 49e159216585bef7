"""From a recipe to built objects: the only file that knows everything."""

import fnmatch
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader

from distill.batch import Batch
from distill.data import Batches, Examples, Splits, collate
from distill.initialize import Coverage
from distill.losses import CrossEntropy
from distill.losses.kinds import Task
from distill.messages import nearest
from distill.models import Loaded, load_model
from distill.pair import Learner, Teacher
from distill.plan import Plan, Term, connect, teacher_taps
from distill.recipe import Model, Recipe, Stage
from distill.taps import Tapped
from distill.trainer import Average, Trainer
from distill.view import View

ARMS = ("transferred", "plain", "initialized")
_DRY_RUN_EXAMPLES = 4


@dataclass(frozen=True)
class Parts:
    """What one trained student is made of.

    comparable: whether the teacher answers the same classes, so that its quality and agreement mean something.
    """

    recipe: Recipe
    splits: Splits
    student: nn.Module
    student_view: View
    teacher: nn.Module | None
    teacher_view: View
    comparable: bool
    coverage: Coverage | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Feed:
    """The training examples of this process: epoch by epoch, step by step, as micro-batches on the device."""

    loader: Iterable[Batch]
    batches: Batches
    device: torch.device

    def __call__(self, epoch: int, start_step: int = 0) -> Iterator[tuple[float, Sequence[Batch]]]:
        """Pairs of progress in epochs and the micro-batches of one step."""
        self.batches.set_epoch(epoch, start_step)
        micro_batches = iter(self.loader)
        for step in range(start_step, self.batches.steps):
            window = [next(micro_batches).to(self.device) for _ in range(self.batches.cuts(step))]
            yield epoch + step / self.batches.steps, window


def main_arm(recipe: Recipe) -> str:
    """The name of the run itself among its controls: a run without a teacher trains its student plainly."""
    return "plain" if recipe.teacher is None else "transferred"


def arm_recipe(recipe: Recipe, arm: str) -> Recipe:
    """The recipe of one arm: as it is, or as a control under the same budget.

    Controls learn from the labels alone. The weights of a stage's label terms are scaled to a sum of one, since beside
    a teacher they are often small; a stage without label terms gets those of the other stages, or cross-entropy where
    there are none.
    """
    if arm == main_arm(recipe):
        return replace(recipe, controls=())
    task = {name: term for stage in recipe.all_stages() for name, term in _task_terms(stage.plan).items()}
    task = task or {"task": Term(CrossEntropy())}
    stages = tuple(replace(stage, plan=_scaled(_task_terms(stage.plan) or task)) for stage in recipe.all_stages())
    plans = {"stages": stages} if recipe.stages else {"plan": stages[0].plan}
    teacher = {} if arm == "initialized" else {"teacher": None, "initialize": None}
    return replace(recipe, controls=(), allow_chance_teacher=False, **plans, **teacher)  # type: ignore[arg-type]


def make_accelerator(recipe: Recipe) -> Accelerator:
    """An Accelerator in the recipe's precision, or in the launcher's where the recipe says nothing.

    Raises:
        ValueError: the launcher started several processes that do not know of each other.
    """
    AcceleratorState._reset_state()
    names = {None: None, "float32": "no", "bf16": "bf16", "fp16": "fp16"}
    try:
        accelerator = Accelerator(mixed_precision=names[recipe.precision])
    except ValueError as error:
        raise ValueError(f"precision={recipe.precision!r} can't be had on this machine: {error}") from error
    if accelerator.mixed_precision != "no" and not accelerator.native_amp:
        raise ValueError(
            f"precision={accelerator.mixed_precision!r} has no effect on {accelerator.device.type}. "
            "Train there in bf16 or float32."
        )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise ValueError(
            f"The launcher started {launched} processes, but each sees {accelerator.num_processes}. On CPUs set "
            "ACCELERATE_USE_CPU=true and launch with --multi_gpu."
        )
    return accelerator


def load_splits(recipe: Recipe, seed: int) -> Splits:
    """The recipe's data, with augmentation drawn from the seed.

    Raises:
        ValueError: data are missing or damaged, or a split is empty; by name.
    """
    splits = recipe.data.load(seed, recipe.mix)
    for name, examples in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        if len(examples) == 0:
            raise ValueError(f"The {name} split of {type(recipe.data).__name__} is empty. Give it examples.")
    return splits


def prepare(recipe: Recipe, splits: Splits, seed: int, root: Path) -> Parts:
    """Load the models, check that they fit, and start the student from the teacher where the recipe says so.

    Raises:
        ValueError: weights are missing, or classes differ; each by name.
    """
    classes = len(splits.classes)
    set_seed(seed)
    student, student_view = _load(recipe.student, splits, classes, root)
    sample = sample_batch(splits)
    _check_classes(recipe.student, student.model, student_view, sample, classes)
    if recipe.teacher is None:
        return Parts(recipe, splits, student.model, student_view, None, student_view, False, None, _notes(student))
    teacher, teacher_view = _load(recipe.teacher, splits, None if recipe.teacher.weights else classes, root)
    with torch.no_grad():
        width = Teacher(teacher.model, ("logits",), view=teacher_view.module())(sample.inputs)["logits"].shape[-1]
    named = teacher.classes is not None
    comparable = width == classes and (not named or tuple(teacher.classes or ()) == splits.classes)
    _check_teacher_classes(recipe, teacher, width, splits.classes, comparable)
    coverage = None if recipe.initialize is None else recipe.initialize(teacher.model, student.model)
    notes = _notes(teacher, student)
    return Parts(recipe, splits, student.model, student_view, teacher.model, teacher_view, comparable, coverage, notes)


def stage_trainer(parts: Parts, stage: Stage, accelerator: Accelerator, seed: int) -> tuple[Trainer, Learner]:
    """The trainer of one stage, and its learner as it is before Accelerate wraps it."""
    freeze(parts.student, stage.freeze)
    set_seed(seed)
    teacher, learner = connect(
        parts.teacher if any(term.needs_teacher for term in stage.plan.values()) else None,
        parts.student,
        stage.plan,
        sample_batch(parts.splits),
        teacher_view=parts.teacher_view.module(),
        student_view=parts.student_view.module(),
    )
    learner.to(accelerator.device)
    if teacher is not None:
        teacher.to(accelerator.device)
    optimizer = stage.optimizer.build([parameter for parameter in learner.parameters() if parameter.requires_grad])
    prepared, prepared_optimizer = accelerator.prepare(learner, optimizer)
    set_seed(seed, device_specific=True)
    trainer = Trainer(
        accelerator,
        teacher,
        prepared,
        stage.plan,
        prepared_optimizer,
        learning_rate=lambda epoch: stage.schedule.factor(epoch, stage.epochs),
        clip=parts.recipe.clip,
        average=None if parts.recipe.ema is None else Average(learner, parts.recipe.ema),
    )
    return trainer, learner


def training_feed(parts: Parts, accelerator: Accelerator, seed: int) -> Feed:
    """This process's share of the training examples."""
    recipe, processes = parts.recipe, accelerator.num_processes
    batches = Batches(
        len(parts.splits.train),
        batch_size=recipe.batch_size,
        micro_batch_size=recipe.micro_batch_size,
        rank=accelerator.process_index,
        processes=processes,
        seed=seed,
    )
    return Feed(_loader(parts.splits.train, batches, recipe.workers, accelerator), batches, accelerator.device)


def evaluation_loader(examples: Examples, recipe: Recipe, accelerator: Accelerator) -> Iterable[Batch]:
    """This process's share of a split, each example once over all processes."""
    batches = Batches(
        len(examples),
        batch_size=len(examples),
        micro_batch_size=max(recipe.micro_batch_size or recipe.batch_size, 256),
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
        shuffle=False,
    )
    return _loader(examples, batches, recipe.workers, accelerator)


def answering(model: nn.Module, view: View, accelerator: Accelerator) -> Tapped:
    """A model as it is evaluated: its logits under its own view, on the device."""
    return Tapped(model, ("logits",), view=view.module()).to(accelerator.device)


def sample_batch(splits: Splits, examples: int = _DRY_RUN_EXAMPLES) -> Batch:
    """A few training examples for a dry run."""
    return collate([splits.train[(0, index)] for index in range(min(examples, len(splits.train)))])


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


def _loader(examples: Examples, batches: Batches, workers: int, accelerator: Accelerator) -> Iterable[Batch]:
    # A generator of its own: workers that stay alive draw once, and a resumed run would draw again, out of the random
    # state that dropout uses.
    return DataLoader(
        examples,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator(),
        pin_memory=accelerator.device.type == "cuda",
    )


def _load(model: Model, splits: Splits, classes: int | None, root: Path) -> tuple[Loaded, View]:
    channels = splits.train[(0, 0)].image.shape[0]
    loaded = load_model(
        model.source,
        num_classes=classes,
        in_channels=channels,
        weights=None if model.weights is None else _under_root(model.weights, root),
        arguments=model.arguments,
        trust=model.trust,
    )
    view = model.view or loaded.view or splits.view
    return loaded, view


def _notes(*models: Loaded) -> tuple[str, ...]:
    return tuple(model.note for model in models if model.note)


def _under_root(weights: str, root: Path) -> str:
    """`runs/NAME` names a run: it lies in the folder of runs, wherever the user put that."""
    first, _, rest = weights.partition("/")
    return str(root / rest) if first == "runs" and rest else weights


def _check_classes(model: Model, student: nn.Module, view: View, sample: Batch, classes: int) -> None:
    tapped = Tapped(student, ("logits",), view=view.module()).eval()
    with torch.no_grad():
        shape = tuple(tapped(sample.inputs)["logits"].shape)
    student.train()
    if shape != (len(sample), classes):
        raise ValueError(
            f"Student {model.source} gives {shape[-1]} logits and the data has {classes} classes. "
            "Build it with as many outputs (arguments={'num_classes': ...})."
        )


def _check_teacher_classes(
    recipe: Recipe, teacher: Loaded, width: int, classes: tuple[str, ...], comparable: bool
) -> None:
    reads_logits = any("logits" in teacher_taps(stage.plan) for stage in recipe.all_stages())
    if comparable or not reads_logits:
        return
    assert recipe.teacher is not None
    if width != len(classes):
        raise ValueError(
            f"Teacher {recipe.teacher.source} answers {width} classes and the data has {len(classes)}, so their "
            f"logits can't be "
            "compared. Fine-tune the teacher on these classes first, or use its inner taps only."
        )
    pairs = zip(teacher.classes or (), classes, strict=True)
    number, (theirs, ours) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
    raise ValueError(
        f"Teacher {recipe.teacher.source} and the data name class {number} differently: {theirs!r} and {ours!r}. "
        "Give both the same classes in the same order."
    )


def _task_terms(plan: Plan) -> dict[str, Term]:
    return {name: term for name, term in plan.items() if isinstance(term.loss, Task) and term.weight > 0}


def _scaled(plan: Plan) -> dict[str, Term]:
    total = sum(term.weight for term in plan.values())
    return {name: replace(term, weight=term.weight / total) for name, term in plan.items()}
