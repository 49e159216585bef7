"""Every loss trains as a recipe: alone and beside cross-entropy, in float32 and bf16, in one process, two and three."""

from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import distill.losses
from distill import SGD
from distill.build import make_accelerator, stage_trainer, training_feed
from distill.prepare import load_splits, prepare
from distill.recipe import Recipe, from_json, to_json
from tests.every_loss import BATCH, CASES, EXAMPLES, recipe
from tests.processes import run_processes

# {(case, whether beside cross-entropy): (the student's parameters, the log's lines)}
Students = dict[tuple[str, bool], tuple[Tensor, list[Mapping[str, object]]]]


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
    heads: Mapping[str, Mapping[str, Tensor]] = {}
    lines: list[Mapping[str, object]] = []
    for stage in one.all_stages():
        trainer, learner = stage_trainer(parts, stage, accelerator, 0, heads)
        feed = training_feed(parts, accelerator, 0)
        trainer.fit(feed, epochs=range(1), after_epoch=lambda epoch: False, log=lines.append, log_every=1)
        learner.student.close()
        if trainer.teacher is not None:
            trainer.teacher.tapped.close()
        heads = {name: head.state_dict() for name, head in learner.heads.items()}
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


def uneven(name: str, *, together: bool, **changes: Any) -> Recipe:
    """Five steps of a case in batches of 9, the last of 4, which neither two nor three processes share evenly."""
    one = replace(recipe(name, together=together, **changes), batch_size=9)
    # With fixed statistics the distances of Overhaul's maps are hundreds, and a step of 0.02 would break the student.
    return replace(one, optimizer=SGD(lr=1e-4)) if name == "Overhaul" else one


def five_exact_steps(name: str, one: Recipe) -> tuple[Tensor, list[Mapping[str, object]]]:
    """`five_steps`, where BatchNorm keeps its first statistics: while it trains each process has its own."""
    if CASES[name].exact:
        return five_steps(one, make_accelerator(one))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_BatchNorm, "train", lambda norm, mode=True: nn.Module.train(norm, False))
        return five_steps(one, make_accelerator(one))


def students(micro_batch_size: int | None) -> Students:
    """What every case makes, alone and beside cross-entropy."""
    cases = [(name, together) for name in CASES for together in (False, True)]
    cut = {"micro_batch_size": micro_batch_size, "precision": "float32"}
    return {case: five_exact_steps(case[0], uneven(case[0], together=case[1], **cut)) for case in cases}


@pytest.fixture(scope="module")
def alone() -> Students:
    """Of one process, whose every step is one forward pass."""
    return students(None)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_make_the_same_student_as_one_by_every_loss(
    processes: int, alone: Students, tmp_path: Path
) -> None:
    results = run_processes(students, processes, tmp_path, 2)
    assert len(results[0]) == len(alone) == 2 * len(CASES)
    for case, (expected, expected_lines) in alone.items():
        student, lines = results[0][case]
        assert all(torch.equal(result[case][0], student) for result in results), case
        torch.testing.assert_close(student, expected, rtol=0, atol=1e-5, msg=lambda text, case=case: f"{case}: {text}")
        for line, whole in zip(lines, expected_lines, strict=True):
            assert line["raw"] == pytest.approx(whole["raw"], rel=1e-5, abs=1e-5), f"{case}, step {whole['step']}"


def in_process_and_bf16() -> dict[str, Tensor]:
    recipes = {name: recipe(name, together=True, precision="bf16") for name in CASES}
    return {name: five_steps(one, make_accelerator(one))[0] for name, one in recipes.items()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_in_bf16_keep_one_student_by_every_loss(tmp_path: Path) -> None:
    first, second = run_processes(in_process_and_bf16, 2, tmp_path)
    assert set(first) == set(CASES)
    for name, student in first.items():
        assert student.isfinite().all() and torch.equal(student, second[name]), name
