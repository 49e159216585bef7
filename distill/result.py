"""What a run leaves: the report of its students, and what loads a student without `distill`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from distill import metrics
from distill.batch import Batch
from distill.evaluate import Predictions
from distill.measure import file_size, latency, machine, multiply_adds, parameters, versions
from distill.prepare import Parts, sample_batch
from distill.recipe import to_json
from distill.report import Cost, Outcome, Report
from distill.view import View

_BATCH = 32


@dataclass(frozen=True)
class TeacherAnswers:
    """What the teacher says about the validation and the test examples."""

    validation: Predictions
    test: Predictions


def report_of(
    parts: Parts,
    outcomes: Sequence[Outcome],
    answers: TeacherAnswers | None,
    accelerator: Accelerator,
    folder: Path,
    started: str,
) -> Report:
    """The report of a run whose students are trained; measures what both models cost.

    parts: of the run itself. folder: where its student was saved. started: ISO 8601.
    """
    recipe = parts.recipe
    teacher = None
    if answers is not None:
        teacher = {
            "test": metrics.quality(answers.test.logits, answers.test.labels),
            "validation": metrics.quality(answers.validation.logits, answers.validation.labels),
        }
    sample = sample_batch(parts.splits, _BATCH)
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


def student_config(parts: Parts) -> dict[str, Any]:
    """What `load_model` needs beside the weights: source, arguments, classes and view."""
    model, view = parts.recipe.student, parts.student_view
    return {
        "source": model.source,
        "arguments": dict(model.arguments),
        "num_classes": len(parts.splits.classes),
        "in_channels": int(parts.splits.train[(0, 0)].image.shape[0]),
        "classes": list(parts.splits.classes),
        "view": asdict(view),
    }
