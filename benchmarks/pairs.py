"""Pairs of teacher and student, each trained by the trainer and by a loop that a researcher writes for this one job.

Both sides do the same work on the same batches: teacher without gradient, student, losses, backward, SGD with momentum.
The loop has no checks, micro-batches, ranks, logging or resume, and its losses are in the form that everyone writes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from naive import naive_rkd_angle
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18, resnet34

from distill.batch import Batch
from distill.heads import Conv1x1, Linear
from distill.losses import KD, CrossEntropy, HiddenState, Hint, RKDAngle, RKDDistance, SimilarityPreserving
from distill.models.cifar import resnet8x4, resnet32x4
from distill.plan import Plan, Term, connect
from distill.recipe import SGD
from distill.trainer import Trainer
from distill.view import View

VIEW = View(mean=(0.5071, 0.4866, 0.4409), std=(0.2673, 0.2564, 0.2762))
LOGITS: Plan = {"task": Term(CrossEntropy(), weight=0.1), "kd": Term(KD(temperature=4.0), weight=0.9)}
PLANS = ("logits", "logits + hint", "logits + relations")
VOCABULARY, WIDTH, HEADS = 30_522, 384, 12
# Of all terms, weighted; an update on a batch.
Step = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Pair:
    """Two networks and the taps at which they meet.

    hints: the student's tap and the teacher's. width: channels of both there. relations: the tap of both whose values
    relate samples; None for the embedding.
    """

    name: str
    models: Callable[[], tuple[nn.Module, nn.Module]]
    batch: Callable[[], Batch]
    hints: tuple[str, str]
    width: int
    relations: str | None = None
    view: View | None = None

    def plan(self, name: str) -> Plan:
        """The terms of one of `PLANS`."""
        text = self.view is None
        student, teacher = self.hints
        hint = Term(HiddenState() if text else Hint(), 100.0, student, teacher, Linear() if text else Conv1x1())
        relations = self.relations or "embedding"
        more: Mapping[str, Plan] = {
            "logits": {},
            "logits + hint": {"hint": hint},
            "logits + relations": {
                "distance": Term(RKDDistance(), 25.0, "embedding", "embedding"),
                "angle": Term(RKDAngle(), 50.0, "embedding", "embedding"),
                "similarity": Term(SimilarityPreserving(), 3000.0, relations, relations),
            },
        }
        return {**LOGITS, **more[name]}


def images(size: int, count: int, classes: int = 100) -> Batch:
    """Random uint8 images with random labels."""
    drawn = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=drawn)
    return Batch(pixels, torch.randint(0, classes, (count,), generator=drawn), torch.arange(count))


def texts(count: int, length: int) -> Batch:
    """Random tokens; texts of a quarter of the length up to all of it."""
    drawn = torch.Generator().manual_seed(0)
    lengths = torch.linspace(length / 4, length, count).long()
    mask = torch.arange(length) < lengths[:, None]
    ids = torch.randint(1000, VOCABULARY, (count, length), generator=drawn).masked_fill(~mask, 0)
    return Batch({"input_ids": ids, "attention_mask": mask.long()}, torch.arange(count) % 2, torch.arange(count), mask)


def bert(layers: int) -> nn.Module:
    """A BERT of MiniLM's width with random weights, which changes no cost."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
    )
    return BertForSequenceClassification(config)


PAIRS = (
    Pair(
        "resnet32x4 to resnet8x4",
        lambda: (resnet32x4(num_classes=100), resnet8x4(num_classes=100)),
        lambda: images(32, 64),
        ("layer2", "layer2"),
        128,
        "layer3",
        VIEW,
    ),
    Pair(
        "resnet34 to resnet18",
        lambda: (resnet34(num_classes=100), resnet18(num_classes=100)),
        lambda: images(64, 16),
        ("layer2", "layer2"),
        128,
        "layer4",
        VIEW,
    ),
    Pair(
        "BERT of 6 layers to 3",
        lambda: (bert(6), bert(3)),
        lambda: texts(16, 64),
        ("bert.encoder.layer.2", "bert.encoder.layer.5"),
        WIDTH,
    ),
)
CIFAR = PAIRS[0]


def models(pair: Pair) -> tuple[nn.Module, nn.Module]:
    """Teacher and student, the same at each call."""
    torch.manual_seed(0)
    return pair.models()


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4)


