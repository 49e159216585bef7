"""Images with several labels, some of them not known, of patients with several images; an epoch takes a moment."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from distill.data import Box, Cases, Mix, Part, Splits, make_splits
from distill.losses import BinaryCrossEntropy, MultiLabelKD
from distill.plan import Term
from distill.recipe import SGD, Model, Recipe
from distill.view import View

LABELS = ("dot", "bar", "rim")
STUDENT = Model("tests.tiny:net")
TEACHER = Model("tests.tiny:net", arguments={"width": 8})


@dataclass(frozen=True)
class Marks:
    """Noise with a bright row for each label that holds: 60 examples to train on, 40 and 40, two for each patient.

    unknown: share of the training labels that are not known.
    """

    unknown: float = 0.1
    boxes: bool = True
    origin: str = ""

    def load(self, seed: int, mix: Mix | None) -> Splits:
        generator = torch.Generator().manual_seed(7)
        labels = (torch.rand(140, 3, generator=generator) < 0.4).float()
        images = torch.randint(0, 160, (140, 1, 6, 6), generator=generator)
        for label in range(3):
            images[labels[:, label] == 1, 0, 2 * label] += 60
        shown = labels.clone()
        shown[:60][torch.rand(60, 3, generator=generator) < self.unknown] = torch.nan
        parts = [
            Part(images[rows].to(torch.uint8), shown[rows], _cases(labels[rows], boxes=self.boxes))
            for rows in (slice(60), slice(60, 100), slice(100, 140))
        ]
        return make_splits(
            train=parts[0],
            validation=parts[1],
            test=parts[2],
            classes=LABELS,
            view=View(mean=(0.4,), std=(0.2,)),
            seed=seed,
            mix=mix,
            origin=self.origin,
        )


def _cases(labels: torch.Tensor, *, boxes: bool) -> Cases:
    count = len(labels)
    found = [Box(int(row), int(label), 0.0, label / 3, 1.0, label / 3 + 1 / 6) for row, label in labels.nonzero()]
    sex = tuple("FM"[row % 2] for row in range(count))
    return Cases(torch.arange(count) // 2, {"sex": sex}, tuple(found) if boxes else ())


def labels_recipe(**changes: Any) -> Recipe:
    """A student and a teacher of several labels; each epoch has five steps."""
    base = Recipe(
        name="marks",
        data=Marks(),
        teacher=TEACHER,
        student=STUDENT,
        plan={
            "task": Term(BinaryCrossEntropy(), weight=0.5),
            "kd": Term(MultiLabelKD(), weight=0.5),
        },
        optimizer=SGD(lr=0.1),
        epochs=2,
        batch_size=12,
    )
    return replace(base, **changes)
