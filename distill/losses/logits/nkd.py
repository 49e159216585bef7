"""NKD: the student is sure of the target where the teacher is, and follows its opinion of the other classes.

Yang, Zeng, Li, Zhang, Yuan and Li, 2023, "From Knowledge Distillation to Self-Knowledge Distillation: A Unified
Approach with Normalized Loss and Customized Soft Labels", arXiv:2303.13005, section 3.

    p = softmax(z),    p̂ = softmax(z / T) over the K − 1 classes other than y
    L = −(1/B) Σ_b [p_t(y) log p_s(y) + γ T² Σ_c≠y p̂_t(c) log p̂_s(c)]

These are cross-entropies: the smallest value is γ T² times the entropy of p̂_t. The first part does not make the student
as unsure as the teacher: it is cross-entropy with the label, weighted by the teacher's confidence.

Departures: none; evaluated in log space. The authors' first code left the target class among the others.
Needs: logits (B, K) of the same two or more classes, and one class as label for each example.
Cost: light, O(B·K).
Paper setting: weight 1 beside cross-entropy 1, temperature=1.0, weight=1.5 (ImageNet); temperature=3.0, weight=3.5
(CIFAR-100, ResNet-34 to ResNet-18).
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import check_positive, check_weight
from distill.losses.kinds import Exclusive
from distill.losses.logits.dkd import hard_labels, nontarget_logits, target_logits
from distill.losses.logits.kd import check_logits
from distill.numerics import widen


def target_part(student_BK: Tensor, teacher_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy with the label times the teacher's probability of it, (B,)."""
    log_probability_B1 = target_logits(F.log_softmax(student_BK, 1), labels_B)
    return -(target_logits(teacher_BK.softmax(1), labels_B) * log_probability_B1).squeeze(1)


def nontarget_part(student_BK: Tensor, teacher_BK: Tensor, labels_B: Tensor, *, temperature: float) -> Tensor:
    """T² times the cross-entropy between the distributions over the classes other than the label, (B,)."""
    student_BO = nontarget_logits(student_BK, labels_B) / temperature
    teacher_BO = nontarget_logits(teacher_BK, labels_B) / temperature
    return -(temperature**2) * (teacher_BO.softmax(1) * F.log_softmax(student_BO, 1)).sum(1)


@dataclass(frozen=True)
class NKD(Exclusive):
    """Target part plus weighted non-target part, both cross-entropies; student and teacher are logits (B, K).

    `batch.labels` is int (B,).

    temperature: T > 0 of the non-target part; the target part has none.
    weight: γ of the non-target part.

    Raises: ValueError where the shapes differ, for fewer than two classes, or for labels that are soft or unknown
    (below 0).
    """

    temperature: float = 1.0
    weight: float = 1.5

    def __post_init__(self) -> None:
        check_positive("NKD.temperature", self.temperature)
        check_weight("NKD.weight", self.weight)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        check_logits("NKD", student, teacher)
        labels = hard_labels("NKD", batch.labels, student)
        student, teacher = widen(student), widen(teacher.detach())
        nontarget = nontarget_part(student, teacher, labels, temperature=self.temperature)
        return target_part(student, teacher, labels) + self.weight * nontarget
