"""CrossEntropy, BinaryCrossEntropy, MaskedLanguageModel: the student's probabilities are those of the labels.

One class an example, several labels, or a class for each token that was hidden.

Label smoothing: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, 2016, "Rethinking the Inception Architecture for Computer
Vision", arXiv:1512.00567, section 7. BinaryCrossEntropy: Bishop, 2006, "Pattern Recognition and Machine Learning" (not
on arXiv), section 4.3.2. MaskedLanguageModel: Devlin, Chang, Lee and Toutanova, 2019, "BERT: Pre-training of Deep
Bidirectional Transformers for Language Understanding", arXiv:1810.04805, section 3.1, task 1.

    L = −(1/B) Σ_b Σ_c q_b(c) log p_b(c),    p = softmax(z),    q = (1 − ε) · label + ε / K
    L = −(1/B) Σ_b mean over known labels k of [w_k y log p + (1 − y) log(1 − p)],    p = sigmoid(z)
    L = −(1/B) Σ_b mean over masked tokens t of log p_bt(y_bt),    p = softmax(z) over the vocabulary

Departures: none for one class; its label is one-hot, or soft (mixup, cutmix) where the data give probabilities, and −1
where it is unknown, which costs 0. For several labels and for masked tokens, the mean over those known of the example
itself, 0 where none is, so that a batch may be cut anywhere; Bishop has a sum, all labels known and no w, BERT's code
the mean over all masked tokens of the batch. In nats.
Needs: logits (B, K), and labels int (B,) or float (B, K).
Needs of BinaryCrossEntropy: logits (B, K), and labels float (B, K) in [0, 1], NaN where unknown.
Needs of MaskedLanguageModel: logits (B, T, V) of every token over the vocabulary, and labels int (B, T), the true token
where one was masked, −100 elsewhere.
Cost: light, O(B·K).
Cost of MaskedLanguageModel: light, O(M·V) for M masked tokens.
Paper setting: weight 1, label_smoothing=0.1 (ImageNet); beside soft targets weight 0.1, label_smoothing=0.0
(CIFAR-100). BinaryCrossEntropy: weight 1, positive_weight=None, or negatives over positives of each label.
MaskedLanguageModel: weight 1, with 15 % of the tokens masked; 2 beside 5 for soft targets (DistilBERT's code).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import check_positive, is_tensor, shape_of
from distill.losses.kinds import Exclusive, HonoursMask, Task
from distill.numerics import widen

NOT_MASKED = -100
_UNKNOWN = -1


def cross_entropy(logits_BK: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats, (B,), of logits (B, K) against classes int (B,) or probabilities float (B, K).

    A class of −1 is unknown: loss and gradient are 0.
    """
    logits_BK = widen(logits_BK)
    target = labels.to(logits_BK.dtype) if labels.is_floating_point() else labels.long()
    return F.cross_entropy(logits_BK, target, reduction="none", label_smoothing=label_smoothing, ignore_index=_UNKNOWN)


@dataclass(frozen=True)
class CrossEntropy(Task, Exclusive):
    """Cross-entropy of the student's logits (B, K) against `batch.labels`: int (B,), or soft labels float (B, K).

    An example with the label −1, of which the class is unknown, has loss 0; it may still learn from a teacher.

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

    positive_weight: factor of the positive part where positives are rare, one number or one for each label; None for
        1. "balanced" in a recipe is negatives over positives of each label among the training examples.

    Raises: ValueError where logits, labels and weights do not meet.
    """

    positive_weight: float | tuple[float, ...] | Literal["balanced"] | None = None

    def __post_init__(self) -> None:
        if self.positive_weight is None or isinstance(self.positive_weight, str):
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
        if isinstance(weights, str):
            raise ValueError(
                f"BinaryCrossEntropy(positive_weight={weights!r}) is worked out from a recipe's training examples. "
                "Outside of one give the numbers."
            )
        positive_weight = None if weights is None else widen(student).new_tensor(weights)
        return binary_cross_entropy(student, labels, positive_weight=positive_weight)


def masked_cross_entropy(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Mean cross-entropy in nats over each example's masked tokens, (B,); 0, with gradient 0, where it has none.

    Only the masked tokens' logits are made wide: about one in seven, of a vocabulary of many thousands.
    """
    masked_BT = labels_BT != NOT_MASKED
    losses_M = F.cross_entropy(widen(logits_BTV[masked_BT]), labels_BT[masked_BT].long(), reduction="none")
    total_B = losses_M.new_zeros(len(labels_BT)).index_add(0, masked_BT.nonzero()[:, 0], losses_M)
    return total_B / masked_BT.sum(1).clamp_min(1)


@dataclass(frozen=True)
class MaskedLanguageModel(Task, HonoursMask):
    """Cross-entropy of the logits (B, T, V) at the masked tokens against `batch.labels`, int (B, T).

    A label is the true token where one was masked, and −100 elsewhere, padding included.

    Raises: ValueError where logits and labels do not meet.
    """

    def __call__(self, student: Tensor, teacher: object, batch: Batch) -> Tensor:
        """The loss of each example, (B,); the teacher is ignored."""
        labels = batch.labels
        if not is_tensor(student, 3) or labels.is_floating_point() or labels.shape != student.shape[:2]:
            raise ValueError(
                f"MaskedLanguageModel takes logits (B, T, V) and labels int (B, T), got logits {shape_of(student)} and "
                f"labels {labels.dtype} {shape_of(labels)}. Tap the logits of a masked language model, and mask tokens."
            )
        return masked_cross_entropy(student, labels)
