"""A candidate teacher: a model, and what it makes of the target's training examples in one pass."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from distill.batch import Batch
from distill.data import Examples, Splits, TextSplits
from distill.data.examples import Part
from distill.losses import KD
from distill.measure import evaluating
from distill.models.weights import read_config, student_folder
from distill.plan import Term
from distill.prepare import load_splits
from distill.prepare.models import load
from distill.recipe import Model, Recipe
from distill.taps import TapError, Tapped

_AT_ONCE = 64
_WEIGHTS = "@"


@dataclass(frozen=True)
class Candidate:
    """A model that could teach, as it is named. several: whether it answers several labels and no classes."""

    name: str
    model: Model
    several: bool = False


@dataclass(frozen=True)
class Seen:
    """What a candidate makes of the examples.

    features: (N, D), what its last linear layer is given. probabilities: (N, Z), of its own classes; None where it
    answers several labels. labels: the target's. accuracy: its own on them, where its classes are the target's.
    seconds: of the pass.
    """

    name: str
    features: Tensor
    probabilities: Tensor | None
    labels: Tensor
    accuracy: float | None
    seconds: float


def candidate(name: str, root: Path) -> Candidate:
    """The model of a name: a run's folder (its student), `MODEL@WEIGHTS`, or a model with fresh weights.

    Raises:
        ValueError: it is no model's name, and no run's folder.
    """
    source, _, weights = name.partition(_WEIGHTS)
    if ":" in source:
        return Candidate(name, Model(source, weights=weights or None))
    folder = student_folder(Path(name))
    if weights or folder is None:
        raise ValueError(
            f"{name} is neither a model nor the folder of a complete run. Write runs/NAME, or MODEL@WEIGHTS such as "
            "torchvision:resnet18@DEFAULT."
        )
    config = read_config(folder)
    own = Model(str(config["source"]), weights=str(folder), arguments=config["arguments"])
    return Candidate(name, own, bool(config.get("several")))


def see(one: Candidate, recipe: Recipe, root: Path, examples: int, seed: int) -> Seen:
    """Run a candidate once over training examples of a recipe, without augmentation, under its own view.

    examples: how many, drawn by the seed; the same for every candidate.

    Raises:
        ValueError: the model can't be had, does not end in a linear layer, or gives features that are not finite.
    """
    kd = Term(KD())
    asked = replace(
        recipe, teacher=one.model, plan={"kd": kd}, stages=(), initialize=None, controls=(), reestimate_batchnorm=None,
        teacher_cache=None, balance=None, compare_gradients_every=None, mix=None,
    )  # fmt: skip
    splits = load_splits(asked, seed, root)
    if isinstance(splits, TextSplits) and splits.masked:
        raise ValueError(f"{recipe.name} guesses hidden words, and sources are ranked for classes.")
    torch.manual_seed(seed)  # of weights that are fresh
    fresh = len(splits.classes) if one.model.weights is None else None
    loaded, view = load(one.model, splits, fresh, root, "teacher")
    batches = _batches(splits, examples, seed)
    try:
        tapped = Tapped(loaded.model, ("embedding", "logits"), view=view.module())
        began = time.perf_counter()
        features, logits, labels = _pass(tapped, batches)
    except TapError as error:
        raise ValueError(f"{one.name}: {error}") from error
    seconds = time.perf_counter() - began
    if not features.isfinite().all():
        raise ValueError(f"{one.name} gives features that are NaN or infinite. Check its weights.")
    same = tuple(loaded.classes or ()) == tuple(splits.classes) and not splits.several and not one.several
    accuracy = float((logits.argmax(1) == labels).double().mean()) if same else None
    return Seen(one.name, features, None if one.several else logits.double().softmax(1), labels, accuracy, seconds)


def fingerprint(seen: Seen) -> Tensor:
    """A few numbers that two candidates share only where they are the same model."""
    return torch.cat([seen.features.double().mean(0)[:8], seen.features.double().square().mean(0)[:8]])


def _batches(splits: Splits | TextSplits, examples: int, seed: int) -> list[Callable[[], Batch]]:
    count = len(splits.train)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: min(examples, count)].tolist()
    source = splits.train if isinstance(splits, TextSplits) else _plain(splits)
    parts = [chosen[start : start + _AT_ONCE] for start in range(0, len(chosen), _AT_ONCE)]
    return [lambda part=part: splits.collate([source[(0, place)] for place in part]) for part in parts]  # type: ignore[misc]


def _plain(splits: Splits) -> Examples:
    """The training examples, prepared as those of the test."""
    train = splits.train
    part = Part(train.images, train.labels, train.cases)
    return Examples(part, num_classes=train.num_classes, transforms=splits.test.transforms)


def _pass(tapped: Tapped, batches: list[Callable[[], Batch]]) -> tuple[Tensor, Tensor, Tensor]:
    features, logits, labels = list[Tensor](), list[Tensor](), list[Tensor]()
    with evaluating(tapped), torch.no_grad():
        for made in batches:
            batch = made()
            found = tapped(batch.inputs)
            features.append(found["embedding"].float())
            logits.append(found["logits"].float())
            labels.append(batch.labels)
    return torch.cat(features), torch.cat(logits), torch.cat(labels)
