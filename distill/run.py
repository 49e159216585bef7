"""A recipe from start to report: the transferred student and its controls, over seeds, under one budget."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import nn

from distill import metrics
from distill.bar import Bar
from distill.batch import Batch
from distill.build import (
    Parts,
    answering,
    arm_recipe,
    evaluation_loader,
    load_splits,
    main_arm,
    make_accelerator,
    prepare,
    sample_batch,
)
from distill.data import Splits
from distill.describe import describe
from distill.evaluate import Predictions, evaluate
from distill.fit import fit_arm
from distill.measure import file_size, latency, machine, multiply_adds, parameters, versions
from distill.models import save_student
from distill.recipe import Recipe, to_json
from distill.report import Cost, Outcome, Report, markdown, render
from distill.report import to_json as report_to_json
from distill.view import View


@dataclass(frozen=True)
class Options:
    """How a run is started.

    root: the folder of runs. resume: go on where a run of the same name and recipe stopped. overwrite: remove it first.
    """

    root: Path = Path("runs")
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class TeacherAnswers:
    """What the teacher says about the validation and test examples, and whether its classes are the student's."""

    validation: Predictions
    test: Predictions


def train(recipe: Recipe, options: Options, console: Console) -> Report:
    """Train every arm of a recipe under every seed, and write the report into the run's folder.

    Raises:
        ValueError: something in the recipe, the data, the weights or the run's folder does not fit; named before any
        training.
    """
    accelerator = make_accelerator(recipe)
    console.quiet = not accelerator.is_main_process
    folder = options.root / recipe.name
    _open_folder(folder, recipe, options, accelerator)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    main, first = main_arm(recipe), recipe.seed
    parts = prepare(recipe, load_splits(recipe, first), first, options.root)
    answers = _teacher_answers(parts, accelerator)
    if answers is not None and not recipe.allow_chance_teacher:
        _refuse_chance(parts, answers.validation)
    text = describe(parts, accelerator)
    if accelerator.is_main_process:
        (folder / "plan.txt").write_text(text)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    outcomes = []
    for seed in range(first, first + recipe.repeats):
        splits = parts.splits if seed == first else load_splits(recipe, seed)
        for arm in (main, *recipe.controls):
            place = folder if (arm, seed) == (main, first) else folder / "arms" / f"{arm}-{seed}"
            outcomes.append(_arm(recipe, arm, splits, seed, place, accelerator, answers, options, console))
    report = _report(recipe, parts, outcomes, answers, accelerator, folder, started)
    if accelerator.is_main_process:
        _write(folder / "report.json", report_to_json(report))
        _write(folder / "report.md", markdown(report))
    console.print(render(report))
    console.print(f"Report: {folder / 'report.md'}", markup=False, highlight=False, soft_wrap=True)
    return report


def plan(recipe: Recipe, options: Options, console: Console) -> None:
    """Print what a recipe would do: models, arrows, heads, coverage, memory and steps; nothing is trained or written.

    Raises:
        ValueError: something does not fit; named.
    """
    accelerator = make_accelerator(recipe)
    console.quiet = not accelerator.is_main_process
    parts = prepare(recipe, load_splits(recipe, recipe.seed), recipe.seed, options.root)
    console.print(describe(parts, accelerator), markup=False, highlight=False, soft_wrap=True)
    if parts.coverage is not None:
        console.print(parts.coverage.table())


def _open_folder(folder: Path, recipe: Recipe, options: Options, accelerator: Accelerator) -> None:
    """Make the run's folder, or take it up again; what another run wrote is never overwritten unasked."""
    path, text = folder / "recipe.json", to_json(recipe)
    if accelerator.is_main_process and options.overwrite and folder.exists():
        if not path.exists():
            raise ValueError(
                f"{folder} is not the folder of a run, so --overwrite leaves it alone. Choose another name or --root."
            )
        shutil.rmtree(folder)
    accelerator.wait_for_everyone()
    if path.exists():
        if not options.resume:
            raise ValueError(
                f"{folder} holds a run already. Go on with --resume auto, start anew with --overwrite, or change "
                f"--name."
            )
        if changed := _changed(json.loads(path.read_text()), json.loads(text)):
            raise ValueError(
                f"{folder} holds a run of another recipe ({changed}), so it can't be resumed with this one. "
                "Change --name, or start anew with --overwrite."
            )
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, text)
        except OSError as error:
            raise ValueError(
                f"{folder} can't be written: {error.strerror}. Choose another folder with --root."
            ) from error


