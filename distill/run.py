"""A recipe from start to report: the transferred student and its controls, over seeds, under one budget."""

import copy
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import Console
from torch import nn

from distill import micro_batch
from distill.answers import TEACHER, Answers, at_chance, compare, read_answers, save_answers
from distill.arms import arm_folder, arm_recipe, main_arm
from distill.bar import Bar
from distill.build import answering, evaluation_loader, make_accelerator
from distill.compare import FILE as COMPARISON
from distill.compare import compared
from distill.compare import to_json as comparison_to_json
from distill.data import Splits, TextSplits
from distill.describe import describe
from distill.evaluate import Guesses, Predictions, evaluate, guess
from distill.finished import Finished
from distill.fit import fit_arm
from distill.folder import check_folder, holding, open_folder, write_whole
from distill.labelled import label_by_label
from distill.matched import RECORD, choose_layers, tables, to_text
from distill.matching import Matching
from distill.models import save_student
from distill.page import FILE as PAGE
from distill.page import write_page
from distill.picture import check_pictures
from distill.prepare import Parts, load_splits, prepare
from distill.profiling import found_in
from distill.propose import propose
from distill.recipe import Recipe
from distill.report import Outcome, Report, markdown, render, start_sentence
from distill.report import from_json as report_from_json
from distill.report import to_json as report_to_json
from distill.result import report_of, student_config
from distill.sharding import shard_frozen
from distill.tune import tune
from distill.view import Sees


@dataclass(frozen=True)
class Options:
    """How a run is started.

    root: the folder of runs. resume: go on where a run of the same name and recipe stopped. overwrite: remove it first.
    profile: record a few updates of the first student.
    """

    root: Path = Path("runs")
    resume: bool = False
    overwrite: bool = False
    profile: bool = False


def train(recipe: Recipe, options: Options, console: Console) -> Report:
    """Train every arm of a recipe under every seed, and write the report into the run's folder.

    Raises:
        ValueError: something in the recipe, the data, the weights or the run's folder does not fit; named before any
        training.
    """
    accelerator = make_accelerator(recipe)
    console.quiet = console.quiet or not accelerator.is_main_process
    folder = options.root / recipe.name
    # One process speaks for all: the others end with it, by their launcher.
    with holding(folder) if accelerator.is_main_process else nullcontext():
        return _train(recipe, options, console, accelerator, folder)


def _train(recipe: Recipe, options: Options, console: Console, accelerator: Accelerator, folder: Path) -> Report:
    check_folder(folder, recipe, resume=options.resume, overwrite=options.overwrite)
    accelerator.wait_for_everyone()
    if options.resume and (folder / "report.json").exists():
        console.print(f"{folder} is complete already.", markup=False, highlight=False, soft_wrap=True)
        return _shown(_read_report(folder / "report.json"), folder, console)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    main, first = main_arm(recipe), recipe.seed
    parts = prepare(recipe, load_splits(recipe, first, options.root), first, options.root)
    parts, matches = choose_layers(parts, accelerator, folder / RECORD if options.resume else None)
    found = folder / micro_batch.RECORD
    parts = micro_batch.choose_micro_batch(parts, accelerator, found if options.resume else None)
    answers = _teacher_answers(parts, accelerator)
    if answers is not None and not recipe.allow_chance_teacher:
        _refuse_chance(parts, answers.validation)
    text = describe(parts, accelerator) + tables(matches)
    if accelerator.is_main_process:
        open_folder(folder, recipe, overwrite=options.overwrite)
        write_whole(folder / "plan.txt", text)
        if matches:
            write_whole(folder / RECORD, to_text(matches))
        if recipe.micro_batch_size == "auto":
            write_whole(found, micro_batch.to_text(parts))
        if answers is not None:
            save_answers(folder / TEACHER, answers)
    accelerator.wait_for_everyone()
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    outcomes: list[Outcome] = []
    given: dict[str, list[Answers]] = {}
    for seed in range(first, first + recipe.repeats):
        splits = parts.splits if seed == first else load_splits(recipe, seed, options.root)
        for arm in (main, *recipe.controls):
            place = arm_folder(folder, recipe, arm, seed)
            how = options if place == folder else replace(options, profile=False)
            outcome, of_arm = _arm(parts.recipe, arm, splits, seed, place, accelerator, answers, how, console)
            if how.profile:
                console.print(found_in(folder / "profile"), markup=False, highlight=False, soft_wrap=True)
            outcomes.append(outcome)
            if of_arm is not None:
                given.setdefault(arm, []).append(of_arm)
    whole = replace(parts, recipe=recipe)
    labelled = None
    if given and accelerator.is_main_process:
        labelled = label_by_label(whole, given, answers, folder, accelerator.device, console)
    accelerator.wait_for_everyone()
    report = report_of(whole, outcomes, answers, accelerator, folder, started, labelled)
    if accelerator.is_main_process:
        write_whole(folder / "report.md", markdown(report))
        write_whole(folder / "report.json", report_to_json(report))
        _compare(Finished(folder, recipe, report), parts.splits, console)
    return _shown(report, folder, console)


