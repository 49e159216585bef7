"""One student from its start to its chosen weights: stages, validation, checkpoints, early stop and resume."""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distill import checkpoint
from distill.bar import Bar
from distill.build import State, answering, evaluation_loader, stage_trainer, training_feed
from distill.clock import EVALUATION, added
from distill.data.images import UnreadableImageError
from distill.evaluate import evaluate, guess
from distill.journal import Journal
from distill.messages import first_line, is_out_of_memory
from distill.pair import Learner
from distill.plan import student_taps
from distill.prepare import Parts
from distill.profiling import recording
from distill.progress import Best, Progress, check_examples, examples_of, read_progress
from distill.recipe import Stage
from distill.sharding import share_of, shares_of_optimizer, whole
from distill.speed import warn_of_not_recorded
from distill.stopping import Heard, Stopped, listening
from distill.trainer import NotFinite, Trainer

_STUDENT, _HEADS = "student.model.", "heads."
_WORKER_DIED = (
    "A process that loads data died ({}). Where memory ran out lower workers=..., then go on with --resume auto."
)
# Steps between two questions among processes whether one was told to stop: each costs a wait.
_ASK_EVERY = 8


def fit_arm(
    parts: Parts,
    folder: Path,
    accelerator: Accelerator,
    *,
    seed: int,
    resume: bool,
    bar: Bar,
    start_quality: Mapping[str, float] | None = None,
    profile: bool = False,
) -> Progress:
    """Train `parts.student` in place through the stages of its recipe; it ends with the chosen weights of the last one.

    folder: gets `metrics.jsonl`, `tensorboard/` and `checkpoints/`.
    resume: go on behind the newest whole checkpoint, where there is one.
    start_quality: of the student as it is given, on the validation examples; the log's first line.
    profile: record a few updates of the first stage that is trained here, into `profile/`.

    Raises:
        NotFinite: a loss, or the student's on the validation examples, became NaN or infinite; names the term, the step
            and the last good checkpoint.
        Stopped: a signal told it to; all was saved.
        ValueError: no checkpoint is whole, they are of another number of processes or of other data, or can't be
            written.
    """
    saved = checkpoint.newest(folder / "checkpoints", accelerator) if resume else None
    start = Progress() if saved is None else read_progress(saved)
    if saved is not None:
        check_examples(saved, parts)
    journal = Journal(folder, writes=accelerator.is_main_process, resume_after=None if saved is None else start.step)
    stages = parts.recipe.all_stages()
    own_examples = len(parts.splits.train) // accelerator.num_processes
    bar.begin(sum(stage.epochs for stage in stages) * own_examples)
    own_batch = parts.recipe.batch_size // accelerator.num_processes
    bar.tick(start.epochs * own_examples + min(start.epoch_step * own_batch, own_examples))
    progress = start
    heads: Mapping[str, State] = {}
    if start_quality is not None and saved is None:
        journal.write({"step": 0, "epoch": 0, "start": dict(start_quality)})
    try:
        with listening() as heard:
            for number in range(start.stage, len(stages)):
                if number > start.stage:
                    progress = replace(progress, stage=number, epoch=-1, best=None)
                resumed = saved if number == start.stage else None
                profiles = profile and number == start.stage
                arm = _StageRun(parts, stages[number], folder, accelerator, seed, journal, bar, heard, profiles)
                progress, heads = arm.run(progress, resumed, heads)
    finally:
        journal.close()
    return progress


