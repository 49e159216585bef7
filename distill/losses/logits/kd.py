"""Knowledge distillation: the student's softened class probabilities follow the teacher's.

Hinton, Vinyals and Dean, 2015, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, section 2;
standardised logits: Sun, Ren, Li, Wang and Cao, 2024, "Logit Standardization in Knowledge Distillation",
arXiv:2403.01427.

    L = T² · (1/B) Σ_b Σ_c p_t(c) [log p_t(c) − log p_s(c)],    p = softmax(z / T)
    standardised: z is replaced by (z − mean(z)) / (1e-7 + std(z)), std with K − 1, over the classes of each example

Departures: the teacher's entropy is subtracted, so that the minimum is 0; the gradient is that of the paper's
cross-entropy. T² is always there, so the gradient's size does not depend on T.
Needs: logits (B, K) of the same classes.
Cost: light, O(B·K).
Paper setting: weight 0.9 beside cross-entropy 0.1, temperature=4.0 (CIFAR-100, as in the literature's tables);
standardised weight 9 beside cross-entropy 0.1, temperature=2.0.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import check_positive, mismatch, same_examples
from distill.losses.kinds import Exclusive
from distill.numerics import safe_norm, widen


def check_logits(loss: str, student: Tensor, teacher: Tensor, *, least: int = 2) -> None:
    """Refuses what is not logits (B, K) of the same `least` or more classes. `loss` names the loss: "KD"."""
    if not same_examples(student, teacher, 2) or student.shape != teacher.shape or student.shape[1] < least:
        count = {1: "", 2: " two or more"}[least]
        way_out = f"Tap the logits, and give both models the same{count} classes."
        raise mismatch(f"{loss} compares logits (B, K) of the same classes", student, teacher, way_out)


def standardize_logits(logits_BK: Tensor) -> Tensor:
    """Each row (B, K) with mean 0 and unbiased standard deviation 1 over its classes; an even row becomes zeros."""
    centred_BK = logits_BK - logits_BK.mean(1, keepdim=True)
    return centred_BK / (1e-7 + safe_norm(centred_BK, 1, keepdim=True) / math.sqrt(logits_BK.shape[1] - 1))


def softened_divergence(student_BK: Tensor, teacher_BK: Tensor, *, temperature: float) -> Tensor:
    """T² times the divergence KL(teacher ‖ student) in nats of the softmax at temperature T, (B,), in log space."""
    student_BK = F.log_softmax(student_BK / temperature, 1)
    teacher_BK = F.log_softmax(teacher_BK / temperature, 1)
    return temperature**2 * F.kl_div(student_BK, teacher_BK, reduction="none", log_target=True).sum(1)


@dataclass(frozen=True)
class KD(Exclusive):
    """T² · KL(teacher ‖ student) of the softened class probabilities; student and teacher are logits (B, K).

    temperature: T > 0; a higher one gives more weight to the classes that the teacher finds unlikely.
    standardize: compare the logits' shape alone, each row with mean 0 and deviation 1: the student need not match the
        teacher's confidence.

    Raises: ValueError where the shapes differ, or for fewer than two classes.
    """

    temperature: float = 4.0
    standardize: bool = False

    def __post_init__(self) -> None:
        check_positive("KD.temperature", self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        check_logits("KD", student, teacher)
        student, teacher = widen(student), widen(teacher.detach())
        if self.standardize:
            student, teacher = standardize_logits(student), standardize_logits(teacher)
        return softened_divergence(student, teacher, temperature=self.temperature)
