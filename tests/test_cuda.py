"""On a GPU: half precision stays near float32, loss scaling leaves out what overflows, a resume is exact to the bit.

Run by hand where there is one; everywhere else these are skipped.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from torch import Tensor
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

from distill.bar import Bar
from distill.batch import Batch
from distill.build import make_accelerator, stage_trainer, training_feed
from distill.data import Mix
from distill.fit import fit_arm
from distill.heads import Contrast, Conv1x1
from distill.losses import CRD, KD, CrossEntropy, Hint, RKDDistance, SimilarityPreserving
from distill.plan import Plan, Term
from distill.prepare import load_splits, prepare
from distill.recipe import SGD, Model, Recipe, Speed
from distill.trainer import Trainer
from tests import every_loss
from tests.tiny import pair_recipe, parts_of

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    # Which settings of TensorFloat32 are old differs between releases of torch.
    pytest.mark.filterwarnings("ignore:.*TF32:UserWarning"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation:UserWarning"),
]

DROPPING = Model("tests.tiny:net", arguments={"dropout": 0.3})
FEATURES: Plan = {
    "task": Term(CrossEntropy()),
    "kd": Term(KD(temperature=2.0)),
    "hint": Term(Hint(), student="layer1", teacher="layer1", head=Conv1x1(norm=False)),
    "distance": Term(RKDDistance(), student="embedding", teacher="embedding"),
}
MEMORIES: Plan = {
    "task": Term(CrossEntropy()),
    "samples": Term(SimilarityPreserving(), student="embedding", teacher="embedding"),
    "bank": Term(CRD(), 0.1, student="embedding", teacher="embedding", head=Contrast(36, width=4, negatives=5)),
    "queue": Term(CRD(), 0.1, student="embedding", teacher="embedding", head=Contrast(None, width=4, negatives=9)),
}
PRECISIONS = ("float32", "bf16", "fp16")


@pytest.fixture(autouse=True)
def deterministic_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A state of Accelerate that no test on the CPU left behind, and kernels that add in the same order each time."""
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
    AcceleratorState._reset_state(reset_partial_state=True)


def tiny(precision: str, **changes: Any) -> Recipe:
    """Three steps an epoch, small enough that rounding does not grow."""
    base = {
        "plan": FEATURES,
        "precision": precision,
        "optimizer": SGD(lr=0.02),
        "epochs": 7,
        "log_every": 1,
        "clip": 1.0,
    }
    return pair_recipe(**{**base, **changes})


def trained(recipe: Recipe) -> list[Any]:
    """The log's lines of 21 steps."""
    accelerator, lines = make_accelerator(recipe), list[Any]()
    assert accelerator.device.type == "cuda"
    parts = parts_of(recipe)
    trainer, _ = stage_trainer(parts, recipe.all_stages()[0], accelerator, 0)
    feed = training_feed(parts, accelerator, 0)
    trainer.fit(feed, epochs=range(7), after_epoch=lambda epoch: False, log=lines.append, log_every=1)
    assert next(parts.student.parameters()).dtype == torch.float32
    return lines


# Half precision


@pytest.mark.parametrize(("precision", "first", "later"), [("bf16", 0.02, 0.05), ("fp16", 0.005, 0.03)])
def test_half_precision_stays_near_float32(precision: str, first: float, later: float) -> None:
    """bf16 keeps 8 bits, steps of 0.4%, and fp16 11, of 0.05%: each loss of the first steps, and of all 21, clipped."""
    whole, half = trained(tiny("float32")), trained(tiny(precision))
    assert [line["raw"] for line in whole] != [line["raw"] for line in half]
    for wide, narrow in zip(whole, half, strict=True):
        share = first if wide["step"] < 4 else later
        assert narrow["raw"] == pytest.approx(wide["raw"], rel=share, abs=share / 20), f"step {wide['step']}"
        assert narrow["gradient_norm"] == pytest.approx(wide["gradient_norm"], rel=0.1), f"step {wide['step']}"


