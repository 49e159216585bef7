"""The part of a report that is label by label: numbers, where the models look, and pictures of both."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from distill import metrics
from distill.answers import Answers
from distill.arms import arm_folder
from distill.by_label import TEACHER, by_label
from distill.data import Box, Splits
from distill.looks import Average, Looks, chosen_boxes, looks, maps_of
from distill.picture import MapRow, check_pictures, draw_labels, draw_maps, draw_reliability
from distill.prepare import Parts, load
from distill.report import ARMS, ByLabel, Estimate, Look, clean
from distill.view import Sees

PICTURES = "pictures"
_MOST_BOXES = 200
_SHOWN = 6
_NORMAL = 1.96  # of a standard error to each side holds 95 %


@dataclass(frozen=True)
class Labelled:
    """What a report says label by label: its numbers, pictures (caption, file in the run's folder), and notes."""

    by_label: ByLabel
    pictures: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def label_by_label(
    parts: Parts,
    given: Mapping[str, Sequence[Answers]],
    teacher: Answers | None,
    folder: Path,
    device: torch.device,
    console: Console,
) -> Labelled:
    """All that, of a run whose students are trained and saved under `folder`; its pictures are written there.

    given: each arm's answers, seed by seed. teacher: None where it does not answer the data's labels.
    """
    splits = parts.splits
    assert isinstance(splits, Splits)
    answers = {**({} if teacher is None else {TEACHER: [teacher]}), **{arm: given[arm] for arm in ARMS if arm in given}}
    count = sum(map(len, answers.values()))
    console.print(f"Judging {count} models label by label, over resampled patients.", highlight=False)
    found = by_label(splits.classes, answers, splits.test.cases)
    names = tuple(name for name in answers if name != TEACHER or not parts.recipe.shard_teacher)
    models = _models(parts, names, folder)
    boxes = () if splits.test.cases is None else chosen_boxes(splits.test.cases.boxes, _MOST_BOXES)
    asked = [(box.example, box.label) for box in boxes] or _positives(splits.test.labels)
    maps, notes = _maps(models, splits, asked, device)
    if boxes and maps:
        patient = None if splits.test.cases is None else splits.test.cases.patient
        judged = {
            name: looks(of, boxes, teacher_maps=_of_teacher(maps, name), patient=patient) for name, of in maps.items()
        }
        found = replace(found, looks={name: _look(one) for name, one in judged.items()})
    try:
        check_pictures()
    except ValueError as error:
        return Labelled(found, (), (*notes, f"The report has no pictures. {error}"))
    (folder / PICTURES).mkdir(exist_ok=True)
    pictures = (*_draw_values(found, answers, splits, folder), *_draw_maps(maps, asked, boxes, answers, splits, folder))
    return Labelled(found, pictures, notes)


def _models(parts: Parts, names: Sequence[str], folder: Path) -> dict[str, tuple[nn.Module, Sees]]:
    """{name: model and view} of the teacher and of each arm's first seed, as it was saved."""
    recipe, splits = parts.recipe, parts.splits
    models: dict[str, tuple[nn.Module, Sees]] = {}
    for name in names:
        if name == TEACHER:
            assert parts.teacher is not None
            models[name] = parts.teacher, parts.teacher_view
            continue
        place = arm_folder(folder, recipe, name, recipe.seed).resolve()
        saved = replace(recipe.student, weights=str(place))
        loaded, view = load(saved, splits, len(splits.classes), Path(), "student")
        models[name] = loaded.model, view
    return models


def _positives(labels: Tensor) -> list[tuple[int, int]]:
    """The first example that has each label."""
    rows = ((label, (labels[:, label] == 1).nonzero()) for label in range(labels.shape[1]))
    return [(int(found[0]), label) for label, found in rows if len(found)]


def _maps(
    models: Mapping[str, tuple[nn.Module, Sees]], splits: Splits, asked: Sequence[tuple[int, int]], device: torch.device
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """{model: maps (N, S, S)}, and a note for each model that has none."""
    maps, notes = {}, []
    for name, (model, view) in models.items():
        try:
            maps[name] = maps_of(model.to(device), view.module().to(device), splits.test, asked, device)
        except ValueError as error:
            notes.append(f"Where {name} looks can't be shown: {error}")
    return maps, tuple(notes)


def _of_teacher(maps: Mapping[str, Tensor], name: str) -> Tensor | None:
    return None if name == TEACHER else maps.get(TEACHER)


def _look(found: Looks) -> Look:
    nothing = Estimate(math.nan, math.nan, math.nan)
    return Look(
        count=found.count,
        blank=found.blank,
        area=found.area,
        inside=_estimate(found.inside),
        hits=_estimate(found.hits),
        overlap=_estimate(found.overlap),
        likeness=nothing if found.likeness is None else _estimate(found.likeness),
    )


def _estimate(average: Average) -> Estimate:
    reach = math.nan if average.standard_error is None else _NORMAL * average.standard_error
    return Estimate(average.mean, average.mean - reach, average.mean + reach)


def _draw_values(
    found: ByLabel, answers: Mapping[str, Sequence[Answers]], splits: Splits, folder: Path
) -> Iterator[tuple[str, str]]:
    names, origin = [clean(name) for name in found.labels], clean(splits.origin)
    values = {model: [_triple(one.auroc) for one in found.models[model]] for model in answers}
    file = f"{PICTURES}/auroc.png"
    draw_labels(folder / file, names, values, metric="test AUROC", title="AUROC by label", origin=origin, chance=0.5)
    yield "AUROC of each label on the test examples, with 95% intervals over patients", file
    curves = {model: _curve(of_model[0]) for model, of_model in answers.items()}
    file = f"{PICTURES}/reliability.png"
    draw_reliability(folder / file, curves, title="Reliability, all labels together", origin=origin)
    yield "How often a label holds, over the probability that each model gave it", file


def _triple(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def _curve(answers: Answers) -> tuple[metrics.Bin, ...]:
    return metrics.reliability(answers.test.logits.flatten(), answers.test.labels.flatten())


def _draw_maps(
    maps: Mapping[str, Tensor],
    asked: Sequence[tuple[int, int]],
    boxes: Sequence[Box],
    answers: Mapping[str, Sequence[Answers]],
    splits: Splits,
    folder: Path,
) -> Iterator[tuple[str, str]]:
    if not maps:
        return
    firsts = {label: place for place, (_, label) in reversed(list(enumerate(asked)))}
    rows = []
    for label, place in sorted(firsts.items())[:_SHOWN]:
        index = asked[place][0]
        marked = [box[2:] for box in boxes if (box.example, box.label) == (index, label)]
        given = [float(answers[model][0].test.logits[index, label].sigmoid()) for model in maps]
        of_models = [of_model[place] for of_model in maps.values()]
        rows.append(MapRow(splits.test[(0, index)].image, clean(splits.classes[label]), marked, of_models, given))
    file = f"{PICTURES}/maps.png"
    title = "Where the models look: the first test example of each label"
    draw_maps(folder / file, rows, models=tuple(maps), title=title, origin=clean(splits.origin))
    yield "Gradient-weighted activation maps over test examples, the first of each label, with their boxes", file
