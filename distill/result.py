"""What a run leaves: the report of its students, and what loads a student without `distill`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from distill.answers import Answers
from distill.batch import Batch
from distill.data import Splits, TextSplits
from distill.labelled import Labelled
from distill.measure import file_size, latency, machine, multiply_adds, parameters, versions, weight_bytes
from distill.prepare import Parts, cost_batch
from distill.recipe import to_json
from distill.report import Cost, Outcome, Report
from distill.taps import taken
from distill.view import Sees, View

_BATCH = 32


def report_of(
    parts: Parts,
    outcomes: Sequence[Outcome],
    answers: Answers | None,
    accelerator: Accelerator,
    folder: Path,
    started: str,
    labelled: Labelled | None = None,
) -> Report:
    """The report of a run whose students are trained; measures what both models cost.

    parts: of the run itself. answers: the teacher's. folder: where its student was saved. started: ISO 8601.
    labelled: what there is to say label by label; None where an example has one class.
    """
    recipe = parts.recipe
    teacher = None
    if answers is not None:
        teacher = {"test": answers.test.quality(), "validation": answers.validation.quality()}
    sample = cost_batch(parts.splits, _BATCH)
    return Report(
        name=recipe.name,
        recipe=json.loads(to_json(recipe)),
        seeds=tuple(range(recipe.seed, recipe.seed + recipe.repeats)),
        headline=parts.headline,
        has_teacher=parts.teacher is not None,
        teacher=teacher,
        outcomes=tuple(outcomes),
        # One that is spread over processes does not fit where it would be measured.
        teacher_cost=None
        if parts.teacher is None or recipe.shard_teacher
        else _cost(parts.teacher, parts.teacher_view, sample, accelerator, None),
        student_cost=_cost(
            parts.student, parts.student_view, sample, accelerator, folder / "student" / "model.safetensors"
        ),
        coverage=None if parts.coverage is None else parts.coverage.to_json(),
        versions=versions(),
        machine=machine(),
        started=started,
        notes=(*parts.notes, *(labelled.notes if labelled is not None else ())),
        chosen_on="validation",
        origin=parts.splits.origin if isinstance(parts.splits, Splits) else "",
        by_label=None if labelled is None else labelled.by_label,
        pictures=() if labelled is None else labelled.pictures,
    )


def _cost(model: nn.Module, view: Sees, sample: Batch, accelerator: Accelerator, file: Path | None) -> Cost:
    model.to(accelerator.device).eval()
    module = view.module().to(accelerator.device)
    seen, one = (taken(model, module(batch.to(accelerator.device).inputs)) for batch in (sample, sample.rows(slice(1))))
    size = file_size(file) if file is not None and file.exists() else weight_bytes(model)
    return Cost(
        parameters=parameters(model),
        multiply_adds=multiply_adds(model, one),
        bytes=size,
        latency_one=latency(model, one),
        latency_batch=latency(model, seen),
        batch=len(sample),
    )


def student_config(parts: Parts) -> dict[str, Any]:
    """What `load_model` needs beside the weights: source, arguments, classes and view; of texts the most tokens."""
    model, view, splits = parts.recipe.student, parts.student_view, parts.splits
    return {
        "source": model.source,
        "arguments": dict(model.arguments),
        "num_classes": len(parts.splits.classes),
        "in_channels": splits.train[(0, 0)].image.shape[0] if isinstance(splits, Splits) else None,
        "classes": list(parts.splits.classes),
        "several": parts.several,
        "view": asdict(view) if isinstance(view, View) else None,
        "max_length": splits.max_length if isinstance(splits, TextSplits) else None,
        "vocab_size": splits.tokenizer("student").size if isinstance(splits, TextSplits) else None,
    }