# Loss scaling


def accelerator_of(recipe: Recipe, scale: float = 2.0**34) -> Accelerator:
    """The recipe's accelerator, whose loss scaling, in fp16, begins at `scale`."""
    accelerator = make_accelerator(recipe)
    if recipe.precision == "fp16":
        # Down to 2^14 at once where 2^34 overflows, so that a single step is left out.
        accelerator.scaler = torch.amp.GradScaler(accelerator.device.type, init_scale=scale, backoff_factor=2.0**-20)
    return accelerator


def scaled(scale: float, **settings: Any) -> tuple[Trainer, list[list[Batch]]]:
    """A trainer in fp16 whose loss scaling begins at `scale`, and the windows of an epoch."""
    recipe = tiny("fp16", **settings)
    accelerator, parts = accelerator_of(recipe, scale), parts_of(recipe)
    trainer, _ = stage_trainer(parts, recipe.all_stages()[0], accelerator, 0)
    trainer.learner.train()
    return trainer, [list(window) for _, window in training_feed(parts, accelerator, 0)(0)]


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.learner.parameters()])


@pytest.mark.parametrize("micro_batch_size", [None, 5])
def test_an_update_that_overflows_in_fp16_is_one_that_never_was(micro_batch_size: int | None) -> None:
    one, windows = scaled(2.0**34, micro_batch_size=micro_batch_size)
    before = weights(one)
    means = one.step(windows[0])
    assert not means["gradient_norm"].isfinite() and means["task"].isfinite()
    assert torch.equal(weights(one), before)
    assert one.accelerator.scaler is not None and one.accelerator.scaler.get_scale() == 2.0**14
    fine, _ = scaled(2.0**14, micro_batch_size=micro_batch_size)
    for window in windows:
        assert one.step(window)["gradient_norm"].isfinite()
        fine.step(window)
    assert not torch.equal(weights(one), before)
    assert torch.equal(weights(one), weights(fine))


def test_a_run_whose_first_update_overflows_goes_on_and_logs_it() -> None:
    one, windows = scaled(2.0**34)
    lines: list[Any] = []
    one.fit(
        lambda epoch, start: ((epoch + step / 3, window) for step, window in enumerate(windows)),
        epochs=range(7),
        after_epoch=lambda epoch: False,
        log=lines.append,
        log_every=1,
    )
    assert [line["step"] for line in lines] == list(range(1, 22))
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert weights(one).isfinite().all()


# Resume


class Stopped(Exception):
    pass


class StoppingBar(Bar):
    """Stops the run behind the update of a step."""

    def __init__(self, stop: int | None) -> None:
        super().__init__(Console(file=io.StringIO()), "test", shows=False)
        self._left = None if stop is None else stop + 1  # the first call tells what was done before the run

    def tick(self, examples: int) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Stopped


def student_of(recipe: Recipe, folder: Path, *, stop: int | None = None, resume: bool = False) -> dict[str, Tensor]:
    """The student's weights at the end of a run, which is stopped behind a step or goes on."""
    parts = prepare(recipe, load_splits(recipe, 0, Path("runs")), 0, Path("runs"))
    folder.mkdir(parents=True, exist_ok=True)
    fit_arm(parts, folder, accelerator_of(recipe), seed=0, resume=resume, bar=StoppingBar(stop))
    return {name: tensor.clone() for name, tensor in parts.student.state_dict().items()}


