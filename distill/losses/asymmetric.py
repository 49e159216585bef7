"""Asymmetric: where a label rarely holds, easy negatives count little and the easiest not at all.

Ridnik, Ben-Baruch, Zamir, Noy, Friedman, Protter and Zelnik-Manor, 2021, "Asymmetric Loss For Multi-Label
Classification", arXiv:2009.14119, section 2.4.

    L = −(1/B) Σ_b mean over known labels k of [y (1 − p)^γ+ log p + (1 − y) p_m^γ− log(1 − p_m)]
    p = sigmoid(z),    p_m = max(p − m, 0)

Departures: the mean over the known labels, where the paper has the sum over all, so that examples with some labels
unknown count alike; 0 where none is known. In log space, so that a positive that is surely missed keeps its gradient;
the authors' code clamps the probabilities at 1e-8. The gradient goes through the focusing weights as well, as in the
paper's section 2.5; the authors' code can stop it there.
Needs: logits (B, K), and labels float (B, K) in [0, 1], NaN where unknown.
Cost: light, O(B·K).
Paper setting: weight 1, focus_negative=4.0, focus_positive=0.0, margin=0.05 (MS-COCO).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import check_weight, is_tensor, shape_of
from distill.losses.kinds import Task
from distill.losses.task import mean_of_known
from distill.numerics import widen


def asymmetric(
    logits_BK: Tensor, labels_BK: Tensor, *, focus_negative: float, focus_positive: float, margin: float
) -> Tensor:
    """The asymmetric loss in nats, (B,), mean over the labels of each example that are not NaN.

    labels_BK: in [0, 1], or NaN.
    """
    logits_BK = widen(logits_BK)
    known_BK = ~labels_BK.isnan()
    # Replaced before and not after: zero times the gradient of a loss that is NaN would be NaN.
    target_BK = labels_BK.nan_to_num(0.0).to(logits_BK.dtype)
    log_yes_BK, log_no_BK = F.logsigmoid(logits_BK), F.logsigmoid(-logits_BK)
    positive_BK = (focus_positive * log_no_BK).exp() * log_yes_BK
    negative_BK = _negative(logits_BK, log_no_BK, focus_negative, margin)
    return mean_of_known(-target_BK * positive_BK - (1 - target_BK) * negative_BK, known_BK)


def _negative(logits_BK: Tensor, log_no_BK: Tensor, focus: float, margin: float) -> Tensor:
    """p_m^γ− log(1 − p_m), at most 0."""
    shifted_BK = logits_BK.sigmoid() - margin
    counts_BK = shifted_BK > 0
    log_margin = log_no_BK.new_tensor(margin).log()
    log_rest_BK = torch.logaddexp(log_no_BK, log_margin)  # 1 − p_m = (1 − p) + m
    # A power below 1 has an infinite gradient at 0, so what does not count must not reach it.
    weight_BK = torch.where(counts_BK, shifted_BK, torch.ones_like(shifted_BK)) ** focus
    return torch.where(counts_BK, weight_BK * log_rest_BK, torch.zeros_like(weight_BK))


@dataclass(frozen=True)
class Asymmetric(Task):
    """Binary cross-entropy less its easy negatives, of logits (B, K) against `batch.labels`, float (B, K) in [0, 1].

    A label that is NaN is unknown and does not count: the loss is the mean over the example's own known labels, and 0
    where it has none.

    focus_negative, focus_positive: γ− and γ+, at least 0; the higher, the less an easy negative or positive counts.
    margin: m in [0, 1); a negative of a lower probability does not count at all.

    Raises: ValueError where logits and labels do not meet.
    """

    focus_negative: float = 4.0
    focus_positive: float = 0.0
    margin: float = 0.05

    def __post_init__(self) -> None:
        check_weight("Asymmetric.focus_negative", self.focus_negative)
        check_weight("Asymmetric.focus_positive", self.focus_positive)
        if not (math.isfinite(self.margin) and 0 <= self.margin < 1):
            raise ValueError(f"Asymmetric.margin must be in [0, 1), got {self.margin}.")

    def __call__(self, student: Tensor, teacher: object, batch: Batch) -> Tensor:
        """The loss of each example, (B,); the teacher is ignored."""
        labels = batch.labels
        if not (is_tensor(student, 2) and labels.is_floating_point() and labels.shape == student.shape):
            raise ValueError(
                f"Asymmetric takes logits (B, K) and labels float (B, K), got logits {shape_of(student)} and labels "
                f"{labels.dtype} {shape_of(labels)}. Tap the logits, and give each label as 1, 0 or NaN."
            )
        return asymmetric(
            student,
            labels,
            focus_negative=self.focus_negative,
            focus_positive=self.focus_positive,
            margin=self.margin,
        )
