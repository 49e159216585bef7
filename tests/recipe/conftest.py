from dataclasses import replace

import pytest

from distill.data import Digits, Mix
from distill.heads import Conv1x1, Linear
from distill.initialize import SelectWeights
from distill.losses import FSP, KD, CrossEntropy, Hint, RKDDistance
from distill.plan import Term
from distill.recipe import SGD, AdamW, Constant, Cosine, LinearDecay, Model, Recipe, Stage, Steps
from distill.view import View
from distill.weighting import Ramp


@pytest.fixture
def recipe() -> Recipe:
    """A recipe that uses nearly every setting."""
    return Recipe(
        name="digits",
        data=Digits(augment=False),
        teacher=Model("distill.models.cifar:resnet20", weights="runs/digits-teacher", arguments={"width": 16}),
        student=Model(
            "distill.models.cifar:resnet8",
            arguments={"width": 8, "blocks": (1, 1, 1), "inner": {"type": "x", "deep": (0.5, None, True)}},
            view=View(size=16, mean=(0.5,), std=(0.25,)),
        ),
        initialize=SelectWeights(choose="activation"),
        plan={
            "task": Term(CrossEntropy(label_smoothing=0.1), weight=0.1),
            "kd": Term(KD(temperature=4.0), weight=0.9, schedule=Ramp(epochs=2)),
            "hint": Term(Hint(), student="layer2", teacher="layer2", head=Conv1x1()),
            "samples": Term(
                RKDDistance(), weight=25, student="embedding", teacher="embedding", head=Linear(bias=False)
            ),
            "layers": Term(FSP(), student=("layer1", "layer2"), teacher=("layer1", "layer2")),
        },
        optimizer=SGD(lr=0.05, weight_decay=5e-4),
        schedule=LinearDecay(warmup_epochs=1, final=0.01),
        epochs=30,
        layer_decay=0.75,
        micro_batch_size=16,
        mix=Mix(mixup=0.2),
        clip=1.0,
        ema=0.999,
        precision="bf16",
        patience=5,
        repeats=3,
        controls=("plain", "initialized"),
    )


@pytest.fixture
def plain() -> Recipe:
    """The smallest recipe: a model trained without a teacher."""
    return Recipe(
        name="digits-teacher",
        data=Digits(),
        student=Model("distill.models.cifar:resnet20"),
        plan={"task": Term(CrossEntropy())},
        optimizer=SGD(lr=0.1),
        epochs=10,
    )


@pytest.fixture
def staged(recipe: Recipe) -> Recipe:
    """Transfer, then fine-tune."""
    stages = (
        Stage(
            "transfer",
            recipe.plan,
            4,
            AdamW(lr=1e-3, betas=(0.9, 0.95)),
            Cosine(warmup_epochs=0.5),
            freeze=("fc.*",),
            layer_decay=0.5,
            decay_to_start=0.001,
        ),
        Stage("fine-tune", {"task": Term(CrossEntropy())}, 6, SGD(lr=0.01), Steps(milestones=(3, 5))),
    )
    return replace(
        recipe,
        plan={},
        optimizer=None,
        epochs=None,
        schedule=Constant(),
        layer_decay=None,
        decay_to_start=None,
        stages=stages,
    )
