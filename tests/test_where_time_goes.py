"""What is slow shows in the share of its part, in the log and over a run; the time is told by hand here."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.optim import optimizer

from distill import checkpoint, clock
from distill.batch import Batch
from distill.data import Examples
from distill.fit import fit_arm
from distill.losses import KD, RKDDistance
from distill.plan import Term
from distill.progress import Progress, read_progress
from distill.recipe import Recipe
from distill.trainer.lines import SHARES
from tests.test_fit import Stopped, StoppingBar
from tests.tiny import on_cpu, pair_recipe, parts_of

# Seconds that each takes at every call; all else takes none.
TEACHER, FORWARD, LOSSES, BACKWARD, OPTIMIZER, WAIT, CHECKPOINTS = 2.0, 3.0, 4.0, 5.0, 6.0, 12.0, 8.0
STEP = TEACHER + FORWARD + LOSSES + BACKWARD + OPTIMIZER + WAIT

Run = Callable[..., Progress]
now = 0.0


def takes(seconds: float) -> None:
    global now
    now += seconds


@dataclass(frozen=True)
class SlowKD(KD):
    def __call__(self, student: Tensor, teacher: Tensor | None, batch: Batch) -> Tensor:
        takes(LOSSES)
        return super().__call__(student, teacher, batch)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Trains a pair of which each part takes its time: two epochs of three steps, the validation one batch."""
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now)

    def slowed(owner: Any, name: str, seconds: float) -> None:
        known = getattr(owner, name)

        def slow(*args: Any, **settings: Any) -> Any:
            takes(seconds)
            return known(*args, **settings)

        monkeypatch.setattr(owner, name, slow)

    slowed(Examples, "__getitems__", WAIT)
    slowed(checkpoint, "save", CHECKPOINTS)
    handle = optimizer.register_optimizer_step_post_hook(lambda *given: takes(OPTIMIZER))

    def one(recipe: Recipe, folder: Path, *, stop: int | None = None, resume: bool = False) -> Progress:
        parts = parts_of(recipe)
        folder.mkdir(exist_ok=True)
        assert parts.teacher is not None
        parts.teacher.register_forward_pre_hook(lambda *given: takes(TEACHER))
        parts.student.register_forward_pre_hook(lambda *given: takes(FORWARD))
        parts.student.fc.weight.register_hook(lambda gradient: takes(BACKWARD))
        return fit_arm(parts, folder, on_cpu(), seed=0, resume=resume, bar=StoppingBar(stop))

    yield one
    handle.remove()


def recipe(**changes: Any) -> Recipe:
    return pair_recipe(plan={"kd": Term(SlowKD())}, log_every=2, **changes)


def trained_lines(folder: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line]


def test_each_slow_part_shows_in_its_own_share(run: Run, tmp_path: Path) -> None:
    """By hand: a step takes 2 + 3 + 4 + 5 + 6 + 12 = 32 seconds, and a line tells of two steps, or of one."""
    run(recipe(), tmp_path)
    lines = trained_lines(tmp_path)
    assert [line["step"] for line in lines] == [2, 3, 5, 6]
    expected = [TEACHER, FORWARD, LOSSES, BACKWARD, OPTIMIZER, WAIT, 0.0, 0.0]
    for line in lines:
        assert {name: line[name] for name in SHARES} == pytest.approx(
            {name: seconds / STEP for name, seconds in zip(SHARES, expected, strict=True)}
        )
    assert lines[0]["examples_per_second"] == pytest.approx(24 / (2 * STEP))


def test_a_checkpoint_within_an_epoch_shows_in_the_next_line(run: Run, tmp_path: Path) -> None:
    run(recipe(checkpoint_every=2), tmp_path)
    shares = [line["checkpoints_share"] for line in trained_lines(tmp_path)]
    # Steps 2 and 4 save: behind the line of step 2, and amid that of steps 4 and 5.
    assert shares == pytest.approx([0.0, CHECKPOINTS / (STEP + CHECKPOINTS), CHECKPOINTS / (2 * STEP + CHECKPOINTS), 0])


def test_losses_of_the_whole_batch_count_as_losses_and_the_teacher_is_asked_once(run: Run, tmp_path: Path) -> None:
    """By hand: three micro-batches, each with a first pass of the student for the loss that relates examples."""
    plan = {"kd": Term(SlowKD()), "distance": Term(RKDDistance(), student="embedding", teacher="embedding")}
    cut = pair_recipe(plan=plan, micro_batch_size=4, epochs=1)
    spent = run(cut, tmp_path).spent
    assert spent["teacher"] == 9 * TEACHER and spent["forward"] == 2 * 9 * FORWARD
    assert spent["losses"] == 9 * LOSSES and spent["backward"] == 9 * BACKWARD


def test_a_run_knows_where_all_its_time_went(run: Run, tmp_path: Path) -> None:
    """By hand: six steps, two validations of one batch each, two checkpoints."""
    progress = run(recipe(), tmp_path)
    parts = {
        "teacher": 6 * TEACHER, "forward": 6 * FORWARD, "losses": 6 * LOSSES, "backward": 6 * BACKWARD,
        "optimizer": 6 * OPTIMIZER, "wait": 6 * WAIT, "checkpoints": 2 * CHECKPOINTS,
        "evaluation": 2 * (WAIT + FORWARD), "other": 0.0,
    }  # fmt: skip
    assert progress.spent == pytest.approx(parts)
    assert progress.seconds == pytest.approx(sum(parts.values()))


@pytest.mark.parametrize("stop", [4, 5, 6])
def test_a_resumed_run_keeps_the_time_that_was_spent_before(run: Run, stop: int, tmp_path: Path) -> None:
    """The steps behind the checkpoint were lost with their time, and so was the writing of that checkpoint."""
    with pytest.raises(Stopped):
        run(recipe(), tmp_path / "stopped", stop=stop)
    (saved,) = checkpoint.checkpoints(tmp_path / "stopped" / "checkpoints")
    assert read_progress(saved).seconds == pytest.approx(3 * STEP + WAIT + FORWARD)
    resumed = run(recipe(), tmp_path / "stopped", resume=True)
    straight = run(recipe(), tmp_path / "straight").spent
    assert resumed.spent == pytest.approx({**straight, "checkpoints": straight["checkpoints"] - CHECKPOINTS})
