"""Steps made cheaper: what each setting changes, that it changes nothing else, and what is refused."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from torch import Tensor, nn
from torch._dynamo.utils import counters

import distill
from distill import speed as speeding
from distill.arms import arm_recipe
from distill.build import stage_trainer, training_feed
from distill.describe import describe
from distill.heads import Connector, Conv1x1, Paraphraser
from distill.losses import Hint, LogitMSE, Overhaul
from distill.pair import Learner, Teacher
from distill.plan import Plan, Term
from distill.recipe import SGD, Model, Recipe, Speed, Stage, apply_overrides, from_json, to_json
from distill.run import Options, train
from distill.taps import Tapped
from distill.trainer import Trainer
from distill.weighting import GradNorm
from tests.compiling import pair
from tests.compiling import quick_backend as quick_backend
from tests.tiny import TinyNet, on_cpu, pair_recipe, parts_of, plain_recipe

KD_ONLY: Plan = {"kd": Term(LogitMSE())}
EVERYTHING = Speed(channels_last=True, compile="both", fold_teacher=True, teacher_precision="bf16")


class Branching(TinyNet):
    """Asks a tensor for its value, which no graph can hold."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2.0 if float(x.sum()) > 0 else 1.0)


def branching(num_classes: int = 10, in_channels: int = 1) -> TinyNet:
    return Branching(num_classes, in_channels, 4, 0.0)


def linear(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36 * in_channels, num_classes))


def built(recipe: Recipe) -> Trainer:
    return stage_trainer(parts_of(recipe), recipe.all_stages()[0], on_cpu(), seed=3)[0]


# As settings


def test_settings_are_changed_by_name_and_written() -> None:
    recipe = apply_overrides(pair_recipe(), ["--speed.compile", "both", "--speed.channels-last"])
    assert recipe.speed == Speed(channels_last=True, compile="both")
    assert from_json(to_json(recipe), ("tests.tiny",)) == recipe
    assert from_json(to_json(pair(EVERYTHING)), ("tests.tiny",)).speed == EVERYTHING
    assert distill.Speed is Speed
    with pytest.raises(ValueError, match=r"speed\.compile"):
        apply_overrides(pair_recipe(), ["--speed.compile", "all"])


TEACHERS_OWN = [
    Speed(compile="teacher"),
    Speed(compile="both"),
    Speed(fold_teacher=True),
    Speed(teacher_precision="bf16"),
]


@pytest.mark.parametrize("speed", TEACHERS_OWN, ids=["teacher", "both", "fold", "precision"])
def test_what_acts_on_a_teacher_is_refused_without_one(speed: Speed) -> None:
    with pytest.raises(ValueError, match=r"speed\.\S+ has no effect where no term asks a teacher"):
        plain_recipe(speed=speed)
    onnx = Model("onnx:teacher.onnx")
    with pytest.raises(ValueError, match=r"speed\.\S+ has no effect on onnx:teacher.onnx, an ONNX file"):
        pair_recipe(speed=speed, teacher=onnx, plan=KD_ONLY)
    with pytest.raises(ValueError, match=r"speed\.\S+ can't be had with shard_teacher"):
        pair_recipe(speed=speed, shard_teacher=True)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="teacher_precision='float32' has no effect beside precision='float32'"):
        pair_recipe(speed=Speed(teacher_precision="float32"), precision="float32")
    for changes in ({"compare_gradients_every": 2}, {"balance": GradNorm()}):
        with pytest.raises(ValueError, match=r"speed\.compile='student' keeps too little for a second gradient"):
            pair_recipe(speed=Speed(compile="student"), **changes)
        assert pair_recipe(speed=Speed(compile="teacher"), **changes).speed is not None


def test_graphs_need_something_compiled_and_a_gpu() -> None:
    with pytest.raises(ValueError, match=r"speed\.cuda_graphs has no effect without speed\.compile"):
        pair_recipe(speed=Speed(cuda_graphs=True))
    recipe = pair(Speed(compile="both", cuda_graphs=True))
    with pytest.raises(ValueError, match=r"speed\.cuda_graphs has no effect on cpu\. Leave it out\."):
        describe(parts_of(recipe), on_cpu())