HARD: dict[str, dict[str, Any]] = {
    "features": {"plan": FEATURES, "mix": Mix(mixup=0.5), "micro_batch_size": 5},
    "memories": {"plan": MEMORIES},
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("what", HARD)
def test_a_run_goes_on_within_an_epoch_to_the_same_bits(what: str, precision: str, tmp_path: Path) -> None:
    """With dropout, an average, mixtures, micro-batches, memories and, in fp16, a scale that the first step lowered."""
    recipe = tiny(precision, student=DROPPING, ema=0.9, checkpoint_every=1, epochs=3, **HARD[what])
    straight = student_of(recipe, tmp_path / "straight")
    with pytest.raises(Stopped):
        student_of(recipe, tmp_path / "stopped", stop=5)
    resumed = student_of(recipe, tmp_path / "stopped", resume=True)
    assert resumed.keys() == straight.keys()
    for name, tensor in straight.items():
        assert tensor.device.type == "cuda" and torch.equal(resumed[name], tensor), name


# CUDA graphs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "precision"),
    [("features", "float32"), ("features", "bf16"), ("features", "fp16"), ("memories", "float32")],
)
def test_what_is_replayed_is_what_is_compiled(what: str, precision: str) -> None:
    """Over ragged micro-batches, dropout, relations over them, memories: each of 21 steps, and nothing is left out."""
    settings = {"student": DROPPING, "ema": 0.9, **HARD[what]}
    compiled = trained(tiny(precision, speed=Speed(compile="both"), **settings))
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as seen:
        replayed = trained(tiny(precision, speed=Speed(compile="both", cuda_graphs=True), **settings))
    assert counters["inductor"]["cudagraph_skips"] == 0
    assert sum("cudaGraphLaunch" in event.key for event in seen.key_averages()) > 0
    share = 0.02 if precision == "bf16" else 1e-4  # steps of 0.4%, which operations fused otherwise round otherwise
    for one, other in zip(compiled, replayed, strict=True):
        assert other["raw"] == pytest.approx(one["raw"], rel=share, abs=share / 10), f"step {one['step']}"
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=10 * share), f"step {one['step']}"


@pytest.mark.slow
def test_a_replayed_run_goes_on_within_an_epoch_to_the_same_bits(tmp_path: Path) -> None:
    speed = Speed(compile="both", cuda_graphs=True)
    recipe = tiny("bf16", student=DROPPING, speed=speed, ema=0.9, checkpoint_every=1, epochs=3, **HARD["features"])
    straight = student_of(recipe, tmp_path / "straight")
    with pytest.raises(Stopped):
        student_of(recipe, tmp_path / "stopped", stop=5)
    resumed = student_of(recipe, tmp_path / "stopped", resume=True)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in straight.items())


# Every loss


def first_losses(names: Sequence[str], accelerator: Accelerator) -> dict[str, dict[str, Tensor]]:
    """The losses and the gradient norm of each case's first step, beside cross-entropy."""
    found = {}
    for name in names:
        recipe = every_loss.recipe(name, together=True, precision="float32", micro_batch_size=3)
        parts = prepare(recipe, load_splits(recipe, 0, Path("runs")), 0, Path("runs"))
        trainer, learner = stage_trainer(parts, recipe.all_stages()[-1], accelerator, 0)
        trainer.learner.train()
        _, window = next(iter(training_feed(parts, accelerator, 0)(0)))
        found[name] = {term: mean.cpu() for term, mean in trainer.step(window).items()}
        learner.student.close()
        if trainer.teacher is not None:
            trainer.teacher.tapped.close()
        accelerator.free_memory()
    return found


@pytest.mark.slow
def test_every_loss_and_its_gradient_are_those_of_the_cpu() -> None:
    """Within 1%, and the gradient 5%: a GPU multiplies with 11 bits in its convolutions (TensorFloat32)."""
    names = list(every_loss.CASES)
    on_gpu = first_losses(names, make_accelerator(every_loss.recipe(names[0], together=True, precision="float32")))
    AcceleratorState._reset_state(reset_partial_state=True)
    on_cpu = first_losses(names, Accelerator(cpu=True))
    for name, expected in on_cpu.items():
        for term, mean in expected.items():
            bound = pytest.approx(float(mean), rel=0.05 if term == "gradient_norm" else 0.01, abs=1e-4)
            assert float(on_gpu[name][term]) == bound, f"{name}: {term}"
