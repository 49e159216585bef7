"""A stopped and resumed run is the straight one to the bit; the student ends with its best epoch's weights."""

import copy
import gc
import io
import json
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from distill import checkpoint, fit, metrics, stopping
from distill.bar import Bar
from distill.batch import Batch
from distill.data import Mix
from distill.evaluate import Predictions
from distill.fit import fit_arm
from distill.heads import Contrast, Conv1x1
from distill.initialize import SelectWeights
from distill.losses import CRD, KD, CrossEntropy, Hint, RKDDistance
from distill.plan import Term
from distill.progress import Best, Progress, read_progress
from distill.recipe import SGD, AdamW, Cosine, LinearDecay, Model, Recipe, Stage
from distill.taps import Tapped
from distill.trainer import NotFinite
from distill.trainer.lines import SHARES
from distill.weighting import GradNorm, Ramp
from tests.processes import run_processes
from tests.tiny import on_cpu, pair_recipe, parts_of, plain_recipe

TIMED = ("examples_per_second", *SHARES)
HINT = Term(Hint(), student="layer1", teacher="layer1", head=Conv1x1())
TASK = {"task": Term(CrossEntropy())}
STEPS = 3  # of an epoch


class Stopped(Exception):
    pass


class StoppingBar(Bar):
    """Stops the run in a step, behind its update, as an interrupt may."""

    def __init__(self, stop: int | None = None) -> None:
        super().__init__(Console(file=io.StringIO()), "test", shows=False)
        self.told: list[int] = []
        self._stop = stop

    def tick(self, examples: int) -> None:
        self.told.append(examples)
        # The first call tells what was done before the run.
        if len(self.told) - 1 == self._stop:
            raise Stopped


@dataclass(frozen=True)
class Ended:
    """What a run leaves, without the time it took."""

    progress: Progress
    weights: dict[str, Tensor]
    lines: list[dict[str, Any]]
    checkpoints: dict[str, Any]


