"""CrossEntropy, BinaryCrossEntropy: the student's probabilities are those of the labels; one class, or several labels.

Label smoothing: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, 2016, "Rethinking the Inception Architecture for Computer
Vision", arXiv:1512.00567, section 7. BinaryCrossEntropy: Bishop, 2006, "Pattern Recognition and Machine Learning" (not
on arXiv), section 4.3.2.

    L = −(1/B) Σ_b Σ_c q_b(c) log p_b(c),    p = softmax(z),    q = (1 − ε) · label + ε / K
    L = −(1/B) Σ_b mean over known labels k of [w_k y log p + (1 − y) log(1 − p)],    p = sigmoid(z)

Departures: none for one class; its label is one-hot, or soft (mixup, cutmix) where the data give probabilities. For
several labels, the mean over those known of the example itself, 0 where none is, so that a batch may be cut anywhere;
Bishop has a sum, all labels known and no w. In nats.
Needs: logits (B, K), and labels int (B,) or float (B, K).
Needs of BinaryCrossEntropy: logits (B, K), and labels float (B, K) in [0, 1], NaN where unknown.
Cost: light, O(B·K).
Paper setting: weight 1, label_smoothing=0.1 (ImageNet); beside soft targets weight 0.1, label_smoothing=0.0
(CIFAR-100). BinaryCrossEntropy: weight 1, positive_weight=None, or negatives over positives of each label.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import check_positive, is_tensor, shape_of
from distill.losses.kinds import Task
from distill.numerics import widen


def cross_entropy(logits_BK: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats, (B,), of logits (B, K) against classes int (B,) or probabilities float (B, K)."""
    logits_BK = widen(logits_BK)
    target = labels.to(logits_BK.dtype) if labels.is_floating_point() else labels.long()
    return F.cross_entropy(logits_BK, target, reduction="none", label_smoothing=label_smoothing)


@dataclass(frozen=True)
class CrossEntropy(Task):
    """Cross-entropy of the student's logits (B, K) against `batch.labels`: int (B,), or soft labels float (B, K).

    label_smoothing: share of the target spread evenly over all classes, in [0, 1).

    Raises: ValueError where logits and labels do not meet.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.label_smoothing) and 0 <= self.label_smoothing < 1):
            raise ValueError(f"CrossEntropy.label_smoothing must be in [0, 1), got {self.label_smoothing}.")

    def __call__(self, student: Tensor, teacher: object, batch: Batch) -> Tensor:
        """The loss of each example, (B,); the teacher is ignored."""
        labels = batch.labels
        if not is_tensor(student, 2) or labels.shape != student.shape[: 2 if labels.is_floating_point() else 1]:
            raise ValueError(
                f"CrossEntropy takes logits (B, K) and labels int (B,) or float (B, K), got logits {shape_of(student)} "
                f"and labels {labels.dtype} {shape_of(labels)}. Tap the logits, and give one row of labels an example."
            )
        return cross_entropy(student, labels, label_smoothing=self.label_smoothing)


def mean_of_known(losses_BK: Tensor, known_BK: Tensor) -> Tensor:
    """Mean of each row over what is known, (B,); 0, with gradient 0, where nothing is."""
    total_B = losses_BK.where(known_BK, torch.zeros_like(losses_BK)).sum(1)
    return total_B / known_BK.sum(1).clamp_min(1)


def binary_cross_entropy(logits_BK: Tensor, labels_BK: Tensor, *, positive_weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy in nats, (B,), mean over the labels of each example that are not NaN.

    labels_BK: in [0, 1], or NaN. positive_weight: (K,) or one number, times the positive part.
    """
    logits_BK = widen(logits_BK)
    known_BK = ~labels_BK.isnan()
    # Replaced before and not after: zero times the gradient of a loss that is NaN would be NaN.
    target_BK = labels_BK.nan_to_num(0.0).to(logits_BK.dtype)
    losses_BK = F.binary_cross_entropy_with_logits(logits_BK, target_BK, reduction="none", pos_weight=positive_weight)
    return mean_of_known(losses_BK, known_BK)


@dataclass(frozen=True)
class BinaryCrossEntropy(Task):
    """Binary cross-entropy of the student's logits (B, K) against `batch.labels`, float (B, K) in [0, 1].

    A label that is NaN is unknown and does not count: the loss is the mean over the example's own known labels, and 0
    where it has none.

    positive_weight: factor of the positive part where positives are rare, one number or one for each label; None for 1.

    Raises: ValueError where logits, labels and weights do not meet.
    """

    positive_weight: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.positive_weight is None:
            return
        weights = self.positive_weight if isinstance(self.positive_weight, tuple) else (self.positive_weight,)
        if not weights:
            raise ValueError("BinaryCrossEntropy.positive_weight must be a number, or one for each label, got ().")
        for weight in weights:
            check_positive("BinaryCrossEntropy.positive_weight", weight)

    def __call__(self, student: Tensor, teacher: object, batch: Batch) -> Tensor:
        """The loss of each example, (B,); the teacher is ignored."""
        labels, weights = batch.labels, self.positive_weight
        if not (is_tensor(student, 2) and labels.is_floating_point() and labels.shape == student.shape):
            raise ValueError(
                f"BinaryCrossEntropy takes logits (B, K) and labels float (B, K), got logits {shape_of(student)} and "
                f"labels {labels.dtype} {shape_of(labels)}. Tap the logits, and give each label as 1, 0 or NaN."
            )
        if isinstance(weights, tuple) and len(weights) != student.shape[1]:
            raise ValueError(
                f"BinaryCrossEntropy takes one positive_weight or one for each label, got {len(weights)} of them and "
                f"logits {shape_of(student)}. Give as many as there are labels."
            )
        positive_weight = None if weights is None else widen(student).new_tensor(weights)
        return binary_cross_entropy(student, labels, positive_weight=positive_weight)