def _compare(run: Finished, splits: Splits | TextSplits, console: Console) -> None:
    """Compare the models where they have classes, and write the page of the run.

    A teacher that is spread over processes does not fit where its layers would be measured.
    """
    if "perplexity" not in run.report.outcomes[0].test:
        try:
            comparison = compared(run, splits, with_layers=not run.recipe.shard_teacher)
            write_whole(run.folder / COMPARISON, comparison_to_json(comparison))
        except ValueError as error:  # such as students of an older version, which kept no answers
            console.print(f"The models were not compared: {error}", markup=False, highlight=False, soft_wrap=True)
    write_page(run, splits)


def _read_report(path: Path) -> Report:
    try:
        return report_from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error} Start anew with --overwrite, or change --name.") from error


def _shown(report: Report, folder: Path, console: Console) -> Report:
    console.print(render(report))
    # A run that an older version completed has no page.
    for path in (folder / "report.md", folder / PAGE):
        if path.is_file():
            console.print(f"Report: {path}", markup=False, highlight=False, soft_wrap=True)
    return report


def plan(
    recipe: Recipe,
    options: Options,
    console: Console,
    matching: Matching | None = None,
    tuning: float | None = None,
) -> None:
    """Print what a recipe would do: models, arrows, heads, coverage, memory and steps; nothing is trained.

    matching: also propose which layers could learn from each other, and write the proposal beside the run's folder as
    NAME.match.json and NAME.match.png; without it nothing is written.
    tuning: also try for about so many seconds which settings make a step cheaper on this machine.

    Raises:
        ValueError: something does not fit; named.
    """
    if matching is not None:
        check_pictures()
    accelerator = make_accelerator(recipe)
    console.quiet = console.quiet or not accelerator.is_main_process
    parts = prepare(recipe, load_splits(recipe, recipe.seed, options.root), recipe.seed, options.root)
    parts, matches = choose_layers(parts, accelerator)
    console.print(describe(parts, accelerator) + tables(matches), markup=False, highlight=False, soft_wrap=True)
    if parts.coverage is not None:
        quality = _start_quality(parts, accelerator)
        console.print(
            start_sentence(quality, parts.headline, main_arm(recipe), recipe.seed), markup=False, highlight=False
        )
        console.print(parts.coverage.table())
    if matching is not None:
        propose(parts, accelerator, matching, options.root / recipe.name, console)
    if tuning is not None:
        tune(parts, tuning, console)


