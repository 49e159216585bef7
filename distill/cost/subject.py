"""What is priced: a run's teacher and student, or any model by its name."""

import inspect
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from distill.data import Splits, TextSplits
from distill.finished import read_run
from distill.messages import first_line
from distill.models import load_model
from distill.prepare import cost_batch, load_splits, prepare
from distill.prepare.models import load
from distill.recipe import Model
from distill.taps import Inputs, taken
from distill.view import Sees

_IMAGE, _TOKENS, _VOCABULARY = 224, 128, 30_522


@dataclass(frozen=True)
class Subject:
    """A model and what it is given.

    inputs: so many examples. quality: what its run says of it on the test examples, mean over seeds; NaN where nothing
    is known. spread: standard deviation. metric: of the quality.
    """

    name: str
    model: nn.Module
    inputs: Callable[[int], Inputs]
    quality: float = math.nan
    spread: float = math.nan
    metric: str = ""
    longest: int | None = None


@dataclass(frozen=True)
class Given:
    """What a named model is given, and how it is built. None takes what suits the model."""

    classes: int | None
    size: int | None
    tokens: int | None


def subjects(names: Sequence[str], given: Given, allow_import: tuple[str, ...] = ()) -> list[Subject]:
    """The models of all that is named.

    Raises:
        ValueError: something can't be had; by name.
    """
    unused = {"--classes": given.classes, "--size": given.size, "--tokens": given.tokens}
    word = next((word for word, value in unused.items() if value is not None), None)
    if word is not None and all(":" not in name for name in names):
        raise ValueError(f"{word} {unused[word]} has no effect on runs, which have their own. Leave it out.")
    found: list[Subject] = []
    for name in names:
        if ":" not in name:
            found += _of_run(Path(name), allow_import)
        else:
            found.append(_of_source(name, given))
    twice = next((one.name for place, one in enumerate(found) if one.name in [o.name for o in found[:place]]), None)
    if twice is not None:
        raise ValueError(f"{twice} is named twice. Name each model once.")
    return found


def _of_run(folder: Path, allow_import: tuple[str, ...]) -> Iterator[Subject]:
    """Teacher and student; the student once, whatever its arms, which cost the same, with the run's own quality."""
    run = read_run(folder, allow_import)
    report, recipe = run.report, run.recipe
    parts = prepare(recipe, load_splits(recipe, recipe.seed, run.root), recipe.seed, run.root)
    splits, metric = parts.splits, report.headline
    longest = splits.max_length if isinstance(splits, TextSplits) else None
    if parts.teacher is not None:
        quality = math.nan if report.teacher is None else report.teacher["test"][metric]
        inputs = _seen(parts.teacher, parts.teacher_view, splits)
        yield Subject(f"{folder} teacher", parts.teacher, inputs, quality, metric=metric, longest=longest)
    trained = Model(recipe.student.source, weights=str(run.student().resolve()), arguments=recipe.student.arguments)
    student, view = load(trained, splits, None if parts.masked else len(splits.classes), run.root, "student")
    inputs = _seen(student.model, view, splits)
    values = report.values(run.arm)
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    yield Subject(
        f"{folder} student", student.model, inputs, statistics.fmean(values), spread, metric=metric, longest=longest
    )


def _seen(model: nn.Module, view: Sees, splits: Splits | TextSplits) -> Callable[[int], Inputs]:
    """What a model is given of so many examples; of fewer in the data they come again."""
    module = view.module()

    def inputs(count: int) -> Inputs:
        batch = cost_batch(splits, count)
        places = torch.arange(count) % len(batch)
        return taken(model, module(batch.rows(places).inputs))

    return inputs


def _of_source(name: str, given: Given) -> Subject:
    """A model with random weights, which cost what trained ones do, and random inputs."""
    text = name.startswith("transformers:")
    try:
        loaded = load_model(
            name,
            num_classes=given.classes or (2 if text else 1000),
            in_channels=None if text else 3,
            vocab_size=_VOCABULARY if text else None,
        )
    except (ValueError, TypeError, ImportError) as error:
        raise ValueError(f"{name} can't be priced: {first_line(error)}") from error
    model = loaded.model
    if "input_ids" in inspect.signature(model.forward).parameters:
        if given.size is not None:
            raise ValueError(f"--size {given.size} has no effect on {name}, a model of texts. Leave it out.")
        tokens = given.tokens or _TOKENS
        return Subject(name, model, lambda count: taken(model, _texts(count, tokens)), longest=tokens)
    if given.tokens is not None:
        raise ValueError(f"--tokens {given.tokens} has no effect on {name}, a model of images. Leave it out.")
    own = None if loaded.view is None else loaded.view.size
    size = given.size or own or _IMAGE
    return Subject(name, model, lambda count: torch.randn(count, 3, size, size))


def _texts(count: int, tokens: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(1000, _VOCABULARY, (count, tokens))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
