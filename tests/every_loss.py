"""Every loss in a recipe for a tiny pair of networks: convolutions for maps, a transformer of one block for tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distill import (
    CRD,
    DIST,
    DKD,
    FSP,
    KD,
    NKD,
    NST,
    OFA,
    PKT,
    SGD,
    VID,
    Arrays,
    Asymmetric,
    AttentionRelation,
    AttentionScores,
    AttentionTransfer,
    BinaryCrossEntropy,
    ChannelKD,
    Connector,
    Contrast,
    Conv1x1,
    CorrelationCongruence,
    CosineHint,
    CrossEntropy,
    Factors,
    FactorTransfer,
    HiddenState,
    Hint,
    InterChannel,
    LabelEmbedding,
    LayerCKA,
    Linear,
    LogitMSE,
    Mix,
    Model,
    MultiLabelKD,
    Overhaul,
    Paraphraser,
    PatientKD,
    PearsonHint,
    Projector,
    Recipe,
    Regressor,
    ReverseKD,
    ReviewFusion,
    ReviewHCL,
    RKDAngle,
    RKDDistance,
    SimilarityPreserving,
    SingularVectors,
    Stage,
    StageClassifier,
    Term,
    TokenCosine,
    VIDRegressor,
)
from distill.data import Splits
from distill.heads import Head
from distill.losses import Loss
from distill.plan import Plan

CLASSES = ("ant", "bee", "cat")
EXAMPLES, BATCH = 40, 8


class Convolutions(nn.Module):
    """Two maps of different size, without BatchNorm, whose statistics each process would keep for its own share."""

    def __init__(self, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(x)).mean((2, 3)))


class Normalized(nn.Module):
    """A teacher whose map comes from a BatchNorm in front of a ReLU."""

    def __init__(self, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width, affine=True), nn.ReLU()
        )
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer1(x).mean((2, 3)))


class Tokens(nn.Module):
    """The rows of an image as tokens; one block of attention with its parts as modules, and an embedding of each label.

    labels gives (B, K, D).
    """

    def __init__(self, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(6 * in_channels, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.scores = nn.Identity()
        self.block = nn.Linear(width, width)
        self.labels = nn.Sequential(nn.Linear(width, num_classes * 4), nn.Unflatten(1, (num_classes, 4)))
        self.fc = nn.Linear(width + num_classes * 4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.permute(0, 2, 1, 3).flatten(2))
        q, k, v = (part(tokens).unflatten(2, (2, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        scores = self.scores(q @ k.mT / q.shape[-1] ** 0.5)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        pooled = self.block(tokens + mixed).mean(1)
        return self.fc(torch.cat([pooled, self.labels(pooled).flatten(1)], 1))


def convolutions(num_classes: int, in_channels: int = 1, width: int = 4) -> Convolutions:
    return Convolutions(num_classes, in_channels, width)


def normalized(num_classes: int, in_channels: int = 1, width: int = 8) -> Normalized:
    return Normalized(num_classes, in_channels, width)


def tokens(num_classes: int, in_channels: int = 1, width: int = 8) -> Tokens:
    return Tokens(num_classes, in_channels, width)


@dataclass(frozen=True)
class Noise:
    """40 images to train on, and 12 and 12; five steps in batches of eight."""

    def load(self, seed: int, mix: Mix | None) -> Splits:
        generator = torch.Generator().manual_seed(7)
        images = torch.randint(0, 256, (64, 1, 6, 6), generator=generator).to(torch.uint8)
        shares = {"validation": 12 / 64, "test": 12 / 64}
        return Arrays(images, torch.arange(64) % 3, CLASSES, **shares).load(seed, mix)


CONVOLUTIONS = (Model("tests.every_loss:convolutions", arguments={"width": 8}), Model("tests.every_loss:convolutions"))
EQUAL = (CONVOLUTIONS[1], CONVOLUTIONS[1])
TOKENS = (Model("tests.every_loss:tokens", arguments={"width": 16}), Model("tests.every_loss:tokens"))
SAME_TOKENS = (TOKENS[1], TOKENS[1])


@dataclass(frozen=True)
class Case:
    """How one loss stands in a recipe.

    exact: two processes make the very student that one makes; not where a head has batch normalisation, whose
    statistics each process takes from its own share.
    """

    plan: Plan
    models: tuple[Model, Model] = CONVOLUTIONS
    before: Plan | None = None
    mix: Mix | None = None
    exact: bool = True


def at(tap: str, loss: Loss, weight: float = 1.0, head: Head | None = None) -> Plan:
    return {"term": Term(loss, weight, student=tap, teacher=tap, head=head)}


def both(loss: Loss, head: Head | None = None, weight: float = 1.0) -> Plan:
    taps = ("layer1", "layer2")
    return {"term": Term(loss, weight, student=taps, teacher=taps, head=head)}


HALF = Mix(mixup=0.2)
QKV = ("query", "key", "value")
CASES: Mapping[str, Case] = {
    "CrossEntropy": Case({"term": Term(CrossEntropy())}),
    "BinaryCrossEntropy": Case({"term": Term(BinaryCrossEntropy())}, mix=HALF),
    "Asymmetric": Case({"term": Term(Asymmetric())}, mix=HALF),
    **{type(loss).__name__: Case({"term": Term(loss)}) for loss in (KD(), ReverseKD(), LogitMSE(), DKD(), NKD())},
    **{type(loss).__name__: Case({"term": Term(loss)}) for loss in (DIST(), MultiLabelKD(), OFA())},
    "KD standardized": Case({"term": Term(KD(standardize=True))}),
    "OFA at a stage": Case(
        {"term": Term(OFA(), student="layer1", teacher="logits", head=StageClassifier())}, exact=False
    ),
    "Hint": Case(at("layer1", Hint(), head=Regressor()), exact=False),
    "CosineHint": Case(at("embedding", CosineHint(), head=Linear())),
    "AttentionTransfer": Case(at("layer1", AttentionTransfer())),
    "NST": Case(at("layer1", NST())),
    "ChannelKD": Case(at("layer1", ChannelKD(), head=Conv1x1(norm=False))),
    "PearsonHint": Case(at("layer1", PearsonHint(), head=Conv1x1(norm=False))),
    "PearsonHint projected": Case(at("embedding", PearsonHint(), head=Projector()), exact=False),
    "FactorTransfer": Case(
        at("layer1", FactorTransfer(), head=Factors()),
        before=at("layer1", Hint(), head=Paraphraser()),
        exact=False,
    ),
    "Overhaul": Case(
        at("layer1.1", Overhaul(), head=Connector(norm="layer1.1")),
        (Model("tests.every_loss:normalized"), Model("tests.every_loss:normalized", arguments={"width": 4})),
        exact=False,
    ),
    "ReviewHCL": Case(both(ReviewHCL(), head=ReviewFusion(width=8)), exact=False),
    "VID": Case(at("layer1", VID(), head=VIDRegressor())),
    **{
        type(loss).__name__: Case(at("embedding", loss, weight))
        for loss, weight in ((RKDDistance(), 5.0), (RKDAngle(), 5.0), (CorrelationCongruence(), 5.0), (PKT(), 100.0))
    },
    "SimilarityPreserving": Case(at("layer2", SimilarityPreserving(), 30.0)),
    "CRD": Case(at("embedding", CRD(), head=Contrast(examples=EXAMPLES, width=8, negatives=12))),
    "CRD with a queue": Case(at("embedding", CRD(), head=Contrast(examples=None, width=8, negatives=12))),
    "FSP": Case(both(FSP(), head=Conv1x1(norm=False), weight=0.1)),
    "InterChannel": Case(at("layer1", InterChannel(), head=Conv1x1(norm=False))),
    "SingularVectors": Case(both(SingularVectors(), head=Conv1x1(norm=False))),
    "LayerCKA": Case(both(LayerCKA())),
    "AttentionRelation": Case({"term": Term(AttentionRelation(heads=2), student=QKV, teacher=QKV)}, TOKENS),
    "AttentionScores": Case(at("scores", AttentionScores()), TOKENS),
    "HiddenState": Case(at("block", HiddenState(), head=Linear()), TOKENS),
    "TokenCosine": Case(at("block", TokenCosine(), head=Linear()), TOKENS),
    "PatientKD": Case(at("block", PatientKD(), head=Linear()), TOKENS),
    "LabelEmbedding": Case(at("labels", LabelEmbedding()), TOKENS, mix=HALF),
}


def recipe(name: str, *, together: bool, **changes: Any) -> Recipe:
    """The recipe of a case: its loss alone, or together with cross-entropy."""
    case = CASES[name]
    task: Plan = {"task": Term(CrossEntropy())} if together else {}
    needs_teacher = any(term.needs_teacher for term in case.plan.values())
    settings: dict[str, Any] = {
        "name": "every-loss",
        "data": Noise(),
        "teacher": case.models[0] if needs_teacher else None,
        "student": case.models[1],
        "batch_size": BATCH,
        "mix": case.mix,
    }
    plan = {**task, **case.plan}
    if case.before is None:
        training: dict[str, Any] = {"plan": plan, "optimizer": SGD(lr=0.02), "epochs": 1}
    else:
        stages = (Stage("before", case.before, 1, SGD(lr=0.02)), Stage("after", plan, 1, SGD(lr=0.02)))
        training = {"stages": stages}
    return Recipe(**settings, **training, **changes)
