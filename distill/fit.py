"""One student from its start to its chosen weights: stages, validation, checkpoints, early stop and resume."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import nn

from distill import checkpoint
from distill.bar import Bar
from distill.build import answering, evaluation_loader, stage_trainer, training_feed
from distill.evaluate import evaluate, guess
from distill.journal import Journal
from distill.pair import Learner
from distill.plan import student_taps
from distill.prepare import Parts
from distill.recipe import Stage
from distill.trainer import NotFinite, Trainer

_STUDENT = "student.model."


@dataclass(frozen=True)
class Best:
    """The epoch of a stage whose weights are kept, with its validation quality.

    headline: the accuracy, or the mean AUROC where an example has several labels.
    """

    epoch: int
    step: int
    headline: float
    nll: float

    def beats(self, other: "Best | None", *, by: Literal["headline", "nll"] = "headline") -> bool:
        """Whether this epoch is to be kept: it is better by the one that decides, or as good and better by the other.

        The headline is better when higher, the negative log-likelihood when lower.
        """
        if other is None:
            return True
        if by == "nll":
            return (-self.nll, self.headline) > (-other.nll, other.headline)
        return (self.headline, -self.nll) > (other.headline, -other.nll)


@dataclass(frozen=True)
class Progress:
    """Where a run stands behind an epoch; written into each checkpoint.

    stage, epoch: the last one that ended; epoch -1 before the first. step: updates over all stages. epochs: likewise.
    """

    stage: int = 0
    epoch: int = -1
    step: int = 0
    epochs: int = 0
    best: Best | None = None
    seconds: float = 0.0


def fit_arm(
    parts: Parts,
    folder: Path,
    accelerator: Accelerator,
    *,
    seed: int,
    resume: bool,
    bar: Bar,
    start_quality: Mapping[str, float] | None = None,
) -> Progress:
    """Train `parts.student` in place through the stages of its recipe; it ends with the chosen weights of the last one.

    folder: gets `metrics.jsonl`, `tensorboard/` and `checkpoints/`.
    resume: go on behind the newest checkpoint, where there is one.
    start_quality: of the student as it is given, on the validation examples; the log's first line.

    Raises:
        NotFinite: a loss, or the student's on the validation examples, became NaN or infinite; names the term, the step
            and the last good checkpoint.
        ValueError: a checkpoint is damaged, or was written by another number of processes.
    """
    saved = checkpoint.checkpoints(folder / "checkpoints") if resume else []
    start = read_progress(saved[-1]) if saved else Progress()
    journal = Journal(folder, writes=accelerator.is_main_process, resume_after=start.step if saved else None)
    stages = parts.recipe.all_stages()
    own_examples = len(parts.splits.train) // accelerator.num_processes
    bar.begin(sum(stage.epochs for stage in stages) * own_examples)
    bar.tick(start.epochs * own_examples)
    progress = start
    heads: Mapping[str, nn.Module] = {}
    if start_quality is not None and not saved:
        journal.write({"step": 0, "epoch": 0, "start": dict(start_quality)})
    try:
        for number in range(start.stage, len(stages)):
            if number > start.stage:
                progress = replace(progress, stage=number, epoch=-1, best=None)
            resumed = saved[-1] if saved and number == start.stage else None
            arm = _StageRun(parts, stages[number], folder, accelerator, seed, journal, bar)
            progress, heads = arm.run(progress, resumed, heads)
    finally:
        journal.close()
    return progress


def read_progress(path: Path) -> Progress:
    """Where the run stood when a checkpoint was written."""
    values = checkpoint.load_progress(path)
    best = None if values["best"] is None else Best(**values["best"])
    return Progress(values["stage"], values["epoch"], values["step"], values["epochs"], best, values["seconds"])


@dataclass(frozen=True)
class _StageRun:
    parts: Parts
    stage: Stage
    folder: Path
    accelerator: Accelerator
    seed: int
    journal: Journal
    bar: Bar

    def run(
        self, progress: Progress, resumed: Path | None, heads: Mapping[str, nn.Module]
    ) -> tuple[Progress, Mapping[str, nn.Module]]:
        """Where the stage ended, and its heads for the next one."""
        trainer, learner = stage_trainer(self.parts, self.stage, self.accelerator, self.seed, heads)
        trainer.steps = progress.step
        if resumed is not None:
            _restore(checkpoint.load_state(resumed), trainer, learner)
        started, before = time.perf_counter(), progress
        feed = training_feed(self.parts, self.accelerator, self.seed)

        def after_epoch(epoch: int) -> bool:
            nonlocal progress
            progress = self._after_epoch(
                trainer, learner, progress, epoch, before.seconds + time.perf_counter() - started
            )
            return self._stops(progress)

        epochs = range(progress.epoch + 1, progress.epoch + 1 if self._stops(progress) else self.stage.epochs)
        try:
            trainer.fit(
                feed,
                epochs=epochs,
                after_epoch=after_epoch,
                log=self._log,
                log_every=self.parts.recipe.log_every,
                tick=self.bar.tick,
            )
        except NotFinite as error:
            raise NotFinite(f"{error} {self._last_good()}") from error
        assert progress.best is not None
        best = self._checkpoints / f"step-{progress.best.step:08d}"
        _take_student(checkpoint.load_state(best), learner)
        learner.student.close()
        if trainer.teacher is not None:
            trainer.teacher.tapped.close()
        self.accelerator.free_memory()
        return progress, dict(learner.heads.items())

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def _log(self, line: Mapping[str, object]) -> None:
        named = {**line, "stage": self.stage.name}
        self.journal.write(named)
        self.bar.line(named)

    def _after_epoch(
        self, trainer: Trainer, learner: Learner, progress: Progress, epoch: int, seconds: float
    ) -> Progress:
        if trainer.average is not None:
            trainer.average.swap()
        tapped = answering(learner.student.model, self.parts.student_view, self.accelerator)
        loader = evaluation_loader(self.parts, "validation", self.accelerator)
        answers = (guess if self.parts.masked else evaluate)(tapped, loader, self.accelerator)
        if trainer.average is not None:
            trainer.average.swap()
        quality = answers.quality()
        if not math.isfinite(quality["nll"]):
            # The last update of an epoch can break the student after its last finite loss: such weights are not kept.
            raise NotFinite(
                f"The student's loss on the validation examples is {quality['nll']} at step {trainer.steps}."
            )
        self._log({"step": trainer.steps, "epoch": epoch + 1, "validation": quality})
        found = Best(epoch, trainer.steps, quality[self.parts.headline], quality["nll"])
        better = found.beats(progress.best, by="nll" if self.parts.masked else "headline")
        best = found if not self._answers or better else progress.best
        assert best is not None
        after = Progress(progress.stage, epoch, trainer.steps, progress.epochs + 1, best, seconds)
        state: dict[str, Any] = {
            "learner": learner.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "average": None if trainer.average is None else trainer.average.shadow,
            "updates": 0 if trainer.average is None else trainer.average.updates,
            "start": None if trainer.start is None else trainer.start.values,
            "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
        }
        checkpoint.save(self._checkpoints, trainer.steps, state, asdict(after), self.accelerator)
        if self.accelerator.is_main_process:
            checkpoint.remove_old(self._checkpoints, self.parts.recipe.keep_checkpoints, also=(best.step,))
        return after

    def _stops(self, progress: Progress) -> bool:
        patience, best = self.parts.recipe.patience, progress.best
        return patience is not None and best is not None and progress.epoch - best.epoch >= patience

    @property
    def _answers(self) -> bool:
        """Whether the stage trains the student's answer; where it does not, its last epoch is kept."""
        return "logits" in student_taps(self.stage.plan)

    def _last_good(self) -> str:
        saved = checkpoint.checkpoints(self._checkpoints)
        way_out = "Lower the learning rate or the term's weight, or clip the gradient."
        return f"Last good checkpoint: {saved[-1] if saved else 'none yet'}. {way_out}"


def _restore(state: Mapping[str, Any], trainer: Trainer, learner: Learner) -> None:
    learner.load_state_dict(state["learner"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    if trainer.average is not None:
        trainer.average.updates = state["updates"]
        for name, tensor in state["average"].items():
            trainer.average.shadow[name].copy_(tensor)
    if trainer.start is not None:
        trainer.start.restore(state["start"])
    if trainer.accelerator.scaler is not None:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])
    checkpoint.restore_random_state(state, trainer.accelerator)


def _take_student(state: Mapping[str, Any], learner: Learner) -> None:
    """Give the learner the weights of a checkpoint; the student the averaged ones where there is an average."""
    model = learner.student.model
    learner.load_state_dict(state["learner"])
    if state["average"] is not None:
        with torch.no_grad():  # parameter by parameter: tied ones have one name in the average, and more in the state
            for name, parameter in model.named_parameters():
                parameter.copy_(state["average"][f"{_STUDENT}{name}"])