@dataclass(frozen=True)
class _StageRun:
    parts: Parts
    stage: Stage
    folder: Path
    accelerator: Accelerator
    seed: int
    journal: Journal
    bar: Bar
    heard: Heard
    profiles: bool

    def run(
        self, progress: Progress, resumed: Path | None, heads: Mapping[str, State]
    ) -> tuple[Progress, Mapping[str, State]]:
        """Where the stage ended, and the states of its heads for the next one."""
        trainer, learner = stage_trainer(self.parts, self.stage, self.accelerator, self.seed, heads)
        trainer.steps = progress.step
        if resumed is not None:
            _restore(checkpoint.load_state(resumed), trainer, learner)
        before = progress
        feed = training_feed(self.parts, self.accelerator, self.seed, trainer.cache)

        def spent() -> dict[str, float]:
            return added(before.spent, trainer.watch.spent())

        def after_epoch(epoch: int) -> bool:
            nonlocal progress
            progress = self._after_epoch(trainer, learner, progress, epoch, spent)
            if self._told_to_stop(trainer.steps, always=True):
                raise self._stopped(trainer.steps)
            return self._stops(progress)

        def after_step(epoch: int, step: int) -> None:
            record(step == feed.batches.steps)
            if trainer.steps == before.step + 1:
                warn_of_not_recorded(self.parts.recipe.speed)
            if step == feed.batches.steps:
                return  # the end of the epoch saves
            every, told = self.parts.recipe.checkpoint_every, self._told_to_stop(trainer.steps)
            if told or (every is not None and trainer.steps % every == 0):
                here = replace(progress, step=trainer.steps, epoch_step=step, spent=spent())
                with trainer.watch.part("checkpoints"):
                    self._save(trainer, learner, here)
            if told:
                raise self._stopped(trainer.steps)

        epochs = range(progress.epoch + 1, progress.epoch + 1 if self._stops(progress) else self.stage.epochs)
        left = len(epochs) * feed.batches.steps - progress.epoch_step
        profile = recording(self.folder / "profile", trainer.watch, self.accelerator.device, left)
        try:
            with profile if self.profiles else nullcontext(lambda ends_epoch: None) as record:
                trainer.fit(
                    feed,
                    epochs=epochs,
                    after_epoch=after_epoch,
                    log=self._log,
                    log_every=self.parts.recipe.log_every,
                    tick=self.bar.tick,
                    start_step=progress.epoch_step,
                    after_step=after_step,
                )
        except NotFinite as error:
            if trainer.cache is not None:
                trainer.cache.keep()  # which names a teacher's answer that its form can't hold
            raise NotFinite(f"{error} {self._last_good()}") from error
        except (RuntimeError, OSError, EOFError, UnreadableImageError) as error:
            told = self._told_of(error, trainer.steps)
            if told is None:
                raise
            raise ValueError(told) from error
        progress = replace(progress, spent=spent())
        assert progress.best is not None
        best = self._checkpoints / f"step-{progress.best.step:08d}"
        state = checkpoint.load_state(best)
        _take_student(state, self.parts.student)
        learner.student.close()
        if trainer.zero is not None:
            trainer.zero.close()
        if trainer.teacher is not None:
            trainer.teacher.tapped.close()
        self.accelerator.free_memory()
        return progress, _heads_of(state["learner"])

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def _log(self, line: Mapping[str, object]) -> None:
        named = {**line, "stage": self.stage.name}
        self.journal.write(named)
        self.bar.line(named)

    def _after_epoch(
        self,
        trainer: Trainer,
        learner: Learner,
        progress: Progress,
        epoch: int,
        spent: Callable[[], Mapping[str, float]],
    ) -> Progress:
        if trainer.average is not None:
            trainer.average.swap()
        copied = learner.student.model is not self.parts.student  # where processes keep shares
        if copied:
            self.parts.student.load_state_dict(whole(learner.student.model.state_dict()))
        with trainer.watch.part(EVALUATION):
            tapped = answering(self.parts.student, self.parts.student_view, self.accelerator)
            loader = evaluation_loader(self.parts, "validation", self.accelerator)
            answers = (guess if self.parts.masked else evaluate)(tapped, loader, self.accelerator)
        if copied:
            self.parts.student.cpu()  # room for training
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
        after = Progress(progress.stage, epoch, trainer.steps, progress.epochs + 1, best, spent=spent())
        with trainer.watch.part("checkpoints"):
            self._save(trainer, learner, after)
        if trainer.cache is not None:  # saving has waited for all processes
            trainer.cache.refresh()
        return after

    def _save(self, trainer: Trainer, learner: Learner, here: Progress) -> None:
        """Write a checkpoint, and remove those that are not needed any more."""
        zero, keeps = trainer.zero, self.accelerator.is_main_process
        state: dict[str, Any] = {
            "learner": learner.state_dict(),
            "optimizer": trainer.optimizer.state_dict() if zero is None else zero.state(keep=keeps),
            "average": None if trainer.average is None else trainer.average.shadow,
            "updates": 0 if trainer.average is None else trainer.average.updates,
            "start": None if trainer.start is None else trainer.start.values,
            "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
            "unlogged": trainer.unlogged(),
        }
        told = {**asdict(here), "examples": examples_of(self.parts)}
        if trainer.cache is not None:
            trainer.cache.keep()
        one = whole(state, keep=keeps)
        checkpoint.save(self._checkpoints, trainer.steps, one, told, self.accelerator)
        if keeps:
            keep = self.parts.recipe.keep_checkpoints
            kept = [read_progress(path).best for path in checkpoint.checkpoints(self._checkpoints)[-keep:]]
            checkpoint.remove_old(self._checkpoints, keep, also=tuple(best.step for best in kept if best is not None))

    def _told_to_stop(self, steps: int, *, always: bool = False) -> bool:
        """Whether a signal has come to any process; several ask each other now and then, or always behind an epoch."""
        if self.accelerator.num_processes == 1:
            return self.heard.name is not None
        if not always and steps % _ASK_EVERY:
            return False
        told = torch.tensor(float(self.heard.name is not None), device=self.accelerator.device)
        return bool(self.accelerator.reduce(told, reduction="sum"))

    def _stopped(self, steps: int) -> Stopped:
        name = self.heard.name or "A signal to another process"
        return Stopped(f"{name} stopped {self.folder} behind step {steps}; it is saved. Go on with --resume auto.")

    def _told_of(self, error: Exception, steps: int) -> str | None:
        """What a user is told of an error that is not the program's own; None of any other."""
        if isinstance(error, UnreadableImageError):
            return f"{error} Bring it back, then go on with --resume auto. {self._last_good(way_out='')}"
        if is_out_of_memory(error):
            return self._out_of_memory(steps)
        # One that is killed while it hands over a tensor is seen as a connection that broke.
        handing = isinstance(error, ConnectionError | EOFError) and self.parts.recipe.workers > 0
        if handing or str(error).startswith("DataLoader worker"):
            return f"{_WORKER_DIED.format(first_line(error))} {self._last_good(way_out='')}"
        return None

    def _out_of_memory(self, steps: int) -> str:
        recipe, processes = self.parts.recipe, self.accelerator.num_processes
        share = -(-recipe.batch_size // processes)
        micro = min(recipe.micro_batch_bound or share, share)
        terms = ", ".join(self.stage.plan)
        return (
            f"Out of memory in step {steps + 1}: micro-batches of {micro} examples, terms {terms}. Write "
            f"micro_batch_size={max(micro // 2, 1)}: the update stays the same. {self._last_good(way_out='')}"
        )

    def _stops(self, progress: Progress) -> bool:
        patience, best = self.parts.recipe.patience, progress.best
        return patience is not None and best is not None and progress.epoch - best.epoch >= patience

    @property
    def _answers(self) -> bool:
        """Whether the stage trains the student's answer; where it does not, its last epoch is kept."""
        return "logits" in student_taps(self.stage.plan)

    def _last_good(self, way_out: str = " Lower the learning rate or the term's weight, or clip the gradient.") -> str:
        saved = checkpoint.checkpoints(self._checkpoints)
        return f"Last good checkpoint: {saved[-1] if saved else 'none yet'}.{way_out}"


def _restore(state: Mapping[str, Any], trainer: Trainer, learner: Learner) -> None:
    own = learner.state_dict()
    learner.load_state_dict(
        {name: share_of(tensor, own.get(name, tensor)) for name, tensor in state["learner"].items()}
    )
    if trainer.zero is None:
        trainer.optimizer.load_state_dict(shares_of_optimizer(state["optimizer"], trainer.optimizer))
    else:
        trainer.zero.load(state["optimizer"])
    if trainer.average is not None:
        trainer.average.updates = state["updates"]
        for name, tensor in state["average"].items():
            trainer.average.shadow[name].copy_(share_of(tensor, trainer.average.shadow[name]))
    if trainer.start is not None:
        trainer.start.restore(state["start"])
    if trainer.accelerator.scaler is not None:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])
    trainer.go_on(state["unlogged"])
    checkpoint.restore_random_state(state, trainer.accelerator)


def _take_student(state: Mapping[str, Any], model: nn.Module) -> None:
    """Give the student the weights of a checkpoint, the averaged ones where there is an average."""
    model.load_state_dict(_below(_STUDENT, state["learner"]))
    if state["average"] is not None:
        with torch.no_grad():  # parameter by parameter: tied ones have one name in the average, and more in the state
            for name, parameter in model.named_parameters():
                parameter.copy_(state["average"][f"{_STUDENT}{name}"])


def _heads_of(state: State) -> dict[str, State]:
    """{term: its head's state} of a learner's state."""
    terms = dict.fromkeys(name.split(".")[1] for name in state if name.startswith(_HEADS))
    return {term: _below(f"{_HEADS}{term}.", state) for term in terms}


def _below(prefix: str, state: State) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
