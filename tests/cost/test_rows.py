"""What befalls a way at a real batch, and the order in which ways take turns."""

import logging
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distill.cli import run_command
from distill.cost import Subject, Way, measure, ready
from distill.cost.subject import Given
from distill.picture.pareto import _beaten
from distill.speed import check_compiler

CPU = torch.device("cpu")


class Picky(nn.Module):
    """Fails above so many examples."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.fc = most, nn.Linear(48, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        if len(x) > self.most:
            raise RuntimeError(f"takes {self.most} examples, got {len(x)}\nand more lines")
        found: Tensor = self.fc(x.flatten(1))
        return found


def picky(num_classes: int) -> Picky:
    return Picky(2)


def easy(num_classes: int) -> Picky:
    return Picky(999)


def subject(model: nn.Module, name: str = "tiny") -> Subject:
    return Subject(name, model, lambda count: torch.randn(count, 3, 4, 4))


def test_a_failure_at_one_batch_is_told_in_its_row_and_the_rest_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"{__name__}:picky", f"{__name__}:easy", "--batch", "2", "3", "--rounds", "2", "--size", "4"]
    code = run_command(["cost", *words])
    out, error = capsys.readouterr()
    assert code == 0 and error == ""
    assert "picky, eager: failed at batch 3: takes 2 examples, got 3" in " ".join(out.split())


def test_a_failed_row_has_no_times_and_the_others_have_theirs(tmp_path: Path) -> None:
    ways = [ready(subject(Picky(most), str(most)), "eager", "float32", CPU, 1, tmp_path) for most in (2, 9)]
    failed, other = measure(ways, 3, 1, CPU, rounds=2)
    assert failed.seconds is None and failed.memory is None and failed.first_seconds is None
    assert failed.note == "failed at batch 3: takes 2 examples, got 3"
    assert other.seconds is not None and other.note == ""
    # Counted on one example, which both take: 48 values to 2 logits.
    assert failed.multiply_adds == other.multiply_adds == 96


def test_a_failure_amid_the_rounds_is_told_too() -> None:
    calls: list[int] = []

    def run(inputs: torch.Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > limit:
            raise MemoryError
        return torch.zeros(1, 2)

    limit = math.inf
    way = Way(subject(Picky(9)), "onnx", "float32", run)  # type: ignore[arg-type]
    ended: list[int] = []

    def tick() -> None:
        nonlocal limit
        ended.append(1)
        limit = 0

    (row,) = measure([way], 1, 1, CPU, rounds=3, tick=tick)
    assert row.seconds is None and row.note == "failed at batch 1: MemoryError" and len(ended) == 3


def test_a_model_that_can_not_run_at_all_is_told_and_not_raised(tmp_path: Path) -> None:
    way = ready(subject(Picky(0)), "eager", "float32", CPU, 1, tmp_path)
    assert way.run is None and way.note == "failed: takes 0 examples, got 2"
    (row,) = measure([way], 1, 1, CPU, rounds=2)
    assert row.seconds is None and row.multiply_adds is None


def test_all_ways_take_turns_in_changing_order(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def timed(way: Way, inputs: object, passes: int, device: torch.device) -> float:
        said.append(way.way)
        return 1.0

    monkeypatch.setattr("distill.cost.rows._timed", timed)
    names = ("a", "b", "c")
    ways = [Way(subject(Picky(9)), name, "float32", lambda inputs: torch.zeros(1, 2)) for name in names]
    measure(ways, 1, 1, CPU, rounds=12)
    turns = said[-12 * 3 :]
    rounds = [tuple(turns[start : start + 3]) for start in range(0, len(turns), 3)]
    assert all(sorted(one) == list(names) for one in rounds)  # each once a round
    assert {one[0] for one in rounds} == set(names) and len(set(rounds)) > 2


def test_inputs_are_cast_once_and_not_in_a_timed_pass(tmp_path: Path) -> None:
    made: list[int] = []

    def inputs(count: int) -> Tensor:
        made.append(count)
        return torch.randn(count, 3, 4, 4)

    seen: set[tuple[torch.dtype, int]] = set()

    class Spy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.add((x.dtype, x.data_ptr()))
            return super().forward(x.flatten(1))

    one = Subject("spy", Spy(48, 2), inputs)
    way = ready(one, "eager", "bf16", CPU, 1, tmp_path)
    seen.clear()
    measure([way], 5, 1, CPU, rounds=3)
    # All passes in bf16 read the same memory; the other tensor is the single example of the count of multiply-adds.
    assert len([1 for dtype, _ in seen if dtype == torch.bfloat16]) == 1 and made == [2, 5, 1]


def test_half_on_a_cpu_has_a_note(tmp_path: Path) -> None:
    assert "emulated" in ready(subject(Picky(9)), "eager", "fp16", CPU, 1, tmp_path).note
    assert ready(subject(Picky(9)), "eager", "float32", CPU, 1, tmp_path).note == ""


def test_each_batch_tells_its_own_compilation(tmp_path: Path) -> None:
    try:
        check_compiler("cpu")
    except ValueError as error:
        pytest.skip(str(error))
    way = ready(subject(Picky(9)), "compiled", "float32", CPU, 1, tmp_path)
    assert way.note == "" and way.apart <= 1e-5
    for batch in (2, 3):  # at 2 it was tried before
        (row,) = measure([way], batch, 1, CPU, rounds=3)
        assert row.seconds is not None and row.first_seconds is not None and row.note == ""
        assert row.first_seconds > 0.05 > 20 * row.seconds  # a product of 48 takes microseconds, and a compiler long


def test_a_failed_quantisation_leaves_the_log_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")

    def fail(*words: object, **settings: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(quantization, "quantize_dynamic", fail)
    before = logging.getLogger().level
    assert ready(subject(Picky(9)), "int8", "float32", CPU, 1, tmp_path).note == "failed: no"
    assert logging.getLogger().level == before != logging.ERROR


def test_what_no_other_beats_is_the_front() -> None:
    # b costs more than a for less; c costs more for more; d is as good as c and dearer; e is a again.
    spots = [("a", 1.0, 50.0), ("b", 2.0, 40.0), ("c", 3.0, 70.0), ("d", 4.0, 70.0), ("e", 1.0, 50.0)]
    assert [name for name, cost, quality in spots if not _beaten(cost, quality, spots)] == ["a", "c", "e"]


def priced(monkeypatch: pytest.MonkeyPatch, *metrics: str) -> None:
    """Runs of these metrics, whatever is named; and nothing may be measured."""
    found = [Subject(f"runs/{one}", Picky(9), lambda count: torch.zeros(count), 0.9, metric=one) for one in metrics]

    def subjects(names: object, given: Given, allow_import: object) -> list[Subject]:
        return found

    def never(*words: object, **settings: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(module(), "subjects", subjects)
    monkeypatch.setattr(module(), "_measured", never)


def module() -> object:
    return sys.modules["distill.cost.command"]


def test_a_plot_of_two_metrics_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    priced(monkeypatch, "accuracy", "auroc")
    code = run_command(["cost", "runs/a", "runs/b", "--plot", str(tmp_path / "x.png")])
    line = "--plot draws one metric, and runs/accuracy has accuracy, runs/auroc has AUROC. Name runs of one metric"
    assert code == 2 and line in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--out", "--plot"])
def test_where_nothing_can_be_written_nothing_is_measured(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    priced(monkeypatch, "accuracy")
    path = tmp_path / "none" / "x"
    assert run_command(["cost", "runs/a", word, str(path)]) == 2
    assert f"{word} {path} can't be written: there is no folder {path.parent}." in capsys.readouterr().err
    assert run_command(["cost", "runs/a", word, str(tmp_path)]) == 2
    assert f"{word} {tmp_path} can't be written: it is a folder." in capsys.readouterr().err


def test_threads_on_a_gpu_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    priced(monkeypatch, "accuracy")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert run_command(["cost", "runs/a", "--threads", "1", "2"]) == 2
    assert "--threads 1 2 has no effect on --device cuda. Leave it out" in capsys.readouterr().err


def test_settings_of_named_models_are_refused_of_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["cost", "runs/a", "--size", "32"]) == 2
    assert "--size 32 has no effect on runs, which have their own." in capsys.readouterr().err
