"""`distill plan --tune`: what is tried, what is kept, what fails or finds no time, and that nothing is left behind."""

import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from rich.console import Console
from torch import Tensor

from distill import tune as tuning
from distill.build import make_accelerator
from distill.cli import run_command
from distill.recipe import Model, Recipe, Speed, apply_overrides
from distill.running import cut, start
from distill.trial import Settings, Trial, advice, merged, table, words
from distill.tune import attempt, candidates, tune
from tests.commands import PAIR, snapshot
from tests.tiny import TinyNet, pair_recipe, parts_of, plain_recipe

BF16: Settings = (("precision", "bf16"),)
LAST: Settings = (("speed.channels_last", "true"),)
FOLD: Settings = (("speed.fold_teacher", "true"),)
HALF: Settings = (("speed.teacher_precision", "bf16"),)


def compiled(which: str) -> Settings:
    return (("speed.compile", which),)


class Sleeping(TinyNet):
    """Sleeps where its kernels are not channels last, and longer where it runs in bf16."""

    def forward(self, x: Tensor) -> Tensor:
        answer = super().forward(x)
        last = self.layer2[0].weight.is_contiguous(memory_format=torch.channels_last)
        time.sleep((0.0 if last else 0.03) + (0.06 if answer.dtype == torch.bfloat16 else 0.0))
        return answer


def sleeping(num_classes: int = 10, in_channels: int = 1) -> TinyNet:
    return Sleeping(num_classes, in_channels, 4, 0.0)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    torch.compiler.reset()
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def without_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_COMPILE_SECONDS", 1e9)


def tuned(recipe: Recipe, seconds: float = 20.0) -> str:
    out = Console(file=StringIO(), width=200)
    tune(parts_of(recipe), seconds, out)
    assert isinstance(out.file, StringIO)
    return out.file.getvalue()


def row(text: str, *settings: str) -> list[str]:
    """The cells of the row whose settings are these, one a line."""
    lines = [line for line in text.splitlines() if line.startswith("│")]
    names = [line.strip("│").split("│")[0].strip() for line in lines]
    for at in range(len(lines)):
        if tuple(names[at : at + len(settings)]) == settings and lines[at].strip("│").split("│")[-1].strip():
            return [cell.strip() for cell in lines[at].strip("│").split("│")]
    raise AssertionError(f"{settings} is not in\n{text}")


def test_what_is_tried_is_what_could_help_and_is_not_set() -> None:
    both = candidates(parts_of(pair_recipe()), pair_recipe(), half=False)
    assert both == [BF16, LAST, BF16 + LAST, FOLD, HALF, compiled("student"), compiled("both"), compiled("teacher")]
    alone = candidates(parts_of(plain_recipe()), plain_recipe(), half=False)
    assert alone == [BF16, LAST, BF16 + LAST, compiled("student")]
    linear = plain_recipe(student=Model("tests.test_speed:linear"))
    assert candidates(parts_of(linear), linear, half=False) == [BF16, compiled("student")]
    halved = pair_recipe(precision="bf16", speed=Speed(channels_last=True, compile="both"))
    found = candidates(parts_of(halved), halved, half=True)
    assert found[0] == (("precision", "float32"),)
    assert LAST not in found and compiled("both") not in found and FOLD in found


def test_what_helps_is_kept_and_what_harms_is_not(without_compiling: None) -> None:
    """By the clock of the student itself: channels last saves 30 ms of a step, bf16 costs 60."""
    text = tuned(plain_recipe(student=Model("tests.test_tune:sleeping")))
    assert row(text, "precision bf16")[-1] == "slower"
    assert row(text, "speed.channels_last true")[-1] == "kept"
    assert float(row(text, "speed.channels_last true")[2]) < 0.7 < 1.3 < float(row(text, "precision bf16")[2])
    assert row(text, "speed.channels_last true", "speed.compile student")[-1] == "no time left"
    assert "To try those without time: --tune " in text
    last = text.splitlines()[-1]
    assert last.endswith(" of its time with: --speed.channels_last true")
    pasted = apply_overrides(plain_recipe(), last.partition("with: ")[2].split())
    assert pasted.speed == Speed(channels_last=True)


def test_what_fails_is_told_in_a_line_and_the_others_go_on(without_compiling: None) -> None:
    hint = replace(pair_recipe().plan["hint"], teacher="layer1.0")
    text = tuned(pair_recipe(plan={"hint": hint, "task": pair_recipe().plan["task"]}))
    (line,) = [line for line in text.splitlines() if "failed" in line]
    assert "failed: speed.fold_teacher would change tap 'layer1.0', which reads before" in line
    after = text[text.index("failed") : text.index("no time left")]
    assert "speed.teacher_precision bf16" in after
    assert any(outcome in after for outcome in ("kept", "slower", "no gain"))


def test_an_error_of_torch_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("No kernel for this machine.\nTraceback")

    base = start(parts_of(pair_recipe()), pair_recipe(), 12)
    monkeypatch.setattr("distill.build.quicken", broken)
    assert attempt(parts_of(pair_recipe()), base, LAST, 1.0, 0.0) == Trial(LAST, "failed: No kernel for this machine")


def test_without_time_nothing_is_tried_and_that_is_told() -> None:
    began = time.perf_counter()
    text = tuned(pair_recipe(), seconds=1e-3)
    assert time.perf_counter() - began < 20
    assert text.count("no time left") == 8
    assert "Nothing that was tried makes a step cheaper here." in text


