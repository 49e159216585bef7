"""Every loss trains as a recipe: alone and beside cross-entropy, in float32 and bf16, in one process and in two."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

import distill.losses
from distill.build import make_accelerator, stage_trainer, training_feed
from distill.prepare import load_splits, prepare
from distill.recipe import Recipe, from_json, to_json
from tests.every_loss import BATCH, CASES, EXAMPLES, recipe
from tests.processes import run_processes


@pytest.fixture(autouse=True)
def own_precision() -> None:
    AcceleratorState._reset_state()


def five_steps(one: Recipe, accelerator: Accelerator) -> tuple[Tensor, list[Mapping[str, object]]]:
    """The student's parameters after an epoch of each stage, and the log's lines."""
    parts = prepare(one, load_splits(one, 0, Path("runs")), 0, Path("runs"))
    if parts.teacher is not None:
        with torch.no_grad():  # away from the student, which may be of the same kind
            for parameter in parts.teacher.parameters():
                parameter.mul_(1.5)
    heads: Mapping[str, nn.Module] = {}
    lines: list[Mapping[str, object]] = []
    for stage in one.all_stages():
        trainer, learner = stage_trainer(parts, stage, accelerator, 0, heads)
        feed = training_feed(parts, accelerator, 0)
        trainer.fit(feed, epochs=range(1), after_epoch=lambda epoch: False, log=lines.append, log_every=1)
        learner.student.close()
        if trainer.teacher is not None:
            trainer.teacher.tapped.close()
        heads = dict(learner.heads.items())
        accelerator.free_memory()
    assert EXAMPLES // BATCH == 5
    assert len(lines) == 5 * len(one.all_stages())
    return torch.cat([parameter.detach().flatten() for parameter in parts.student.parameters()]), lines


def test_every_loss_has_a_case() -> None:
    names = {name for name, item in vars(distill.losses).items() if isinstance(item, type) and is_dataclass(item)}
    tried = {type(term.loss).__name__ for case in CASES.values() for term in case.plan.values()}
    # A masked language model answers with words and not with the data's classes: it is tried in tests/test_terms.py.
    assert tried == names - {"MaskedLanguageModel"}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("together", [False, True], ids=["alone", "beside cross-entropy"])
def test_a_loss_trains_for_five_steps_as_a_recipe(name: str, together: bool) -> None:
    whole = recipe(name, together=together)
    assert from_json(to_json(whole), allow_import=("tests",)) == whole
    start = prepare(whole, load_splits(whole, 0, Path("runs")), 0, Path("runs")).student
    before = torch.cat([parameter.detach().flatten() for parameter in start.parameters()])
    after, lines = five_steps(whole, make_accelerator(whole))
    assert after.isfinite().all()
    assert not torch.equal(before, after)
    low = recipe(name, together=together, precision="bf16")
    in_bf16, low_lines = five_steps(low, make_accelerator(low))
    assert in_bf16.isfinite().all()
    first, low_first = (float(some[0]["loss"]) for some in (lines, low_lines))  # type: ignore[arg-type]
    assert low_first == pytest.approx(first, rel=0.05, abs=0.02)


def in_process() -> dict[str, Tensor]:
    found = {}
    for name, case in CASES.items():
        for together in (False, True):
            for precision in ("float32", "bf16"):
                one = recipe(name, together=together, precision=precision)
                student, _ = five_steps(one, make_accelerator(one))
                assert student.isfinite().all(), name
                if case.exact and precision == "float32":
                    found[f"{name} {together}"] = student
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_make_the_same_student_as_one_by_every_loss(tmp_path: Path) -> None:
    first, second = run_processes(in_process, 2, tmp_path)
    assert len(first) > 50
    for key, student in first.items():
        name, _, together = key.rpartition(" ")
        one = recipe(name, together=together == "True", precision="float32")
        alone, _ = five_steps(one, make_accelerator(one))
        torch.testing.assert_close(student, second[key], rtol=0, atol=0, msg=lambda text, key=key: f"{key}: {text}")
        torch.testing.assert_close(student, alone, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
