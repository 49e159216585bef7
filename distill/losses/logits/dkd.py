"""DKD: the student follows the teacher's confidence in the target class, and its opinion of the others, each by weight.

Zhao, Cui, Song, Qiu and Liang, 2022, "Decoupled Knowledge Distillation", arXiv:2203.08679, section 3.

    b = (p(y), 1 − p(y)),    p = softmax(z / T),    p̂ = softmax(z / T) over the K − 1 classes other than y
    L = T² · (1/B) Σ_b [α KL(b_t ‖ b_s) + β KL(p̂_t ‖ p̂_s)]

KD is this with α = 1 and, for each example, β = 1 − p_t(y): there a confident teacher silences the second part.

Departures: none; evaluated in log space, where the authors' code subtracts 1000 from the target's logit and takes the
logarithm of probabilities. The paper's growth of the weight over the first 20 epochs is the term's schedule, Ramp(20).
Needs: logits (B, K) of the same three or more classes, and one class as label for each example.
Cost: light, O(B·K).
Paper setting: weight 1 beside cross-entropy 1, temperature=4.0, target_weight=1.0, nontarget_weight=8.0, or 6.0 or 2.0
by pair (CIFAR-100); temperature=1.0, nontarget_weight=0.5 (ImageNet, ResNet-34 to ResNet-18).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import check_positive, check_weight, mismatch, shape_of
from distill.losses.kinds import Exclusive
from distill.losses.logits.kd import check_logits, softened_divergence
from distill.numerics import widen


def hard_labels(loss: str, labels: Tensor, logits_BK: Tensor) -> Tensor:
    """The labels as int64 (B,); refused where they are not one known class for each example.

    `loss` names the loss: "DKD".
    """
    if labels.is_floating_point() or labels.shape != logits_BK.shape[:1]:
        raise ValueError(
            f"{loss} takes one class for each example, labels int (B,), got labels {labels.dtype} {shape_of(labels)} "
            f"for logits {shape_of(logits_BK)}. Soft labels (mixup, cutmix) have no target class: switch them off, or "
            "use KD()."
        )
    if labels.device.type == "cpu" and (labels < 0).any():
        raise ValueError(  # an accelerator, which a look at the labels would hold up, refuses them by itself
            f"{loss} takes a known class for each example, got {int((labels < 0).sum())} labels below 0, which stand "
            "for unknown. Leave the unlabelled examples out, or use KD()."
        )
    return labels.long()


def target_logits(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Each example's value (B, 1) at its label."""
    return logits_BK.gather(1, labels_B[:, None])


def nontarget_logits(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Each example's values (B, K − 1) without that of its label, in the order of the classes."""
    classes = torch.arange(logits_BK.shape[1] - 1, device=logits_BK.device)
    return logits_BK.gather(1, classes + (classes >= labels_B[:, None]))


def target_against_rest(logits_BK: Tensor, labels_B: Tensor, *, temperature: float) -> Tensor:
    """Two logits (B, 2) whose softmax at the temperature is (p(y), 1 − p(y))."""
    rest_B1 = temperature * (nontarget_logits(logits_BK, labels_B) / temperature).logsumexp(1, keepdim=True)
    return torch.cat([target_logits(logits_BK, labels_B), rest_B1], 1)


def decoupled_divergences(
    student_BK: Tensor, teacher_BK: Tensor, labels_B: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """T² times the two divergences, (B,) each: target class against the rest, and the rest among themselves."""
    logits = student_BK, teacher_BK
    binary = (target_against_rest(x, labels_B, temperature=temperature) for x in logits)
    others = (nontarget_logits(x, labels_B) for x in logits)
    return (
        softened_divergence(*binary, temperature=temperature),
        softened_divergence(*others, temperature=temperature),
    )


@dataclass(frozen=True)
class DKD(Exclusive):
    """Divergence in the target class plus divergence among the others; student and teacher are logits (B, K).

    `batch.labels` is int (B,).

    temperature: T > 0 of both parts.
    target_weight: weight of the target class against the rest.
    nontarget_weight: weight of the other classes among themselves, whatever the teacher's confidence.

    Raises: ValueError where the shapes differ, for fewer than three classes, or for labels that are soft or unknown
    (below 0).
    """

    temperature: float = 4.0
    target_weight: float = 1.0
    nontarget_weight: float = 8.0

    def __post_init__(self) -> None:
        check_positive("DKD.temperature", self.temperature)
        check_weight("DKD.target_weight", self.target_weight)
        check_weight("DKD.nontarget_weight", self.nontarget_weight)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        check_logits("DKD", student, teacher)
        if student.shape[1] == 2:
            way_out = "Of two classes only one is not the target, and nothing is left to compare: use KD()."
            raise mismatch("DKD compares logits (B, K) of three or more classes", student, teacher, way_out)
        labels = hard_labels("DKD", batch.labels, student)
        target, nontarget = decoupled_divergences(
            widen(student), widen(teacher.detach()), labels, temperature=self.temperature
        )
        return self.target_weight * target + self.nontarget_weight * nontarget
