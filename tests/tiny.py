"""A network, data and recipes of which an epoch takes a moment, with all that makes a resume hard."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distill.data import Arrays, Crop, Mix, Splits
from distill.heads import Conv1x1
from distill.losses import KD, CrossEntropy, Hint, RKDDistance
from distill.plan import Term
from distill.prepare import Parts, prepare
from distill.recipe import SGD, Model, Recipe

CLASSES = ("ant", "bee", "cat")


class TinyNet(nn.Module):
    def __init__(self, num_classes: int, in_channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(self.layer2(self.layer1(x)).mean((2, 3))))


def net(num_classes: int = 10, in_channels: int = 1, width: int = 4, dropout: float = 0.0) -> TinyNet:
    return TinyNet(num_classes, in_channels, width, dropout)


class TiedNet(nn.Module):
    """Two layers that share their weights, so that one parameter has two names."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(36, 36), nn.Linear(36, 36)
        self.second.weight = self.first.weight
        self.fc = nn.Linear(36, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.second(self.first(x.flatten(1)).relu()).relu())


@dataclass(frozen=True)
class Blobs:
    """Noise, brighter in one row for each class: of 60 examples 36 to train on, and 12 and 12."""

    classes: tuple[str, ...] = CLASSES
    augment: bool = True
    count: int = 60

    def load(self, seed: int, mix: Mix | None) -> Splits:
        generator = torch.Generator().manual_seed(7)
        labels = torch.arange(self.count) % len(self.classes)
        images = torch.randint(0, 160, (self.count, 1, 6, 6), generator=generator)
        images[torch.arange(self.count), 0, 2 * labels] += 60
        augment = (Crop(padding=1),) if self.augment else ()
        return Arrays(images.to(torch.uint8), labels, self.classes, augment=augment).load(seed, mix)


STUDENT = Model("tests.tiny:net")
TEACHER = Model("tests.tiny:net", arguments={"width": 8})


def plain_recipe(**changes: Any) -> Recipe:
    """A student alone, with dropout; each epoch has three steps."""
    base = Recipe(
        name="plain",
        data=Blobs(),
        student=Model("tests.tiny:net", arguments={"dropout": 0.3}),
        plan={"task": Term(CrossEntropy())},
        optimizer=SGD(lr=0.1),
        epochs=3,
        batch_size=12,
        log_every=2,
        keep_checkpoints=1,
    )
    return replace(base, **changes)


def pair_recipe(**changes: Any) -> Recipe:
    """A student with a teacher, which is not trained either."""
    base = Recipe(
        name="pair",
        data=Blobs(),
        teacher=TEACHER,
        student=STUDENT,
        plan={
            "task": Term(CrossEntropy(), weight=0.25),
            "kd": Term(KD(temperature=2.0), weight=0.75),
            "hint": Term(Hint(), student="layer1", teacher="layer1", head=Conv1x1()),
            "samples": Term(RKDDistance(), student="embedding", teacher="embedding"),
        },
        optimizer=SGD(lr=0.1),
        epochs=2,
        batch_size=12,
    )
    return replace(base, **changes)


def parts_of(recipe: Recipe, root: Path = Path("runs")) -> Parts:
    return prepare(recipe, recipe.data.load(recipe.seed, recipe.mix), recipe.seed, root)


def on_cpu() -> Accelerator:
    return Accelerator(cpu=True)