def run(recipe: Recipe, folder: Path, *, resume: bool = False, stop: int | None = None) -> Ended:
    parts = parts_of(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    progress = fit_arm(parts, folder, on_cpu(), seed=recipe.seed, resume=resume, bar=StoppingBar(stop))
    return Ended(
        replace(progress, spent={}),
        {name: tensor.clone() for name, tensor in parts.student.state_dict().items()},
        [{key: value for key, value in line.items() if key not in TIMED} for line in lines_of(folder)],
        {path.name: checkpoint.load_state(path) for path in checkpoint.checkpoints(folder / "checkpoints")},
    )


def stop(recipe: Recipe, folder: Path, step: int, *, resume: bool = False) -> None:
    with pytest.raises(Stopped):
        run(recipe, folder, resume=resume, stop=step)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps_of(folder: Path) -> list[int]:
    return [checkpoint.step_of(path) for path in checkpoint.checkpoints(folder / "checkpoints")]


def same(one: Any, other: Any) -> bool:
    """Whether two nested values are equal to the bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def assert_same(one: Ended, other: Ended) -> None:
    assert one.progress == other.progress
    assert one.lines == other.lines
    assert same(one.weights, other.weights)
    assert same(one.checkpoints, other.checkpoints)


@pytest.fixture(scope="module", autouse=True)
def quick_garbage() -> Iterator[None]:
    """Each stage ends with a collection of garbage, which need not look through all that was imported before."""
    gc.freeze()
    yield
    gc.unfreeze()


# Resume


def hard_recipe() -> Recipe:
    """All that has a state: dropout, mixing, augmentation, averages, a measured start and the
    pull to it, two stages with heads, schedules and ramps.
    """
    return pair_recipe(
        student=Model("tests.tiny:net", arguments={"dropout": 0.3}),
        initialize=SelectWeights(choose="activation"),
        reestimate_batchnorm=2,
        plan={},
        optimizer=None,
        epochs=None,
        stages=(
            Stage(
                "transfer",
                {"hint": HINT, "kd": Term(KD(), schedule=Ramp(epochs=1))},
                epochs=2,
                optimizer=AdamW(lr=0.01),
                schedule=Cosine(warmup_epochs=0.5),
                freeze=("fc.bias",),
                decay_to_start=0.05,
            ),
            Stage(
                "fine-tune",
                {
                    "task": Term(CrossEntropy(), weight=0.5),
                    "kd": Term(KD(temperature=2.0), weight=0.5),
                    "samples": Term(RKDDistance(), student="embedding", teacher="embedding"),
                },
                epochs=3,
                optimizer=SGD(lr=0.1),
                schedule=LinearDecay(),
                decay_to_start=0.05,
            ),
        ),
        micro_batch_size=5,
        mix=Mix(mixup=0.5, cutmix=0.5),
        clip=1.0,
        ema=0.9,
        patience=3,
        seed=4,
        log_every=2,
        keep_checkpoints=1,
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    ended = run(hard_recipe(), tmp_path_factory.mktemp("straight"))
    assert ended.progress.epochs == 5 and ended.progress.step == 15
    return ended


@pytest.mark.parametrize(
    ("stops", "resumed_behind"),
    [
        ((2,), 0),
        ((3,), 0),
        ((4,), 3),
        ((7,), 6),
        ((8,), 6),
        ((11,), 9),
        ((15,), 12),
        ((4, 2, 4, 4), 9),
    ],
    ids=[
        "in the first epoch",
        "at the end of the first epoch, before it is saved",
        "behind an epoch",
        "exactly at a stage's end",
        "in the first epoch of a stage",
        "in an epoch",
        "in the last step",
        "again and again",
    ],
)
def test_a_stopped_run_resumes_to_the_same_bits(
    stops: tuple[int, ...], resumed_behind: int, straight: Ended, tmp_path: Path
) -> None:
    for number, step in enumerate(stops):
        stop(hard_recipe(), tmp_path, step, resume=number > 0)
    assert max(steps_of(tmp_path), default=0) == resumed_behind
    assert_same(run(hard_recipe(), tmp_path, resume=True), straight)


def test_resuming_a_finished_run_trains_nothing(straight: Ended, tmp_path: Path) -> None:
    run(hard_recipe(), tmp_path)
    bar = StoppingBar(stop=1)
    parts = parts_of(hard_recipe())
    progress = fit_arm(parts, tmp_path, on_cpu(), seed=4, resume=True, bar=bar)
    assert replace(progress, spent={}) == straight.progress
    assert same(dict(parts.student.state_dict()), straight.weights)
    assert bar.told == [5 * 36]


def test_a_run_that_stopped_while_it_saved_resumes_to_the_same_bits(
    straight: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, write = [], torch.save

    def half(state: Any, file: Any) -> None:
        saved.append(state)
        if len(saved) == 3:
            file.write(b"PK half a file")
            raise Stopped
        write(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(Stopped):
            run(hard_recipe(), tmp_path)
    assert steps_of(tmp_path) == [6]
    assert_same(run(hard_recipe(), tmp_path, resume=True), straight)
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_tensorboard_shows_a_resumed_run_once(straight: Ended, tmp_path: Path) -> None:
    for step in (2, 11):
        stop(hard_recipe(), tmp_path, step, resume=True)
    run(hard_recipe(), tmp_path, resume=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("raw/kd")]
    assert shown == [(line["step"], pytest.approx(line["raw"]["kd"])) for line in straight.lines if "raw" in line]
    assert [step for step, _ in shown] == [2, 3, 5, 6, 8, 9, 11, 12, 14, 15]


def test_the_bar_hears_of_all_examples_and_of_those_already_done(tmp_path: Path) -> None:
    stop(plain_recipe(), tmp_path, 5)
    bar = StoppingBar()
    fit_arm(parts_of(plain_recipe()), tmp_path, on_cpu(), seed=0, resume=True, bar=bar)
    assert bar.told == [36, *[12] * 6]


# Several processes


def in_process(folder: Path) -> list[Ended]:
    recipe = hard_recipe()
    stop(recipe, folder / "stopped", 11)
    on_cpu().wait_for_everyone()
    if on_cpu().is_main_process:
        shutil.copytree(folder / "stopped", folder / "copy")
    return [run(recipe, folder / "straight"), run(recipe, folder / "stopped", resume=True)]


@pytest.mark.slow
def test_two_processes_resume_to_the_same_bits_and_one_process_may_not_go_on(tmp_path: Path) -> None:
    (straight, resumed), others = run_processes(in_process, 2, tmp_path, tmp_path)
    assert_same(resumed, straight)
    assert same(others[0].weights, straight.weights) and same(others[1].weights, straight.weights)
    states = straight.checkpoints[f"step-{straight.progress.step:08d}"]["random"]
    assert len(states) == 2 and not torch.equal(states[0]["torch"], states[1]["torch"])
    assert [line["step"] for line in straight.lines if "validation" in line] == [3, 6, 9, 12, 15]
    with pytest.raises(ValueError, match="is of 2 processes and this run has 1"):
        run(hard_recipe(), tmp_path / "copy", resume=True)


# Damage


@pytest.mark.parametrize("content", [b"", b"PK half a file"])
def test_a_damaged_checkpoint_is_named_and_nothing_is_trained(content: bytes, tmp_path: Path) -> None:
    stop(plain_recipe(), tmp_path, 5)
    (path,) = checkpoint.checkpoints(tmp_path / "checkpoints")
    (path / "state.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"step-00000003 can't be read: its state\.pt is damaged"):
        run(plain_recipe(), tmp_path, resume=True)
    assert steps_of(tmp_path) == [3]


def test_the_checkpoint_before_a_damaged_one_leads_to_the_same_bits(tmp_path: Path) -> None:
    recipe = plain_recipe(keep_checkpoints=2)
    straight = run(recipe, tmp_path / "straight")
    stop(recipe, tmp_path / "stopped", 8)
    newest = checkpoint.checkpoints(tmp_path / "stopped" / "checkpoints")[-1]
    assert newest.name == "step-00000006"
    (newest / "state.pt").write_bytes((newest / "state.pt").read_bytes()[:-7])
    with pytest.warns(UserWarning, match=r"step-00000006 can't be read: its state\.pt is damaged"):
        assert_same(run(recipe, tmp_path / "stopped", resume=True), straight)


# Within an epoch


@pytest.mark.parametrize("step", range(2, 16))
def test_a_run_that_stopped_in_any_step_goes_on_from_there_to_the_same_bits(
    step: int, straight: Ended, tmp_path: Path
) -> None:
    """Each step is saved; a run that is stopped in one goes on behind the step before it, with the same log."""
    recipe = replace(hard_recipe(), checkpoint_every=1)
    stop(recipe, tmp_path, step)
    assert max(steps_of(tmp_path)) == step - 1
    resumed = run(recipe, tmp_path, resume=True)
    assert resumed.progress == straight.progress and resumed.lines == straight.lines
    assert same(resumed.weights, straight.weights)


def test_a_bank_and_compared_gradients_go_on_within_an_epoch(tmp_path: Path) -> None:
    head = Contrast(examples=None, width=4, negatives=3)
    plan = {**TASK, "crd": Term(CRD(), student="embedding", teacher="embedding", head=head)}
    recipe = pair_recipe(plan=plan, compare_gradients_every=2, log_every=5, checkpoint_every=1, balance=GradNorm())
    straight = run(recipe, tmp_path / "straight")
    stop(recipe, tmp_path / "stopped", 5)
    resumed = run(recipe, tmp_path / "stopped", resume=True)
    assert resumed.lines == straight.lines and same(resumed.weights, straight.weights)
    assert any("gradient_norms" in line or "gradients" in line for line in straight.lines)


@pytest.mark.parametrize("step", [8, 9, 6, 15], ids=["amid an epoch", "an epoch's end", "a stage's end", "the end"])
def test_a_signal_saves_behind_its_step_and_the_run_goes_on_to_the_same_bits(
    step: int, straight: Ended, tmp_path: Path
) -> None:
    class Signalling(StoppingBar):
        def tick(self, examples: int) -> None:
            super().tick(examples)
            if len(self.told) - 1 == step:
                signal.raise_signal(signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(
        stopping.Stopped, match=rf"SIGTERM stopped .* behind step {step}; it is saved\. Go on with --resume"
    ):
        fit_arm(parts_of(hard_recipe()), tmp_path, on_cpu(), seed=4, resume=False, bar=Signalling())
    assert signal.getsignal(signal.SIGTERM) is handler
    assert max(steps_of(tmp_path)) == step
    assert_same(run(hard_recipe(), tmp_path, resume=True), straight)


def test_other_data_than_the_run_began_with_are_refused(tmp_path: Path) -> None:
    stop(plain_recipe(), tmp_path, 5)
    parts = parts_of(plain_recipe())
    parts.splits.train.labels = parts.splits.train.labels[:30]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"began with 36 training, .* and now there are 30, 12 and 12"):
        fit_arm(parts, tmp_path, on_cpu(), seed=0, resume=True, bar=StoppingBar())


def test_no_weights_that_are_not_finite_are_saved_within_an_epoch(tmp_path: Path) -> None:
    recipe = plain_recipe(optimizer=SGD(lr=1e30), checkpoint_every=1, log_every=50)
    with pytest.raises(NotFinite, match="at step 2"):
        run(recipe, tmp_path)
    assert steps_of(tmp_path) == [1]


# The chosen weights

Quality = tuple[float, float]


class Judge:
    """Says how good the student is after each epoch, and keeps the weights that were judged."""

    def __init__(self, qualities: Sequence[Quality]) -> None:
        self._left = iter(qualities)
        self.judged: list[dict[str, Tensor]] = []

    def evaluate(self, model: Tapped, loader: Iterator[Batch], accelerator: Accelerator) -> Predictions:
        self.judged.append({name: tensor.clone() for name, tensor in model.model.state_dict().items()})
        return Predictions(torch.empty(0, 3), torch.empty(0, dtype=torch.long))

    def quality(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        accuracy, nll = next(self._left)
        return {"accuracy": accuracy, "nll": nll}


Judging = Callable[..., Judge]


@pytest.fixture
def judging(monkeypatch: pytest.MonkeyPatch) -> Judging:
    def begin(*qualities: float | Quality) -> Judge:
        judge = Judge([one if isinstance(one, tuple) else (one, 1.0) for one in qualities])
        monkeypatch.setattr(fit, "evaluate", judge.evaluate)
        monkeypatch.setattr(metrics, "quality", judge.quality)
        return judge

    return begin


@pytest.mark.parametrize("ema", [None, 0.5])
@pytest.mark.parametrize("source", ["net", "TiedNet"])
@pytest.mark.parametrize(
    ("qualities", "best"),
    [
        ([0.2, 0.6, 0.4, 0.5], 1),
        ([0.2, 0.3, 0.4, 0.5], 3),
        ([0.6, (0.6, 0.9), (0.6, 0.95), 0.6], 1),
        ([0.6, 0.6, 0.6, 0.6], 0),
    ],
    ids=["higher accuracy", "the last", "lower loss", "the first of equals"],
)
def test_the_student_ends_with_the_weights_that_were_best(
    qualities: list[float | Quality], best: int, source: str, ema: float | None, judging: Judging, tmp_path: Path
) -> None:
    judge = judging(*qualities)
    recipe = plain_recipe(student=Model(f"tests.tiny:{source}"), epochs=4, ema=ema)
    ended = run(recipe, tmp_path)
    assert ended.progress.best is not None
    assert (ended.progress.best.epoch, ended.progress.best.step) == (best, STEPS * (best + 1))
    assert [same(ended.weights, weights) for weights in judge.judged] == [number == best for number in range(4)]
    state = ended.checkpoints[f"step-{STEPS * (best + 1):08d}"]
    kept = {**state["learner"], **(state["average"] or {})}
    for name, tensor in ended.weights.items():
        if name != "second.weight":  # it has the other name of the same parameter in the average
            assert torch.equal(kept[f"student.model.{name}"], tensor)
    assert set(ended.checkpoints) == {f"step-{STEPS * (best + 1):08d}", "step-00000012"}


@pytest.mark.parametrize(("keep", "left"), [(1, [6, 15]), (2, [6, 12, 15]), (9, [3, 6, 9, 12, 15])])
def test_the_newest_checkpoints_and_the_best_are_kept(
    keep: int, left: list[int], judging: Judging, tmp_path: Path
) -> None:
    judging(0.2, 0.6, 0.4, 0.5, 0.1)
    run(plain_recipe(epochs=5, keep_checkpoints=keep), tmp_path)
    assert steps_of(tmp_path) == left


@pytest.mark.parametrize(
    ("qualities", "patience", "epochs"),
    [
        ([0.5, 0.6, 0.1, 0.2, 0.9, 0.9], 2, 4),
        ([0.5, 0.6, 0.1, 0.7, 0.2, 0.9], 2, 6),
        ([0.5, 0.4, 0.9, 0.9, 0.9, 0.9], 1, 2),
        ([0.5, (0.5, 0.9), 0.4, 0.9, 0.9, 0.9], 1, 3),
    ],
)
def test_training_stops_when_it_was_patient(
    qualities: list[float | Quality], patience: int, epochs: int, judging: Judging, tmp_path: Path
) -> None:
    judging(*qualities)
    ended = run(plain_recipe(epochs=6, patience=patience), tmp_path)
    assert ended.progress.epochs == epochs and ended.progress.step == STEPS * epochs


def early_recipe() -> Recipe:
    """Two stages that stop early; the second moves the classifier alone."""
    first = Stage("first", TASK, epochs=5, optimizer=SGD(lr=0.1))
    second = Stage("second", TASK, epochs=5, optimizer=SGD(lr=0.1), freeze=("layer*",))
    return plain_recipe(plan={}, optimizer=None, epochs=None, stages=(first, second), patience=2, ema=0.8)


EARLY = (0.5, 0.9, 0.4, 0.3, 0.1, 0.2, 0.2, 0.1)


def test_each_stage_has_its_own_best_and_the_next_begins_with_it(judging: Judging, tmp_path: Path) -> None:
    """Both stages stop after four epochs, of which the second was best, though the other stage's are all worse."""
    judge = judging(*EARLY)
    ended = run(early_recipe(), tmp_path)
    assert ended.progress == Progress(stage=1, epoch=3, step=24, epochs=8, best=Best(1, 18, 0.2, 1.0))
    for name in ("layer1.0.weight", "layer2.0.weight"):
        assert torch.equal(ended.weights[name], judge.judged[1][name])
        assert not torch.equal(ended.weights[name], judge.judged[3][name])
    assert same(ended.weights, judge.judged[5])


@pytest.mark.parametrize(("step", "judged"), [(8, 2), (13, 4), (14, 4), (19, 6)])
def test_early_stopping_survives_a_resume(step: int, judged: int, judging: Judging, tmp_path: Path) -> None:
    """Step 13 is the first of the second stage: the stop lies behind an early end, which must not be trained past."""
    judging(*EARLY)
    straight = run(early_recipe(), tmp_path / "straight")
    judging(*EARLY)
    stop(early_recipe(), tmp_path / "stopped", step)
    judging(*EARLY[judged:])
    assert_same(run(early_recipe(), tmp_path / "stopped", resume=True), straight)


def test_a_stage_that_does_not_train_the_answer_keeps_its_last_epoch(judging: Judging, tmp_path: Path) -> None:
    """Its accuracy is that of an untrained classifier: it decides neither the epoch nor the end."""
    judge = judging(0.9, 0.2, 0.1)
    ended = run(pair_recipe(plan={"hint": HINT}, epochs=3, patience=1, keep_checkpoints=1), tmp_path)
    assert ended.progress.epochs == 3
    assert ended.progress.best is not None and ended.progress.best.epoch == 2
    assert same(ended.weights, judge.judged[2]) and steps_of(tmp_path) == [9]


def test_a_run_leaves_no_hooks_and_the_teacher_as_it_was(tmp_path: Path) -> None:
    parts = parts_of(hard_recipe())
    assert parts.teacher is not None
    before = copy.deepcopy(parts.teacher.state_dict())
    fit_arm(parts, tmp_path, on_cpu(), seed=4, resume=False, bar=StoppingBar())
    assert same(dict(parts.teacher.state_dict()), dict(before))
    for model in (parts.student, parts.teacher):
        assert not any(module._forward_hooks for module in model.modules())


# Numbers that break


@dataclass(frozen=True)
class Breaking:
    """A learning rate that explodes at some epoch."""

    at: float

    def factor(self, epoch: float, epochs: int) -> float:
        return 1e30 if self.at <= epoch < epochs else 1.0


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (0.3, r"loss of term 'task' is nan at step 3.*Last good checkpoint: none yet"),
        (1.3, r"loss of term 'task' is nan at step 6.*Last good checkpoint: .*step-00000003\."),
        (1.6, r"loss on the validation examples is nan at step 6.*Last good checkpoint: .*step-00000003\."),
    ],
)
def test_numbers_that_break_name_the_last_good_checkpoint(at: float, message: str, tmp_path: Path) -> None:
    recipe = plain_recipe(schedule=Breaking(at), student=Model("tests.tiny:TiedNet"))
    with pytest.raises(NotFinite, match=message):
        run(recipe, tmp_path)
    assert steps_of(tmp_path) == ([3] if at > 1 else [])


def test_a_checkpoint_of_another_release_is_named(tmp_path: Path) -> None:
    fit_arm(parts_of(plain_recipe(epochs=1)), tmp_path, on_cpu(), seed=0, resume=False, bar=StoppingBar(None))
    newest = checkpoint.checkpoints(tmp_path / "checkpoints")[-1]
    told = json.loads((newest / "progress.json").read_text())
    del told["spent"]
    (newest / "progress.json").write_text(json.dumps(told))
    with pytest.raises(
        ValueError, match=r"step-00000003 is of another release of distill\. Start anew with --overwrite"
    ):
        read_progress(newest)
