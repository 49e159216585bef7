"""A recipe's data, and batches of training examples for what comes before training."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from distill.batch import Batch
from distill.data import Splits, TextSplits
from distill.prepare.tokenizers import tokenizers_of
from distill.recipe import Recipe

_DRY_RUN_EXAMPLES = 4


def load_splits(recipe: Recipe, seed: int, root: Path) -> Splits | TextSplits:
    """The recipe's data, with augmentation drawn from the seed; texts with the tokens of both models.

    Raises:
        ValueError: data are missing or damaged, a split is empty, or a model has no tokenizer; by name.
    """
    splits = recipe.data.load(seed, recipe.mix)
    for name, examples in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        if len(examples) == 0:
            raise ValueError(f"The {name} split of {type(recipe.data).__name__} is empty. Give it examples.")
    if isinstance(splits, TextSplits):
        return splits.encoded(tokenizers_of(recipe, splits.train.texts, root))
    for role, model in (("student", recipe.student), ("teacher", recipe.teacher)):
        if model is not None and model.tokenizer is not None:
            raise ValueError(f"{role}.tokenizer has no effect on {type(recipe.data).__name__}, which is of images.")
    return splits


def sample_batch(splits: Splits | TextSplits, examples: int = _DRY_RUN_EXAMPLES) -> Batch:
    """A few training examples for a dry run."""
    return batch_of(splits, range(min(examples, len(splits.train))))


def cost_batch(splits: Splits | TextSplits, examples: int) -> Batch:
    """Training examples to measure a model's cost with: texts are of `max_length` tokens."""
    collate = splits.longest if isinstance(splits, TextSplits) else splits.collate
    return collate([splits.train[(0, index)] for index in range(min(examples, len(splits.train)))])


def batch_of(splits: Splits | TextSplits, numbers: Sequence[int]) -> Batch:
    """The training examples of these numbers, as in the first epoch."""
    return splits.collate([splits.train[(0, number)] for number in numbers])


def spread_batches(splits: Splits | TextSplits, batches: int, size: int) -> Iterator[Batch]:
    """Batches of distinct training examples, each from all over the split, from its beginning to its end.

    They depend on the numbers alone, so every process sees the same.
    """
    assert batches * size <= len(splits.train)
    places = torch.linspace(0, len(splits.train) - 1, size * batches, dtype=torch.float64).round().long().tolist()
    return (batch_of(splits, places[first::batches]) for first in range(batches))