def test_a_graph_that_can_not_be_recorded_is_told() -> None:
    graphs = Speed(compile="student", cuda_graphs=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        speeding.warn_of_not_recorded(graphs)
    counters["inductor"]["cudagraph_skips"] = 2
    with pytest.warns(UserWarning, match="cuda_graphs: 2 of the compiled graphs can't be recorded"):
        speeding.warn_of_not_recorded(graphs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        speeding.warn_of_not_recorded(Speed(compile="student"))
        speeding.warn_of_not_recorded(None)


def test_what_a_recording_answers_is_copied() -> None:
    """A recording writes where it wrote before; what a caller keeps must not change."""
    tapped = Tapped(TinyNet(10, 1, 4, 0.0), ("logits", "layer1"))
    x = torch.randn(2, 1, 6, 6)
    same = tapped(x)
    tapped.forward = lambda inputs: same  # type: ignore[method-assign]
    assert tapped.answers(x)["logits"] is same["logits"]
    tapped.replayed = True
    copied = tapped.answers(x)
    assert all(torch.equal(copied[tap], same[tap]) and copied[tap] is not same[tap] for tap in same)
    assert Learner(tapped, {"task": "logits"}, {})(x)["task"].data_ptr() != same["logits"].data_ptr()
    assert Teacher(tapped.model, ("logits",)).tapped.replayed is False


def test_a_launcher_that_compiles_or_shards_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True, dynamo_backend="inductor")
    with pytest.raises(ValueError, match="compile='student' compiles what the launcher compiles already"):
        speeding.check_launcher(Speed(compile="student"), accelerator)
    speeding.check_launcher(Speed(channels_last=True), accelerator)
    AcceleratorState._reset_state()
    monkeypatch.setattr(speeding, "asked_to_shard", lambda: "FSDP")
    for speed in (Speed(channels_last=True), Speed(compile="both")):
        with pytest.raises(ValueError, match=r"speed\.(channels_last|compile='both') can't be had under FSDP"):
            speeding.check_launcher(speed, on_cpu())
    speeding.check_launcher(Speed(fold_teacher=True), on_cpu())
    AcceleratorState._reset_state()


@pytest.mark.parametrize("arm", ["plain", "initialized"])
def test_a_control_keeps_what_acts_on_the_student(arm: str) -> None:
    recipe = pair_recipe(speed=EVERYTHING, initialize=distill.SelectWeights(), controls=("plain", "initialized"))
    assert arm_recipe(recipe, arm).speed == Speed(channels_last=True, compile="student")
    assert arm_recipe(recipe, "transferred").speed == EVERYTHING


# As models are met


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            plain_recipe(student=Model("tests.test_speed:linear"), speed=Speed(channels_last=True)),
            "speed.channels_last has no effect on models without 2-d convolutions",
        ),
        (
            pair_recipe(teacher=Model("tests.test_speed:linear"), plan=KD_ONLY, speed=Speed(fold_teacher=True)),
            "speed.fold_teacher has no effect on a teacher without batch norms behind",
        ),
        (
            pair_recipe(
                plan={"hint": Term(Hint(), student="layer1", teacher="layer1.0", head=Conv1x1())}, speed=EVERYTHING
            ),
            "speed.fold_teacher would change tap 'layer1.0', which reads before batch norm 'layer1.1'",
        ),
        (
            pair_recipe(
                plan={"over": Term(Overhaul(), student="layer1", teacher="layer1", head=Connector(norm="layer1.1"))},
                speed=Speed(fold_teacher=True),
            ),
            "speed.fold_teacher takes away batch norms that the head of term 'over' reads",
        ),
        (
            plain_recipe(student=Model("tests.test_speed:branching"), speed=Speed(compile="student")),
            "speed.compile can't make one graph of the student with its taps",
        ),
        (
            pair_recipe(teacher=Model("tests.test_speed:branching"), plan=KD_ONLY, speed=Speed(compile="both")),
            "speed.compile can't make one graph of the teacher with its taps",
        ),
    ],
    ids=["no map", "no norm", "tap", "head", "student", "teacher"],
)
def test_what_has_no_effect_or_changes_what_is_learned_is_refused_before_training(recipe: Recipe, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        describe(parts_of(recipe), on_cpu())
    assert "\n" not in str(refused.value)


def test_a_machine_without_a_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("No working C++ compiler found.\nmore")

    monkeypatch.setattr(torch, "compile", broken)
    speeding.check_compiler.cache_clear()
    with pytest.raises(
        ValueError, match=r"can't be had on this machine \(cpu\): No working C\+\+ compiler found\. Inst"
    ):
        speeding.check_compiler("cpu")


def test_what_is_made_cheaper_is_told_and_the_parts_stay() -> None:
    parts = parts_of(pair(EVERYTHING))
    assert parts.teacher is not None
    before = [copy.deepcopy(model.state_dict()) for model in (parts.student, parts.teacher)]
    text = " ".join(describe(parts, on_cpu()).split())
    assert (
        "Made cheaper by Speed(channels_last=True, compile='both', cuda_graphs=False, fold_teacher=True, "
        "teacher_precision='bf16')" in text
    )
    stage_trainer(parts, parts.recipe.all_stages()[0], on_cpu(), seed=3)
    for model, state in zip((parts.student, parts.teacher), before, strict=True):
        assert {name: tensor.dtype for name, tensor in model.state_dict().items()} == {
            name: tensor.dtype for name, tensor in state.items()
        }
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


# Channels last


def test_channels_last_reaches_both_models_under_their_names() -> None:
    trainer = built(pair(Speed(channels_last=True)))
    assert trainer.teacher is not None
    for model in (trainer.learner, trainer.teacher):
        kernels = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and m.weight.shape[2:] != (1, 1)]
        assert kernels
        assert all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)
    plain = built(pair(None))
    assert [*trainer.learner.state_dict()] == [*plain.learner.state_dict()]


