"""How good a model's answers are, and how near they come to another model's.

Pure functions of logits (N, K) and labels (N,). All are means over the N examples, so they need the examples of a whole
split, each once; never average them over batches or processes.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.numerics import widen

CALIBRATION_BINS = 15


def accuracy(logits: Tensor, labels: Tensor, *, top: int = 1) -> float:
    """Share of examples whose class is among the `top` highest logits, in [0, 1].

    Raises:
        ValueError: no examples, shapes that do not meet, labels that are not classes, or fewer than `top` classes.
    """
    from torchmetrics.functional.classification import multiclass_accuracy  # takes seconds to load

    _check(logits, labels)
    if not 1 <= top <= logits.shape[1]:
        raise ValueError(f"top={top} of {logits.shape[1]} classes has no accuracy. Choose from 1 to {logits.shape[1]}.")
    return float(multiclass_accuracy(widen(logits), labels.long(), logits.shape[1], top_k=top, average="micro"))


def nll(logits: Tensor, labels: Tensor) -> float:
    """Negative log likelihood of the labels in nats.

    Raises:
        ValueError: no examples, shapes that do not meet, or labels that are not classes.
    """
    _check(logits, labels)
    return float(F.cross_entropy(widen(logits), labels.long()))


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Expected calibration error of the top class, in [0, 1].

    The distance between confidence and accuracy in each of 15 equal bins, weighted by the share of its examples;
    Guo et al., 2017, arXiv:1706.04599, eq. 3.

    Raises:
        ValueError: no examples, shapes that do not meet, or labels that are not classes.
    """
    from torchmetrics.functional.classification import multiclass_calibration_error

    _check(logits, labels)
    probabilities = widen(logits).softmax(1)
    # torchmetrics gives a confidence of exactly 1 a bin of its own beside the last.
    below_one = 1.0 - torch.finfo(probabilities.dtype).eps
    error = multiclass_calibration_error(
        probabilities.clamp(max=below_one), labels.long(), logits.shape[1], n_bins=CALIBRATION_BINS, norm="l1"
    )
    return float(error)


def agreement(student: Tensor, teacher: Tensor) -> float:
    """Share of examples to which both models give the same class, right or wrong, in [0, 1].

    Top-1 agreement of Stanton et al., 2021, arXiv:2106.05945.

    Raises:
        ValueError: no examples, or shapes that differ.
    """
    _check_pair(student, teacher)
    return float((student.argmax(1) == teacher.argmax(1)).double().mean())


def divergence(student: Tensor, teacher: Tensor) -> float:
    """Mean Kullback-Leibler divergence KL(teacher || student) of the classes' probabilities, in nats.

    Raises:
        ValueError: no examples, or shapes that differ.
    """
    _check_pair(student, teacher)
    student_NK, teacher_NK = widen(student).log_softmax(1), widen(teacher).log_softmax(1)
    return float(F.kl_div(student_NK, teacher_NK, reduction="batchmean", log_target=True))


def quality(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """accuracy, top5 (with more than five classes), nll and calibration_error of one model.

    Raises:
        ValueError: no examples, shapes that do not meet, or labels that are not classes.
    """
    top5 = {"top5": accuracy(logits, labels, top=5)} if logits.ndim == 2 and logits.shape[1] > 5 else {}
    return {
        "accuracy": accuracy(logits, labels),
        **top5,
        "nll": nll(logits, labels),
        "calibration_error": calibration_error(logits, labels),
    }


def guess_quality(losses: Tensor, right: Tensor) -> dict[str, float]:
    """accuracy, nll and perplexity of a masked language model, over all hidden tokens of a split alike.

    losses: negative log likelihood of each token in nats, (M,). right: whether it was the likeliest, bool (M,).

    Raises:
        ValueError: no tokens, or not as many of both.
    """
    if losses.ndim != 1 or losses.shape != right.shape or len(losses) == 0:
        shapes = f"{tuple(losses.shape)} and {tuple(right.shape)}"
        raise ValueError(f"Guesses are a loss and an answer for each hidden token, at least one, got {shapes}.")
    mean = losses.double().mean()
    return {"accuracy": float(right.double().mean()), "nll": float(mean), "perplexity": float(mean.exp())}


def chance(labels: Tensor, num_classes: int) -> float:
    """Accuracy of always answering the most frequent class: its share of the labels, at least 1 / num_classes.

    Raises:
        ValueError: no labels, or labels that are not classes.
    """
    _check_labels(labels, num_classes)
    return _majority(labels)


def above_chance(accuracy: float, labels: Tensor) -> bool:
    """Whether an accuracy, less two of its standard errors, is above the share of the labels' most frequent class.

    The standard error is that of N draws, sqrt(accuracy (1 - accuracy) / N).

    Raises:
        ValueError: no labels, or labels that are not classes.
    """
    _check_labels(labels)
    standard_error = math.sqrt(accuracy * (1.0 - accuracy) / len(labels))
    return accuracy - 2.0 * standard_error > _majority(labels)


def _majority(labels: Tensor) -> float:
    return int(labels.long().bincount().max()) / len(labels)


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        shapes = f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"Quality needs logits (N, K) and labels (N,), got {shapes}.")
    if logits.shape[1] < 2:
        raise ValueError(f"Quality needs one logit for each of at least two classes, got {logits.shape[1]}.")
    _check_labels(labels, logits.shape[1])


def _check_labels(labels: Tensor, num_classes: int | None = None) -> None:
    if len(labels) == 0:
        raise ValueError("There are no examples to judge. Give a split that is not empty.")
    if labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(f"Labels are one class number for each example, got {labels.dtype} {tuple(labels.shape)}.")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or (num_classes is not None and highest >= num_classes):
        limit = "" if num_classes is None else f" of {num_classes} classes"
        raise ValueError(f"Labels from {lowest} to {highest} are not class numbers{limit}. Count classes from 0.")


def _check_pair(student: Tensor, teacher: Tensor) -> None:
    if student.ndim != 2 or student.shape != teacher.shape:
        shapes = f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)}"
        raise ValueError(f"Two models are compared on logits (N, K) of the same examples and classes, got {shapes}.")
    if len(student) == 0:
        raise ValueError("There are no examples to compare. Give a split that is not empty.")