def _changed(before: Any, now: Any, path: str = "") -> str:
    """The first setting in which two recipes differ, with both values; empty where they are the same."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*now, *(key for key in before if key not in now)]:
            if found := _changed(before.get(key), now.get(key), f"{path}.{key}" if path else str(key)):
                return found
        return ""
    return "" if before == now else f"{path}: {before} there, {now} here"


def _arm(
    recipe: Recipe,
    arm: str,
    splits: Splits,
    seed: int,
    folder: Path,
    accelerator: Accelerator,
    answers: TeacherAnswers | None,
    options: Options,
    console: Console,
) -> Outcome:
    result = folder / "result.json"
    if options.resume and result.exists():
        return _read_outcome(json.loads(result.read_text()))
    parts = prepare(arm_recipe(recipe, arm), splits, seed, options.root)
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()
    with Bar(console, f"{recipe.name} · {arm} · seed {seed}", shows=accelerator.is_main_process) as bar:
        progress = fit_arm(parts, folder, accelerator, seed=seed, resume=options.resume, bar=bar)
    test = _answers(parts, parts.student, parts.student_view, accelerator, "test")
    validation = _answers(parts, parts.student, parts.student_view, accelerator, "validation")
    teacher = None if answers is None else answers.test.logits
    assert progress.best is not None
    outcome = Outcome(
        arm=arm,
        seed=seed,
        test=metrics.quality(test.logits, test.labels),
        validation=metrics.quality(validation.logits, validation.labels),
        agreement=None if teacher is None else metrics.agreement(test.logits, teacher),
        divergence=None if teacher is None else metrics.divergence(test.logits, teacher),
        epochs=progress.epochs,
        steps=progress.step,
        best_epoch=progress.best.epoch + 1,
        seconds=progress.seconds,
        correct=tuple((test.logits.argmax(1) == test.labels).tolist()),
    )
    if accelerator.is_main_process:
        save_student(folder / "student", parts.student, _student_config(parts))
        _write(result, json.dumps(asdict(outcome)))
    accelerator.wait_for_everyone()
    return outcome


def _student_config(parts: Parts) -> dict[str, Any]:
    model, view = parts.recipe.student, parts.student_view
    return {
        "source": model.source,
        "arguments": dict(model.arguments),
        "num_classes": len(parts.splits.classes),
        "in_channels": int(parts.splits.train[(0, 0)].image.shape[0]),
        "classes": list(parts.splits.classes),
        "view": asdict(view),
    }


def _teacher_answers(parts: Parts, accelerator: Accelerator) -> TeacherAnswers | None:
    if parts.teacher is None or not parts.comparable:
        return None
    parts.teacher.eval()
    return TeacherAnswers(
        _answers(parts, parts.teacher, parts.teacher_view, accelerator, "validation"),
        _answers(parts, parts.teacher, parts.teacher_view, accelerator, "test"),
    )


def _answers(parts: Parts, model: nn.Module, view: View, accelerator: Accelerator, split: str) -> Predictions:
    examples = {"validation": parts.splits.validation, "test": parts.splits.test}[split]
    return evaluate(
        answering(model, view, accelerator), evaluation_loader(examples, parts.recipe, accelerator), accelerator
    )


def _refuse_chance(parts: Parts, predictions: Predictions) -> None:
    accuracy = metrics.accuracy(predictions.logits, predictions.labels)
    if not metrics.above_chance(accuracy, predictions.labels):
        assert parts.recipe.teacher is not None
        raise ValueError(
            f"Teacher {parts.recipe.teacher.source} is right on {accuracy:.1%} of the validation examples, which is "
            f"chance. "
            "Check its weights, classes and view; --allow-chance-teacher trains from it all the same."
        )


def _report(
    recipe: Recipe,
    parts: Parts,
    outcomes: list[Outcome],
    answers: TeacherAnswers | None,
    accelerator: Accelerator,
    folder: Path,
    started: str,
) -> Report:
    teacher = None
    if answers is not None:
        teacher = {
            "test": metrics.quality(answers.test.logits, answers.test.labels),
            "validation": metrics.quality(answers.validation.logits, answers.validation.labels),
        }
    sample = sample_batch(parts.splits, 32)
    return Report(
        name=recipe.name,
        recipe=json.loads(to_json(recipe)),
        seeds=tuple(range(recipe.seed, recipe.seed + recipe.repeats)),
        headline="accuracy",
        has_teacher=parts.teacher is not None,
        teacher=teacher,
        outcomes=tuple(outcomes),
        teacher_cost=None
        if parts.teacher is None
        else _cost(parts.teacher, parts.teacher_view, sample, accelerator, None),
        student_cost=_cost(
            parts.student, parts.student_view, sample, accelerator, folder / "student" / "model.safetensors"
        ),
        coverage=None if parts.coverage is None else parts.coverage.to_json(),
        versions=versions(),
        machine=machine(),
        started=started,
        notes=parts.notes,
        chosen_on="validation",
    )


def _cost(model: nn.Module, view: View, sample: Batch, accelerator: Accelerator, file: Path | None) -> Cost:
    inputs = sample.to(accelerator.device).inputs
    assert isinstance(inputs, torch.Tensor)
    model.to(accelerator.device).eval()
    seen = view.module().to(accelerator.device)(inputs)
    size = file_size(file) if file is not None and file.exists() else sum(t.nbytes for t in model.state_dict().values())
    return Cost(
        parameters=parameters(model),
        multiply_adds=multiply_adds(model, seen[:1]),
        bytes=size,
        latency_one=latency(model, seen[:1]),
        latency_batch=latency(model, seen),
        batch=len(seen),
    )


def _read_outcome(values: Mapping[str, Any]) -> Outcome:
    return replace(Outcome(**values), correct=tuple(values["correct"]))


def _write(path: Path, text: str) -> None:
    """Write a whole file or none of it."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)