# The teacher's precision


def answers(recipe: Recipe) -> dict[str, Tensor]:
    trainer = built(recipe)
    assert trainer.teacher is not None
    batch = next(iter(training_feed(parts_of(recipe), on_cpu(), seed=3)(0)))[1][0]
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
        found: dict[str, Tensor] = trainer.teacher(batch.inputs)
    return found


def test_a_teacher_in_bf16_answers_as_under_autocast_and_within_its_rounding() -> None:
    half, exact = answers(pair(Speed(teacher_precision="bf16"))), answers(pair(None))
    around = answers(pair(None, precision="bf16"))
    for tap, tensor in half.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, around[tap].float())
        assert 0 < (tensor - exact[tap]).abs().max() <= 2**-6 * exact[tap].abs().max()


def test_a_teacher_in_float32_is_exact_beside_a_student_in_bf16() -> None:
    exact, kept = answers(pair(None)), answers(pair(Speed(teacher_precision="float32"), precision="bf16"))
    assert all(torch.equal(tensor, exact[tap]) for tap, tensor in kept.items())


def test_heads_that_map_the_teacher_get_float32() -> None:
    plan = {"ft": Term(Hint(), student="layer1", teacher="layer1", head=Paraphraser())}
    stage = Stage("first", plan, 1, SGD(lr=0.01))
    recipe = pair(Speed(teacher_precision="bf16"), plan={}, optimizer=None, epochs=None, stages=(stage,))
    window = next(iter(training_feed(parts_of(recipe), on_cpu(), seed=3)(0)))[1]
    assert built(recipe).step(window)["ft"].isfinite()


def test_weights_that_are_shared_stay_as_they_are() -> None:
    tied = nn.ModuleDict({"embed": nn.Embedding(5, 4), "head": nn.Linear(4, 5), "own": nn.Linear(5, 2)})
    tied["head"].weight = tied["embed"].weight
    speeding.in_half(tied)
    kinds = {name: tensor.dtype for name, tensor in tied.state_dict().items()}
    assert kinds["embed.weight"] == kinds["head.weight"] == torch.float32
    assert kinds["own.weight"] == kinds["own.bias"] == torch.bfloat16


def test_attention_of_torch_runs_in_bf16_weights() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    tokens = torch.randn(2, 3, 8)
    exact = layer(tokens)
    speeding.in_half(layer)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert (layer(tokens) - exact).abs().max() < 0.1


# A whole run


def test_a_run_with_everything_ends_with_a_student_that_loads(tmp_path: Path) -> None:
    recipe = pair(EVERYTHING, controls=("plain",), allow_chance_teacher=True, name="quick")
    train(recipe, Options(tmp_path), Console(quiet=True))
    state = torch.load(next((tmp_path / "quick" / "checkpoints").rglob("*.pt")), weights_only=False)
    assert not any("_orig_mod" in name for name in state["learner"])
    assert (tmp_path / "quick" / "student" / "model.safetensors").exists()
