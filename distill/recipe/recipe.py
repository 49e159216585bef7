"""A recipe: everything that decides a run, as plain data. It refuses settings that make no sense or have no effect."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from distill.data import Data, Mix
from distill.initialize import Initializer
from distill.plan import Plan, Term
from distill.recipe.model import Model
from distill.recipe.optimizers import Optimizer
from distill.recipe.schedules import Constant, Schedule
from distill.recipe.speed import Speed, check_speed
from distill.recipe.stage import Stage, check_decays, check_training
from distill.recipe.values import check
from distill.teacher_cache import TeacherCache
from distill.weighting import Balance, GradNorm

Control = Literal["plain", "initialized"]
Precision = Literal["float32", "bf16", "fp16"]


@dataclass(frozen=True)
class Recipe:
    """A run: a teacher, a student, what is compared between them, and how the student is trained.

    name: the run's folder.
    data: the data set.
    student: the model that is trained.
    teacher: the model that it learns from; none trains the student plainly.
    initialize: how the student starts from the teacher's weights.
    reestimate_batchnorm: batches of training examples on which BatchNorm's statistics are measured anew behind that.
    plan: {term's name: Term}; in place of stages.
    optimizer: of the plan; stages have their own.
    schedule: multiplier of the learning rate over the epochs of the plan; stages have their own.
    epochs: passes over the training split with the plan; stages have their own.
    layer_decay: factor on the learning rate from each of the student's blocks to the one before it; stages have theirs.
    decay_to_start: weight decay towards the start, of parameters that came from weights (L2-SP); stages have their own.
    stages: plans that follow each other, in place of plan and of its settings above.
    batch_size: examples of one update, over all processes.
    micro_batch_size: most examples of one forward pass in one process; none for the whole share, auto for what fits.
        The update stays the same, but for BatchNorm's statistics, which are those of each micro-batch. "auto" tries two
        steps on a copy before training, on the examples that cost most, and takes the largest of the share, half of it,
        a quarter and so on that fits the memory of every process.
    mix: mixup and cutmix of the training images, the same for both models.
    clip: largest norm of the gradient.
    skip_not_finite: updates in a row to leave out where a loss or the gradient is not finite; none stops at the first.
        Where it is set a step waits for the device once. What fp16's loss scaling leaves out is not counted.
    balance: how the terms weigh against each other, on top of their weights; none for the weights as they are.
    compare_gradients_every: updates between two lines in the log with the norm of each term's gradient at the last
        layer that all terms reach, and the cosines between them; none for never.
    ema: decay of the moving average of the student, which is then the one that is judged and saved.
    precision: number format of the forward pass; none leaves it to the launcher.
    speed: what makes a step cheaper; none takes the models as they are. `distill plan --tune` tries what helps here.
    patience: validations without improvement after which training stops.
    seed: of the first repeat; each further repeat adds 1.
    repeats: runs of the same recipe under different seeds.
    controls: what the student is compared with in the same budget: trained plainly, or started from the teacher alone.
    workers: processes that load data; 0 loads in the training process.
    log_every: updates between two lines of the log.
    checkpoint_every: updates between two checkpoints within an epoch; none saves behind each epoch only.
    keep_checkpoints: newest checkpoints that are kept, beside the best.
    allow_chance_teacher: train even where the teacher knows no more than chance.
    teacher_cache: keep the teacher's answers on disk, so that it is asked once for each view of an example.
    shard_teacher: spread the teacher over the processes as the launcher spreads the student, where it does not fit one.
    """

    name: str
    data: Data
    student: Model
    teacher: Model | None = None
    initialize: Initializer | None = None
    reestimate_batchnorm: int | None = None
    plan: Plan = field(default_factory=dict)
    optimizer: Optimizer | None = None
    schedule: Schedule = field(default_factory=Constant)
    epochs: int | None = None
    layer_decay: float | None = None
    decay_to_start: float | None = None
    stages: tuple[Stage, ...] = ()
    batch_size: int = 64
    micro_batch_size: int | Literal["auto"] | None = None
    mix: Mix | None = None
    clip: float | None = None
    skip_not_finite: int | None = None
    balance: Balance | None = None
    compare_gradients_every: int | None = None
    ema: float | None = None
    precision: Precision | None = None
    speed: Speed | None = None
    patience: int | None = None
    seed: int = 0
    repeats: int = 1
    controls: tuple[Control, ...] = ()
    workers: int = 0
    log_every: int = 50
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    allow_chance_teacher: bool = False
    teacher_cache: TeacherCache | None = None
    shard_teacher: bool = False

    def __post_init__(self) -> None:
        check(self)
        if not re.fullmatch(r"[^\s./\\\x00-\x1f-][^/\\\x00-\x1f]{0,199}", self.name) or not self.name.isprintable():
            raise ValueError(
                f"name is the run's folder, a plain name without '/' and leading '.' or '-', got {self.name!r}."
            )
        self._check_stages()
        self._check_sizes()
        self._check_several()
        self._check_onnx()
        self._check_teacher()
        self._check_start()
        self._check_speed()

    @property
    def micro_batch_bound(self) -> int | None:
        """Most examples of one forward pass in one process; None without a bound, or where it is still to be found."""
        return None if isinstance(self.micro_batch_size, str) else self.micro_batch_size

    def all_stages(self) -> tuple[Stage, ...]:
        """The stages, or the plan as the one stage 'train'."""
        if self.stages:
            return self.stages
        assert self.epochs is not None and self.optimizer is not None
        stage = Stage(
            "train",
            self.plan,
            self.epochs,
            self.optimizer,
            self.schedule,
            layer_decay=self.layer_decay,
            decay_to_start=self.decay_to_start,
        )
        return (stage,)

    def _check_stages(self) -> None:
        if not self.stages:
            if not self.plan:
                raise ValueError("A recipe needs a plan, such as plan={'task': Term(CrossEntropy())}, or stages.")
            if self.optimizer is None or self.epochs is None:
                missing = "optimizer" if self.optimizer is None else "epochs"
                raise ValueError(
                    f"A recipe with a plan needs {missing}. Write optimizer=SGD(lr=0.05), epochs=30 or alike."
                )
            check_training(self.plan, self.epochs, self.optimizer, self.schedule)
            check_decays(self.layer_decay, self.decay_to_start)
            return
        if self.plan:
            raise ValueError("A recipe has a plan or stages, got both. Move the plan into a Stage.")
        unused = {
            "optimizer": self.optimizer,
            "epochs": self.epochs,
            "schedule": self.schedule,
            "layer_decay": self.layer_decay,
            "decay_to_start": self.decay_to_start,
        }
        for setting, value in unused.items():
            if value not in (None, Constant()):
                raise ValueError(
                    f"{setting} has no effect beside stages, which have their own. Move it into each Stage."
                )
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"Each stage has its own name, got {', '.join(names)}.")

    def _check_sizes(self) -> None:
        counts = {
            "batch_size": self.batch_size,
            "micro_batch_size": self.micro_batch_bound,
            "skip_not_finite": self.skip_not_finite,
            "patience": self.patience,
            "repeats": self.repeats,
            "log_every": self.log_every,
            "compare_gradients_every": self.compare_gradients_every,
            "checkpoint_every": self.checkpoint_every,
            "keep_checkpoints": self.keep_checkpoints,
            "reestimate_batchnorm": self.reestimate_batchnorm,
        }
        for setting, count in counts.items():
            if count is not None and count < 1:
                raise ValueError(f"{setting} must be at least 1, got {count}.")
        if self.micro_batch_bound is not None and self.micro_batch_bound > self.batch_size:
            raise ValueError(
                f"micro_batch_size {self.micro_batch_size} is above batch_size {self.batch_size}. Lower it, or drop it."
            )
        if self.workers < 0:
            raise ValueError(f"workers must be 0 or more, got {self.workers}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed lies in [0, 2**32), got {self.seed}.")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip must be above zero, got {self.clip}. For no clipping leave it out.")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema lies in (0, 1), got {self.ema}. For no average leave it out.")

    def _check_several(self) -> None:
        """Refuse what compares terms where no stage has two."""
        comparing = {"balance": self.balance, "compare_gradients_every": self.compare_gradients_every}
        for setting, given in comparing.items():
            if given is not None and not any(_several(stage.plan) for stage in self.all_stages()):
                raise ValueError(f"{setting} has no effect on a plan of one term. Add a term, or leave it out.")

    def _check_onnx(self) -> None:
        """Refuse to train an ONNX file, or to take weights from one."""
        if self.student.is_onnx:
            raise ValueError(f"student {self.student.source} can't be trained: an ONNX file only teaches.")
        if self.initialize is not None and self.teacher is not None and self.teacher.is_onnx:
            raise ValueError(
                f"initialize has no effect with {self.teacher.source}: its weights have no names to start from. "
                "Leave it out."
            )

    def _check_teacher(self) -> None:
        learners = [where for where, term in self._terms() if term.needs_teacher]
        if len(set(self.controls)) < len(self.controls):
            raise ValueError(f"controls names each control once, got {', '.join(self.controls)}.")
        if self.teacher is None:
            needs = {
                "initialize": self.initialize,
                "controls": self.controls,
                "allow_chance_teacher": self.allow_chance_teacher,
                "teacher_cache": self.teacher_cache,
                "shard_teacher": self.shard_teacher,
            }
            for setting, value in needs.items():
                if value:
                    raise ValueError(
                        f"{setting} has no effect without a teacher. Give teacher=Model(...), or leave it out."
                    )
            if learners:
                raise ValueError(
                    f"{learners[0]} compares with a teacher and there is none. Give teacher=Model(...), or drop it."
                )
            return
        if not learners and self.initialize is None:
            raise ValueError(
                "teacher is used by nothing. Add a term such as Term(KD()) or initialize=..., or leave it out."
            )
        if self.teacher_cache is not None and not learners:
            raise ValueError("teacher_cache has no effect: no term asks the teacher. Leave it out.")
        if self.teacher_cache is not None and self.shard_teacher:
            raise ValueError(
                "teacher_cache has no effect with shard_teacher, under which all processes run the teacher together. "
                "Keep one of them."
            )
        if "initialized" in self.controls and self.initialize is None:
            raise ValueError(
                "The control 'initialized' starts from the teacher's weights. Give initialize=..., or drop the control."
            )
        if "initialized" in self.controls and not learners:
            raise ValueError(
                "The control 'initialized' would repeat the run, whose terms use no teacher. Keep the control 'plain'."
            )

    def _check_start(self) -> None:
        """Refuse what goes by a start from weights where there is none."""
        if self.initialize is not None:
            return
        if self.reestimate_batchnorm is not None:
            raise ValueError("reestimate_batchnorm has no effect without initialize=.... Give one, or leave it out.")
        if self.student.weights is None and any(stage.decay_to_start is not None for stage in self.all_stages()):
            raise ValueError(
                "decay_to_start has no effect on a student without weights. Give initialize=... or the student "
                "weights=..., or leave it out."
            )

    def _check_speed(self) -> None:
        if self.speed is not None:
            check_speed(
                self.speed,
                teacher=self.teacher if any(term.needs_teacher for _, term in self._terms()) else None,
                shard_teacher=self.shard_teacher,
                precision=self.precision,
                compares=self.compare_gradients_every is not None or isinstance(self.balance, GradNorm),
            )

    def _terms(self) -> Iterator[tuple[str, Term]]:
        """Each term with its dotted name."""
        for name, term in self.plan.items():
            yield f"plan.{name}", term
        for stage in self.stages:
            for name, term in stage.plan.items():
                yield f"stages.{stage.name}.plan.{name}", term


def _several(plan: Plan) -> bool:
    """Whether there are two terms to compare; a term whose layers are matched may become several."""
    return len(plan) > 1 or any(term.match is not None for term in plan.values())
