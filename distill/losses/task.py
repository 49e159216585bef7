"""Cross-entropy against the labels, with label smoothing and soft labels.

Label smoothing: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, 2016, "Rethinking the Inception Architecture for Computer
Vision", arXiv:1512.00567, section 7.

    L = −(1/B) Σ_b Σ_c q_b(c) log p_b(c),    p = softmax(z),    q = (1 − ε) · label + ε / K

Departures: none. The label is one-hot, or soft (mixup, cutmix) where the data give probabilities. In nats.
Paper setting: weight 1, label_smoothing=0.1 (ImageNet); beside soft targets weight 0.1, label_smoothing=0.0
(CIFAR-100).
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import is_tensor, shape_of
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
