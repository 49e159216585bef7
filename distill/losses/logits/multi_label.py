"""MultiLabelKD: for each label by itself, the student's softened probability follows the teacher's.

Yang, Xie, Zong, Feng, Niu, Sugiyama and Huang, 2023, "Multi-Label Knowledge Distillation", arXiv:2308.06453, section 3.

    L = T² · (1/B) Σ_b mean over known labels k of KL(Bernoulli(σ(z_t / T)) ‖ Bernoulli(σ(z_s / T)))

Departures: the mean over the labels, where the paper has their sum: a weight, but the same for examples with some
labels unknown. The paper has T = 1. Evaluated in log space with logsigmoid, so that it is 0 only where logits agree;
the authors' code clamps the probabilities at 1e-8.
Needs: logits (B, K) of the same labels. Where `batch.labels` is float (B, K), labels that are NaN do not count; with
labels of integers all count.
Cost: light, O(B·K).
Paper setting: weight 10 beside binary cross-entropy over the same labels (MS-COCO), temperature=1.0. The authors' code
sums the cross-entropy over the batch as well, so that its ratio is 10 over the batch size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import check_positive, is_tensor, shape_of
from distill.losses.logits.kd import check_logits
from distill.losses.task import mean_of_known
from distill.numerics import widen


def binary_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(Bernoulli(σ(teacher)) ‖ Bernoulli(σ(student))) in nats, element by element, from logits."""
    yes = F.logsigmoid(teacher) - F.logsigmoid(student)
    no = F.logsigmoid(-teacher) - F.logsigmoid(-student)
    return teacher.sigmoid() * yes + (-teacher).sigmoid() * no


@dataclass(frozen=True)
class MultiLabelKD:
    """T² · KL(teacher ‖ student) of each label's softened probability, mean over the example's known labels.

    Student and teacher are logits (B, K). Labels that are NaN in `batch.labels`, float (B, K), are left out; an example
    without a known label has loss and gradient 0.

    temperature: T > 0; a higher one still tells apart labels of which the teacher is sure.

    Raises: ValueError where the shapes differ.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_positive("MultiLabelKD.temperature", self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        check_logits("MultiLabelKD", student, teacher, least=1)
        divergence_BK = binary_divergence(widen(student) / self.temperature, widen(teacher.detach()) / self.temperature)
        return self.temperature**2 * mean_of_known(divergence_BK, known_labels(batch.labels, student))


def known_labels(labels: object, logits_BK: Tensor) -> Tensor:
    """Which labels count, bool (B, K): those of float labels that are not NaN, all of others."""
    if not (is_tensor(labels) and labels.is_floating_point()):
        return torch.ones_like(logits_BK, dtype=torch.bool)
    if labels.shape != logits_BK.shape:
        raise ValueError(
            f"MultiLabelKD takes labels float (B, K) like the logits, got labels {shape_of(labels)} for logits "
            f"{shape_of(logits_BK)}. Give one row of labels an example, NaN where one is unknown."
        )
    return ~labels.isnan()
