"""A student sharded over processes is trained to what a whole one is; a checkpoint of it is whole, and goes on."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill import checkpoint
from distill.build import make_accelerator, stage_trainer
from distill.fit import fit_arm
from distill.losses import CrossEntropy
from distill.plan import Term
from distill.prepare import load_splits, prepare
from distill.recipe import SGD, AdamW, Recipe, Stage
from distill.weighting import GradNorm
from tests.end_to_end.test_resume import BANK, DROPPING, RECIPES
from tests.processes import run_processes
from tests.test_fit import Stopped, StoppingBar, same
from tests.tiny import pair_recipe, plain_recipe

ASKED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true"}
STAGES = (
    Stage("features", {"crd": BANK}, 1, AdamW(lr=0.01)),
    Stage("answers", {"task": Term(CrossEntropy()), "crd": BANK}, 1, SGD(lr=0.1, momentum=0.9)),
)
TRIED: dict[str, Recipe] = {
    **RECIPES,
    "two stages, a head that goes on": pair_recipe(
        student=DROPPING, plan={}, optimizer=None, epochs=None, stages=STAGES
    ),
    "AdamW, clipping, bf16": pair_recipe(optimizer=AdamW(lr=0.01), clip=0.5, precision="bf16"),
}


def trained(recipe: Recipe, folder: Path, *, stop: int | None = None, resume: bool = False) -> dict[str, Tensor]:
    """The student's weights at the end."""
    accelerator = make_accelerator(recipe)
    parts = prepare(recipe, load_splits(recipe, recipe.seed, Path("runs")), recipe.seed, Path("runs"))
    folder.mkdir(parents=True, exist_ok=True)
    fit_arm(parts, folder, accelerator, seed=recipe.seed, resume=resume, bar=StoppingBar(stop))
    return {name: tensor.clone().cpu() for name, tensor in parts.student.state_dict().items()}


def in_process(folder: Path, variables: dict[str, str]) -> dict[str, dict[str, Tensor]]:
    os.environ.update(variables)
    return {name: trained(recipe, folder / name) for name, recipe in TRIED.items()}


def stopped_in_process(folder: Path, variables: dict[str, str]) -> dict[str, dict[str, Tensor]]:
    os.environ.update(variables)
    found = {}
    for name, recipe in TRIED.items():
        often = replace(recipe, checkpoint_every=1)
        with pytest.raises(Stopped):
            trained(often, folder / name, stop=5)
        found[name] = trained(often, folder / name, resume=True)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sharded_student_is_trained_as_a_whole_one_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    plain = run_processes(in_process, 2, tmp_path, tmp_path / "plain", {})
    sharded = run_processes(in_process, 2, tmp_path, tmp_path / "sharded", ASKED)
    again = run_processes(stopped_in_process, 2, tmp_path, tmp_path / "stopped", ASKED)
    for name in TRIED:
        near = {"rtol": 1e-5, "atol": 1e-5} if "bf16" not in name else {"rtol": 1e-2, "atol": 1e-2}
        torch.testing.assert_close(
            sharded[0][name], plain[0][name], **near, msg=lambda text, name=name: f"{name}: {text}"
        )
        for other in (sharded[1], again[0], again[1]):
            assert same(other[name], sharded[0][name]), name


def weights_kept(recipe: Recipe, folder: Path) -> tuple[dict[str, Tensor], list[int], dict[str, Any]]:
    """The student, the sizes of this process's shares of its weights, and a checkpoint."""
    os.environ.update(ASKED)
    accelerator = make_accelerator(recipe)
    parts = prepare(recipe, load_splits(recipe, 0, Path("runs")), 0, Path("runs"))
    trainer, learner = stage_trainer(parts, recipe.all_stages()[0], accelerator, 0)
    sizes = [parameter.to_local().numel() for parameter in learner.student.parameters()]
    assert trainer.teacher is not None
    theirs = [getattr(p, "to_local", lambda p=p: p)().numel() for p in trainer.teacher.parameters()]
    student = trained(recipe, folder)
    newest = checkpoint.checkpoints(folder / "checkpoints")[-1]
    return student, [sum(sizes), sum(theirs)], checkpoint.load_state(newest)


@pytest.mark.slow
def test_three_processes_keep_a_third_each_and_a_checkpoint_is_whole(tmp_path: Path) -> None:
    """A first dimension that three does not divide is shared unevenly."""
    recipe = pair_recipe(epochs=1, shard_teacher=True, optimizer=AdamW(lr=0.01))
    found = run_processes(weights_kept, 3, tmp_path, recipe, tmp_path / "run")
    parts = prepare(recipe, load_splits(recipe, 0, Path("runs")), 0, Path("runs"))
    values = [sum(p.numel() for p in model.parameters()) for model in (parts.student, parts.teacher)]  # type: ignore[union-attr]
    for which in (0, 1):
        assert sum(sizes[which] for _, sizes, _ in found) == values[which]
        assert max(sizes[which] for _, sizes, _ in found) < 0.5 * values[which]
    student, _, state = found[0]
    assert state["learner"]["student.model.fc.weight"].shape == student["fc.weight"].shape
    assert torch.equal(state["learner"]["student.model.fc.weight"], student["fc.weight"])
    moments = state["optimizer"]["state"][0]
    assert moments["exp_avg"].shape == student["layer1.0.weight"].shape


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, r"zero_stage: 3 is not built in.* or with fsdp2\.yaml"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "x.json"}, "config_file: x.json has no effect here"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, "offload_optimizer_device: cpu has no eff"),
        ({**ZERO, "ACCELERATE_GRADIENT_CLIPPING": "1.0"}, "gradient_clipping: 1.0 has no effect here"),
        ({**ZERO, "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "gradient_accumulation_steps: 4 has no effect here"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "MEGATRON_LM is not built in"),
        ({"ACCELERATE_USE_FSDP": "true"}, r"by FSDP 2 alone\. Launch with .*fsdp2\.yaml"),
        ({**ASKED, "FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params has no effect here"),
        ({**ASKED, "FSDP_ACTIVATION_CHECKPOINTING": "True"}, "fsdp_activation_checkpointing has no effect here"),
    ],
)
def test_what_is_not_built_is_refused(variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=said):
        make_accelerator(plain_recipe())


def test_settings_that_do_not_meet_sharding_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="shard_teacher has no effect under this launcher"):
        make_accelerator(pair_recipe(shard_teacher=True))
    with pytest.raises(ValueError, match="shard_teacher has no effect without a teacher"):
        plain_recipe(shard_teacher=True)
    for name, value in ASKED.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="compare_gradients_every=2 compares gradients at one layer"):
        make_accelerator(pair_recipe(compare_gradients_every=2))
    with pytest.raises(ValueError, match=r"balance=GradNorm.* compares gradients at one layer"):
        make_accelerator(pair_recipe(balance=GradNorm()))
