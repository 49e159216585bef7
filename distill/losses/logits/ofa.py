"""OFA: the student follows the teacher, and the label the more the surer the teacher is of it.

Hao, Guo, Han, Tang, Hu, Wang and Xu, 2023, "One-for-All: Bridge the Gap Between Heterogeneous Architectures in
Knowledge Distillation", arXiv:2310.19444, section 3.

    L = −(1/B) Σ_b Σ_c [(p_t(c) + 1[c = y])^γ − 1[c = y]] log p_s(c),    p = softmax(z)

With γ = 1 the label drops out, and L is the cross-entropy with the teacher. A higher γ lowers the weight of the other
classes, p_t(c)^γ, and raises that of the target, (1 + p_t(y))^γ − 1. The smallest value is not zero: with the weights w
in brackets it is −Σ_c w(c) log(w(c) / Σ w).

Departures: none; evaluated in log space, where the authors' code takes the logarithm of probabilities.
Needs: logits (B, K) of the same two or more classes, and one class as label for each example. For a branch at an inner
layer of the student, a head that ends in K.
Cost: light, O(B·K).
Paper setting: weight 1 beside cross-entropy 1, gamma=1.0, or 1.5 (ImageNet, DeiT-T to ResNet-18), at the logits and at
each of four stages, there through a head of convolutions or attention, pooling and a classifier.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.kinds import Exclusive
from distill.losses.logits.dkd import hard_labels
from distill.losses.logits.kd import check_logits
from distill.numerics import widen


def enhanced_targets(teacher_BK: Tensor, labels_B: Tensor, *, gamma: float) -> Tensor:
    """The weights (B, K) of the classes: p^γ, and (1 + p)^γ − 1 at the label. They do not sum to 1."""
    probabilities_BK = teacher_BK.softmax(1)
    at_label_BK = F.one_hot(labels_B, teacher_BK.shape[1]).bool()
    return torch.where(at_label_BK, (gamma * probabilities_BK.log1p()).expm1(), probabilities_BK.pow(gamma))


@dataclass(frozen=True)
class OFA(Exclusive):
    """Cross-entropy with the teacher's probabilities, the label's enhanced; student and teacher are logits (B, K).

    `batch.labels` is int (B,).

    gamma: γ of at least 1; 1 leaves the label out.

    Raises: ValueError where the shapes differ, for fewer than two classes, or for labels that are soft or unknown
    (below 0).
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gamma) and self.gamma >= 1):
            raise ValueError(f"OFA.gamma must be a finite number of at least 1, got {self.gamma}.")

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        check_logits("OFA", student, teacher)
        labels = hard_labels("OFA", batch.labels, student)
        targets_BK = enhanced_targets(widen(teacher.detach()), labels, gamma=self.gamma)
        return -(targets_BK * F.log_softmax(widen(student), 1)).sum(1)
