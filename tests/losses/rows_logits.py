"""Contract rows of the losses against labels and between logits."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.losses import (
    DIST,
    DKD,
    KD,
    NKD,
    OFA,
    Asymmetric,
    BinaryCrossEntropy,
    CrossEntropy,
    LogitMSE,
    MaskedLanguageModel,
    MultiLabelKD,
    ReverseKD,
)
from tests.losses.contract import CLASSES, NO_SCOPE, Inputs, Row, Value, logits, normal

NO_TEMPERATURE = (0.0, -1.0, float("nan"), float("inf"))
NO_WEIGHT = (-0.1, float("nan"), float("inf"))


# CrossEntropy is smallest where softmax(z) is the target: far out for a hard label, and at log(target) else, with the
# target's entropy as its value. Smoothing 0.2 over 5 classes gives 0.84 and four times 0.04:
# −0.84 ln 0.84 − 0.16 ln 0.04 = 0.661477.
def certain(inputs: Inputs) -> Value:
    return 100 * F.one_hot(inputs.labels, CLASSES).double()


def smoothed(inputs: Inputs) -> Value:
    return (0.8 * F.one_hot(inputs.labels, CLASSES) + 0.2 / CLASSES).double().log()


def hidden_words(size: int) -> Inputs:
    """A text of four tokens over five words: the first is always masked, the others by chance, and none of the last."""
    labels = torch.randint(CLASSES, (size, 4)).masked_fill(torch.rand(size, 4) < 0.5, -100)
    labels[:, 0] = torch.randint(CLASSES, (size,))
    if size > 1:
        labels[-1] = -100
    return Inputs(normal(size, 4, CLASSES), normal(size, 4, CLASSES), labels)


def certain_words(inputs: Inputs) -> Value:
    """Where the label is known; anything else does not count."""
    return 100 * F.one_hot(inputs.labels.clamp_min(0), CLASSES).double()


def some_unknown(size: int) -> Inputs:
    """Labels of which the last is unknown, where it is not the only one."""
    inputs = logits(size)
    if size > 1:
        inputs.labels[-1] = -1
    return inputs


def several_labels(size: int) -> Inputs:
    """Labels in [0, 1], about a third of them unknown, and of the last example all (where it is not the only one)."""
    labels = torch.rand(size, CLASSES, dtype=torch.float64)
    labels[torch.rand(size, CLASSES) < 0.3] = torch.nan
    labels[0, 0] = 0.25
    if size > 1:
        labels[-1] = torch.nan
    return Inputs(normal(size, CLASSES), 2 * normal(size, CLASSES), labels)


# −w y log p − (1 − y) log(1 − p) is smallest at p = w y / (w y + 1 − y), so at the logit log(w y / (1 − y)).
def likeliest(weight: float, inputs: Inputs) -> Tensor:
    labels = inputs.labels.nan_to_num(0.5)
    return (weight * labels / (1 - labels)).log()


def smallest_binary(weight: float, inputs: Inputs) -> Tensor:
    p, y = likeliest(weight, inputs).sigmoid(), inputs.labels
    return (-weight * y * p.log() - (1 - y) * (1 - p).log()).nanmean(1).nan_to_num(0.0)


def labels_that_hold_or_not(size: int) -> Inputs:
    """Labels of 1 and 0, about a third of them unknown."""
    inputs = several_labels(size)
    return replace(inputs, labels=inputs.labels.round())


# Asymmetric falls to 0 as the student grows sure of what it is told; of what is unknown anything does.
def sure_of_each(inputs: Inputs) -> Value:
    return 100 * (2 * inputs.labels.nan_to_num(0.5) - 1)


# NKD's first part falls to 0 as the student grows sure of the target, and its second to γ T² times the entropy of the
# teacher's other classes.
def sure_of_the_target(inputs: Inputs) -> Value:
    assert isinstance(inputs.teacher, Tensor)
    return inputs.teacher + 100 * F.one_hot(inputs.labels, CLASSES)


def entropy_of_the_others(temperature: float, weight: float, inputs: Inputs) -> Tensor:
    assert isinstance(inputs.teacher, Tensor)
    target = F.one_hot(inputs.labels, CLASSES).bool()
    p = inputs.teacher[~target].view(-1, CLASSES - 1).div(temperature).softmax(1)
    return -weight * temperature**2 * (p * p.log()).sum(1)


# −Σ w log p is smallest at p = w / Σ w.
def enhanced(gamma: float, inputs: Inputs) -> Tensor:
    assert isinstance(inputs.teacher, Tensor)
    label = F.one_hot(inputs.labels, CLASSES)
    return (inputs.teacher.softmax(1) + label) ** gamma - label


def smallest_enhanced(gamma: float, inputs: Inputs) -> Tensor:
    w = enhanced(gamma, inputs)
    return -(w * (w / w.sum(1, keepdim=True)).log()).sum(1)


ROWS = (
    Row(CrossEntropy(), logits, {"label_smoothing": (-0.1, 1.0, float("nan"))}, certain),
    Row(CrossEntropy(), some_unknown, {"label_smoothing": (1.5,)}, certain_words),
    Row(MaskedLanguageModel(), hidden_words, {}, certain_words),
    Row(CrossEntropy(label_smoothing=0.2), logits, {"label_smoothing": (2.0,)}, smoothed, 0.661477),
    Row(
        BinaryCrossEntropy(),
        several_labels,
        {"positive_weight": (0.0, -1.0, float("nan"), (), (1.0, 0.0), (float("inf"), 1.0))},
        lambda inputs: likeliest(1, inputs),
        lambda inputs: smallest_binary(1, inputs),
    ),
    Row(
        BinaryCrossEntropy(positive_weight=3.0),
        several_labels,
        {"positive_weight": (0.0,)},
        lambda inputs: likeliest(3, inputs),
        lambda inputs: smallest_binary(3, inputs),
    ),
    Row(
        Asymmetric(),
        labels_that_hold_or_not,
        {"focus_negative": NO_WEIGHT, "focus_positive": NO_WEIGHT, "margin": (-0.1, 1.0, float("nan"))},
        sure_of_each,
    ),
    Row(
        Asymmetric(focus_negative=1.5, focus_positive=1.0, margin=0.0),
        labels_that_hold_or_not,
        {"focus_negative": (-1.0,), "focus_positive": (-1.0,), "margin": (1.5,)},
        sure_of_each,
    ),
    Row(KD(), logits, {"temperature": NO_TEMPERATURE}),
    Row(KD(temperature=2.0, standardize=True), logits, {"temperature": (0.0,)}),
    Row(ReverseKD(), logits, {"temperature": NO_TEMPERATURE}),
    Row(ReverseKD(temperature=3.0), logits, {"temperature": (0.0,)}),
    Row(LogitMSE(), logits, {"temperature": NO_TEMPERATURE}),
    Row(
        DKD(),
        logits,
        {"temperature": NO_TEMPERATURE, "target_weight": NO_WEIGHT, "nontarget_weight": NO_WEIGHT},
    ),
    Row(
        NKD(),
        logits,
        {"temperature": NO_TEMPERATURE, "weight": NO_WEIGHT},
        sure_of_the_target,
        lambda inputs: entropy_of_the_others(1.0, 1.5, inputs),
    ),
    Row(
        NKD(temperature=3.0, weight=3.5),
        logits,
        {"temperature": (0.0,), "weight": (-1.0,)},
        sure_of_the_target,
        lambda inputs: entropy_of_the_others(3.0, 3.5, inputs),
    ),
    Row(
        DIST(),
        logits,
        {"temperature": NO_TEMPERATURE, "inter_weight": NO_WEIGHT, "intra_weight": NO_WEIGHT, **NO_SCOPE},
        own_part=True,
    ),
    Row(
        DIST(temperature=2.0, inter_weight=0.0),
        logits,
        {"temperature": (0.0,), "inter_weight": (-1.0,), "intra_weight": (-1.0,), **NO_SCOPE},
    ),
    Row(MultiLabelKD(), several_labels, {"temperature": NO_TEMPERATURE}),
    Row(MultiLabelKD(temperature=2.0), logits, {"temperature": (0.0,)}),
    Row(
        OFA(),
        logits,
        {"gamma": (0.5, float("nan"), float("inf"))},
        lambda inputs: enhanced(1.0, inputs).log(),
        lambda inputs: smallest_enhanced(1.0, inputs),
    ),
    Row(
        OFA(gamma=1.5),
        logits,
        {"gamma": (0.0,)},
        lambda inputs: enhanced(1.5, inputs).log(),
        lambda inputs: smallest_enhanced(1.5, inputs),
    ),
)