def _arm(
    recipe: Recipe,
    arm: str,
    splits: Splits | TextSplits,
    seed: int,
    folder: Path,
    accelerator: Accelerator,
    teacher: Answers | None,
    options: Options,
    console: Console,
) -> tuple[Outcome, Answers | None]:
    """The outcome, and the student's answers where an example has several labels."""
    result = folder / "result.json"
    several = splits.several
    if options.resume and result.exists():
        answers = _kept_answers(folder, splits)
        return _read_outcome(json.loads(result.read_text())), answers
    parts = prepare(arm_recipe(recipe, arm, several=several), splits, seed, options.root)
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()
    start = _start_quality(parts, accelerator)
    if parts.coverage is not None:
        console.print(start_sentence(start, parts.headline, arm, seed), markup=False, highlight=False)
    with Bar(console, f"{recipe.name} · {arm} · seed {seed}", shows=accelerator.is_main_process) as bar:
        progress = fit_arm(
            parts,
            folder,
            accelerator,
            seed=seed,
            resume=options.resume,
            bar=bar,
            start_quality=start,
            profile=options.profile and accelerator.is_main_process,
        )
    test = _answers(parts, parts.student, parts.student_view, accelerator, "test")
    validation = _answers(parts, parts.student, parts.student_view, accelerator, "validation")
    answers = None
    if isinstance(test, Predictions) and isinstance(validation, Predictions):
        answers = Answers(validation, test)
    agreement, divergence = (None, None) if answers is None or teacher is None else compare(answers, teacher)
    assert progress.best is not None
    outcome = Outcome(
        arm=arm,
        seed=seed,
        test=test.quality(),
        validation=validation.quality(),
        agreement=agreement,
        divergence=divergence,
        epochs=progress.epochs,
        steps=progress.step,
        best_epoch=progress.best.epoch + 1,
        seconds=progress.seconds,
        spent=progress.spent,
        start=start,
        # The hidden tokens of one text are no independent draws, so no interval over them is given.
        correct=None
        if several or answers is None
        else tuple((answers.test.logits.argmax(1) == answers.test.labels).tolist()),
    )
    if accelerator.is_main_process:
        save_student(folder / "student", parts.student, student_config(parts))
        if isinstance(parts.splits, TextSplits):
            parts.splits.tokenizer("student").save(folder / "student")
        if answers is not None:
            save_answers(folder, answers)
        write_whole(result, json.dumps(asdict(outcome)))
    accelerator.wait_for_everyone()
    return outcome, answers if several else None


def _kept_answers(folder: Path, splits: Splits | TextSplits) -> Answers | None:
    """What a student said before the run was stopped, where an example has several labels."""
    if not splits.several:
        return None
    assert isinstance(splits, Splits)
    return read_answers(folder, splits.validation.labels, splits.test.labels)


def _start_quality(parts: Parts, accelerator: Accelerator) -> dict[str, float]:
    """The student's quality on the validation examples as it is, before any training; it goes back to where it was."""
    device = next(parts.student.parameters()).device
    answers = _answers(parts, parts.student, parts.student_view, accelerator, "validation")
    parts.student.to(device)
    return answers.quality()


def _teacher_answers(parts: Parts, accelerator: Accelerator) -> Answers | None:
    if parts.teacher is None or not parts.comparable:
        return None
    model = parts.teacher.eval()
    if parts.recipe.shard_teacher:
        model = copy.deepcopy(model)
        shard_frozen(model, accelerator)
    validation, test = (
        _answers(parts, model, parts.teacher_view, accelerator, split) for split in ("validation", "test")
    )
    assert isinstance(validation, Predictions) and isinstance(test, Predictions)
    return Answers(validation, test)


def _answers(parts: Parts, model: nn.Module, view: Sees, accelerator: Accelerator, split: str) -> Predictions | Guesses:
    answer = guess if parts.masked else evaluate
    return answer(answering(model, view, accelerator), evaluation_loader(parts, split, accelerator), accelerator)


def _refuse_chance(parts: Parts, predictions: Predictions) -> None:
    cases = parts.splits.validation.cases if isinstance(parts.splits, Splits) else None
    if at_chance(predictions, cases):
        quality = predictions.quality()[parts.headline]
        found = f"has a mean AUROC of {quality:.3f} on" if parts.several else f"is right on {quality:.1%} of"
        assert parts.recipe.teacher is not None
        raise ValueError(
            f"Teacher {parts.recipe.teacher.source} {found} the validation examples, which is chance. "
            "Check its weights, classes and view; --allow-chance-teacher trains from it all the same."
        )


def _read_outcome(values: Mapping[str, Any]) -> Outcome:
    correct = values["correct"]
    return replace(Outcome(**values), correct=None if correct is None else tuple(correct))
