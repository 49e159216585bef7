"""Recipes of each scenario go on within an epoch to the weights and the log of the run that was never stopped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from distill.data import Mix
from distill.fit import fit_arm
from distill.heads import Contrast
from distill.losses import CRD, BinaryCrossEntropy, CrossEntropy, LabelEmbedding, MultiLabelKD, SimilarityPreserving
from distill.plan import Term
from distill.prepare import load_splits, prepare
from distill.recipe import Model, Recipe
from distill.weighting import Uncertainty
from tests.end_to_end.test_text import SIZE
from tests.end_to_end.test_text import recipe as text_recipe
from tests.test_fit import TIMED, Stopped, StoppingBar, lines_of, same
from tests.tiny import on_cpu, pair_recipe
from tests.tiny_labels import labels_recipe

DROPPING = Model("tests.tiny:net", arguments={"dropout": 0.3})
SAMPLES = {"samples": Term(SimilarityPreserving(), student="embedding", teacher="embedding")}
BANK = Term(CRD(), student="embedding", teacher="embedding", head=Contrast(examples=None, width=4, negatives=3))
OF_LABELS = Term(LabelEmbedding(), student="fc:contributions", teacher="fc:contributions")
TASK = {"task": Term(BinaryCrossEntropy()), "kd": Term(MultiLabelKD())}
DROPPING_TEXT = Model("transformers:bert", arguments={**SIZE, "num_hidden_layers": 2, "hidden_dropout_prob": 0.2})

RECIPES = {
    "image, mixup, average, accumulation": pair_recipe(
        student=DROPPING, mix=Mix(mixup=0.5), ema=0.9, micro_batch_size=5
    ),
    "image, memory bank": pair_recipe(student=DROPPING, plan={"task": Term(CrossEntropy()), "crd": BANK}),
    "sentiment, dropout, accumulation": text_recipe(student=DROPPING_TEXT, epochs=3, micro_batch_size=5, ema=0.9),
    "sentiment, weighed terms": text_recipe(student=DROPPING_TEXT, epochs=3, balance=Uncertainty()),
    "chest X-ray, mixup, average": labels_recipe(
        student=DROPPING, mix=Mix(cutmix=0.5), ema=0.9, plan={**TASK, **SAMPLES}
    ),
    "chest X-ray, labels, accumulation": labels_recipe(
        student=DROPPING, micro_batch_size=5, plan={**TASK, "labels": OF_LABELS}
    ),
}


def trained(recipe: Recipe, folder: Path, *, stop: int | None = None, resume: bool = False) -> dict[str, Tensor]:
    """The student's weights at the end."""
    parts = prepare(recipe, load_splits(recipe, recipe.seed, Path("runs")), recipe.seed, Path("runs"))
    folder.mkdir(parents=True, exist_ok=True)
    fit_arm(parts, folder, on_cpu(), seed=recipe.seed, resume=resume, bar=StoppingBar(stop))
    return {name: tensor.clone() for name, tensor in parts.student.state_dict().items()}


def log(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in TIMED} for line in lines_of(folder)]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_goes_on_within_an_epoch_to_the_same_bits(name: str, tmp_path: Path) -> None:
    recipe = replace(RECIPES[name], checkpoint_every=1, log_every=3)
    straight = trained(recipe, tmp_path / "straight")
    with pytest.raises(Stopped):
        trained(recipe, tmp_path / "stopped", stop=5)
    assert same(trained(recipe, tmp_path / "stopped", resume=True), straight)
    assert log(tmp_path / "stopped") == log(tmp_path / "straight")