def test_a_step_that_takes_too_long_is_cut_and_that_is_told(without_compiling: None) -> None:
    """A step of 12 examples takes 30 ms or more; 8 steps of each of 3 trials in 80% of 0.5 s leave 17 ms for one."""
    text = tuned(plain_recipe(student=Model("tests.test_tune:sleeping")), seconds=0.5)
    assert "a step of 12 examples takes" in text
    assert "is measured instead." in text
    batch = start(parts_of(plain_recipe()), plain_recipe(), 5).windows[0]
    assert [len(part) for part in batch] == [5]
    assert [len(part) for part in cut([*batch, *batch, *batch], 7)] == [5, 2]


def test_models_and_folders_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuning, "_COMPILE_SECONDS", 1e9)
    parts = parts_of(pair_recipe())
    assert parts.teacher is not None
    before = [copy.deepcopy(model.state_dict()) for model in (parts.student, parts.teacher)]
    tune(parts, 3.0, Console(quiet=True))
    for model, state in zip((parts.student, parts.teacher), before, strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
        assert not any(module._forward_hooks for module in model.modules())
    assert snapshot(tmp_path) == {}


def test_each_takes_turns_under_its_own_precision() -> None:
    """Accelerators share one state: on a GPU a teacher in bf16 would run in fp16 behind one in float32."""
    parts = parts_of(pair_recipe())
    half, exact = (start(parts, pair_recipe(precision=name), 12) for name in ("bf16", "float32"))
    seen: list[tuple[torch.dtype, str]] = []
    for running in (half, exact, half):
        teacher = running.trainer.teacher
        assert teacher is not None
        handle = teacher.register_forward_hook(
            lambda m, a, answers: seen.append((answers["logits"].dtype, AcceleratorState().mixed_precision))
        )
        running.steps(1)
        handle.remove()
    assert seen == [(torch.bfloat16, "bf16"), (torch.float32, "no"), (torch.bfloat16, "bf16")]


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_of(plain_recipe())
    accelerator = make_accelerator(plain_recipe())
    monkeypatch.setattr(type(accelerator), "num_processes", property(lambda self: 2))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="--tune measures in one process"):
        tune(parts, 1.0, Console(quiet=True))


def test_waiting_for_data_is_told_and_processes_are_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = {0: 0.5, 2: 0.1}
    monkeypatch.setattr(tuning, "_waits", lambda parts, base, workers, step: waits[workers])
    base = start(parts_of(plain_recipe()), plain_recipe(), 12)
    line, found = tuning._loading(parts_of(plain_recipe()), base, 1.0, time.perf_counter() + 99)
    assert line == "A step waits for its batch 500.0 ms with workers=0, 100.0 ms with workers=2."
    assert found == (("workers", "2"),)
    assert tuning._loading(parts_of(plain_recipe()), base, 20.0, time.perf_counter() + 99)[1] == ()
    assert tuning._loading(parts_of(plain_recipe()), base, 1.0, time.perf_counter())[1] == ()


def test_loading_is_timed() -> None:
    recipe = plain_recipe(batch_size=4)
    base = start(parts_of(recipe), recipe, 4)
    for workers, step in ((0, False), (1, True)):
        found = tuning._waits(parts_of(recipe), base, workers, step=step)
        assert found is not None and 0 < found < 1
    three = start(parts_of(plain_recipe()), plain_recipe(), 12)
    assert tuning._waits(parts_of(plain_recipe()), three, 0, step=False) is None


def test_the_table_and_the_line_to_paste() -> None:
    both = merged(BF16, LAST)
    assert merged(both, (("precision", "float32"),)) == (("precision", "float32"), *LAST)
    assert words(both) == ["--precision", "bf16", "--speed.channels_last", "true"]
    best = Trial(both, "kept", 0.0123, 0.456, 1.5, 3 * 2**20)
    assert advice(best) == "A step takes 0.46 of its time with: --precision bf16 --speed.channels_last true"
    assert advice(Trial((), "as it is", 1.0, 1.0), (("workers", "2"),)) == "To wait less: --workers 2"
    out = Console(file=StringIO(), width=120)
    out.print(table([best, Trial(FOLD, "failed: [red]no[/red]")]))
    assert isinstance(out.file, StringIO)
    text = out.file.getvalue()
    assert row(text, "precision bf16", "speed.channels_last true")[1:] == ["12.3", "0.46", "1.5", "3", "kept"]
    assert row(text, "speed.fold_teacher true")[1:] == ["", "", "", "", "failed: [red]no[/red]"]


def test_the_command_prints_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAIR.replace(', weights="runs/teacher"', "").replace("repeats=2,", "allow_chance_teacher=True,")
    Path("pair.py").write_text(text)
    before = snapshot(tmp_path)
    assert run_command(["plan", "pair.py", "--tune", "0.001", "--epochs", "1"]) == 0
    assert "Stage train on cpu" in capsys.readouterr().out
    assert {name: content for name, content in snapshot(tmp_path).items() if "__pycache__" not in name} == before
    assert run_command(["plan", "pair.py", "--tune", "-1"]) == 2
    assert "argument --tune: takes seconds above zero, got '-1'" in capsys.readouterr().err