def with_trainer(pair: Pair, name: str) -> Step:
    teacher, student = models(pair)
    plan, sample = pair.plan(name), pair.batch().rows(slice(4))
    view = (lambda: None) if pair.view is None else pair.view.module
    guide, learner = connect(teacher, student, plan, sample, teacher_view=view(), student_view=view())
    accelerator = Accelerator(cpu=True)
    own = SGD(lr=0.01, momentum=0.9, weight_decay=5e-4).build([{"params": [*learner.parameters()]}])
    prepared, optimizer = accelerator.prepare(learner, own)
    trainer = Trainer(accelerator, guide, prepared, plan, optimizer)
    prepared.train()

    def step(batch: Batch) -> Tensor:
        means = trainer.step([batch])
        trainer.lines.rows.clear()
        return sum((means[key] * term.weight for key, term in plan.items()), torch.zeros(()))

    return step


def by_hand(pair: Pair, name: str) -> Step:
    teacher, student = models(pair)
    return loop(pair, name, teacher, student)


def loop(
    pair: Pair,
    name: str,
    teacher: nn.Module,
    student: nn.Module,
    build: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = sgd,
) -> Step:
    """The hand-written loop on these models."""
    teacher.eval()
    student.train()
    kept = watch(pair, name, teacher, student)
    text = pair.view is None
    head: nn.Module | None = None
    if "hint" in name:
        maps = nn.Conv2d(pair.width, pair.width, 1, bias=False), nn.BatchNorm2d(pair.width)
        head = nn.Linear(pair.width, pair.width) if text else nn.Sequential(*maps)
    optimizer = build([*student.parameters(), *(() if head is None else head.parameters())])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (VIEW.mean, VIEW.std))

    def answers(model: nn.Module, inputs: Any) -> Tensor:
        return model(**inputs).logits if text else model(inputs)

    def step(batch: Batch) -> Tensor:
        x = batch.inputs if text else (batch.inputs.float() / 255 - mean) / std
        with torch.no_grad():
            target = answers(teacher, x)
        logits = answers(student, x)
        soft = F.kl_div(F.log_softmax(logits / 4, 1), F.softmax(target / 4, 1), reduction="batchmean")
        loss = 0.1 * F.cross_entropy(logits, batch.labels) + 0.9 * 16 * soft
        if head is not None:
            mapped, wanted = head(kept["student hint"]), kept["teacher hint"]
            if text:
                loss = loss + 100 * tokens_apart(mapped, wanted, batch.mask)
            else:
                loss = loss + 100 * F.mse_loss(mapped, wanted)
        if "relations" in name:
            loss = loss + 25 * F.smooth_l1_loss(distances(kept["student"]), distances(kept["teacher"]))
            loss = loss + 50 * naive_rkd_angle(kept["student"], kept["teacher"])
            own, other = (kept[f"{side} relations" if pair.relations else side] for side in ("student", "teacher"))
            loss = loss + 3000 * (similarity(own) - similarity(other)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def watch(pair: Pair, name: str, teacher: nn.Module, student: nn.Module) -> dict[str, Tensor]:
    """What the loop's hooks fill at each pass: the hints' tensors, or what relates samples and both embeddings."""
    kept: dict[str, Tensor] = {}

    def keep(key: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, args, output: kept.update({key: output[0] if isinstance(output, tuple) else output})

    for side, model, hint in (("student", student, pair.hints[0]), ("teacher", teacher, pair.hints[1])):
        if "hint" in name:
            model.get_submodule(hint).register_forward_hook(keep(f"{side} hint"))
        if "relations" not in name:
            continue
        if pair.relations is not None:
            model.get_submodule(pair.relations).register_forward_hook(keep(f"{side} relations"))
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        last.register_forward_hook(lambda module, args, output, side=side: kept.update({side: args[0]}))
    return kept


def tokens_apart(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference over each text's own tokens, and over the texts."""
    counted = mask[:, :, None]
    squares = (student - teacher).square() * counted
    return (squares.sum((1, 2)) / (counted.sum((1, 2)) * student.shape[2])).mean()


def distances(rows: Tensor) -> Tensor:
    """Distances between rows over their mean, (B, B)."""
    square = rows.square().sum(1)
    distance = (square[:, None] + square[None] - 2 * rows @ rows.T).clamp(min=1e-12).sqrt()
    distance = distance * (1 - torch.eye(len(rows)))
    return distance / distance[distance > 0].mean()


def similarity(features: Tensor) -> Tensor:
    """Similarities between samples, each row of unit length, (B, B)."""
    rows = features.flatten(1)
    return F.normalize(rows @ rows.T)
