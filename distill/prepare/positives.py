"""How much a positive example weighs where positives are rare: as negatives are to positives in training."""

from dataclasses import replace

from torch import Tensor

from distill import metrics
from distill.data import Splits, TextSplits
from distill.losses import BinaryCrossEntropy
from distill.plan import Plan
from distill.recipe import Recipe

_BALANCED = "balanced"


def positive_weights(labels: Tensor) -> tuple[float, ...]:
    """Negatives over positives of each label, float (N, K) with NaN unknown; 1 where one side has no example."""
    counts = metrics.label_counts(labels)
    both = (counts.positives > 0) & (counts.negatives > 0)
    return tuple((counts.negatives / counts.positives).where(both, 1.0).tolist())


def balance_positives(recipe: Recipe, splits: Splits | TextSplits) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with numbers in place of each `positive_weight="balanced"`, and a note that names them."""
    plans = [recipe.plan, *(stage.plan for stage in recipe.stages)]
    if not any(_is_balanced(term.loss) for plan in plans for term in plan.values()):
        return recipe, ()
    assert isinstance(splits, Splits) and splits.several
    weights = positive_weights(splits.train.labels)
    stages = tuple(replace(stage, plan=_weighed(stage.plan, weights)) for stage in recipe.stages)
    named = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(splits.classes, weights, strict=True))
    note = f"A positive label weighs as many times a negative one as there are negatives to it in training: {named}."
    return replace(recipe, plan=_weighed(recipe.plan, weights), stages=stages), (note,)


def _weighed(plan: Plan, weights: tuple[float, ...]) -> Plan:
    balanced = {name for name, term in plan.items() if _is_balanced(term.loss)}
    loss = BinaryCrossEntropy(positive_weight=weights)
    return {name: replace(term, loss=loss) if name in balanced else term for name, term in plan.items()}


def _is_balanced(loss: object) -> bool:
    return isinstance(loss, BinaryCrossEntropy) and loss.positive_weight == _BALANCED
