"""Label-wise embeddings: those of one label over examples, and of one example over labels, lie as in the teacher.

Yang, Xie, Zong, Feng, Niu, Sugiyama and Huang, 2023, "Multi-Label Knowledge Distillation", arXiv:2308.06453, section 3.

    d(a, b) = ‖e_a − e_b‖ / μ,    μ = mean of ‖e_a − e_b‖ over the pairs of a group
    L = mean over class-aware pairs of h(d_s − d_t) + mean over instance-aware pairs of h(d_s − d_t)
    h(x) = x²/2 for |x| ≤ 1, |x| − 1/2 beyond

Only embeddings e of an example's positive labels count. A class-aware group is one label, with an embedding from each
example that has it; an instance-aware group is one example, with an embedding for each label that it has.

Departures: both parts are means over the batch's pairs, so that neither more labels nor more examples raise them; the
authors' code divides a group's sum over ordered pairs by the group's size, and sums over groups. Coinciding embeddings
stay in μ. Embeddings of zeros count where the label is positive; the code takes them for missing. Example i's share is
half of each pair's cost for each of its ends. A group of two costs nothing, since its only distance is its mean; no
positive labels cost nothing.
Needs: label-wise embeddings (B, K, D), widths may differ, and labels (B, K) of 0 and 1, where NaN (unknown) is not
positive.
Cost: moderate, O(pairs · D) time and memory.
Paper setting: weight 100 for the class-aware and 1000 for the instance-aware sum of the authors' code, beside
MultiLabelKD with weight 10 (MS-COCO); the embeddings of a decoder that has one query for each label.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses.checks import check_scope, mismatch, same_examples
from distill.losses.kinds import Coupled, HonoursMask, Scope
from distill.losses.rows import meeting_rows
from distill.numerics import gather_rows, safe_norm


def pairs_within(groups_P: Tensor) -> tuple[Tensor, Tensor]:
    """Both ends of each pair of places that are in one group, each pair once."""
    first_Q, second_Q = (groups_P[:, None] == groups_P).triu(1).nonzero().unbind(1)
    return first_Q, second_Q


def relative_distances(embeddings_PD: Tensor, ends: tuple[Tensor, Tensor], groups_P: Tensor) -> Tensor:
    """Each pair's distance over the mean distance of its group, (pairs,); zero where all of a group coincide."""
    first_Q, second_Q = ends
    distances_Q = safe_norm(embeddings_PD[first_Q] - embeddings_PD[second_Q])
    group_Q = groups_P[first_Q]
    none = distances_Q.new_zeros(int(groups_P.max()) + 1 if len(groups_P) else 0)
    totals = none.index_add(0, group_Q, distances_Q)
    counts = none.index_add(0, group_Q, torch.ones_like(distances_Q))
    return distances_Q * (counts / torch.where(totals > 0, totals, 1))[group_Q]


def label_relation_shares(student_BKD: Tensor, teacher_BKD: Tensor, positive_BK: Tensor) -> Tensor:
    """Each example's share of both parts, (B,); `positive_BK` is bool."""
    example_P, label_P = positive_BK.nonzero().unbind(1)
    student_PD, teacher_PD = student_BKD[example_P, label_P], teacher_BKD[example_P, label_P]
    shares_B = student_BKD.new_zeros(len(student_BKD))
    for groups_P in (label_P, example_P):
        ends = pairs_within(groups_P)
        student_Q = relative_distances(student_PD, ends, groups_P)
        teacher_Q = relative_distances(teacher_PD, ends, groups_P)
        costs_Q = F.smooth_l1_loss(student_Q, teacher_Q, reduction="none") * (len(shares_B) / 2 / max(len(ends[0]), 1))
        for end_Q in ends:
            shares_B = shares_B.index_add(0, example_P[end_Q], costs_Q)
    return shares_B


@dataclass(frozen=True)
class LabelEmbedding(Coupled, HonoursMask):
    """Smooth L1 between the relative distances of the positive labels' embeddings (B, K, D); widths may differ.

    scope: "global" relates the examples of all processes, "local" those of one.

    Raises: ValueError where these are not embeddings of the same labels, or the labels are not (B, K).
    """

    scope: Scope = "global"

    def __post_init__(self) -> None:
        check_scope("LabelEmbedding.scope", self.scope)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The share of each example, (B,)."""
        if not same_examples(student, teacher, 3) or student.shape[1] != teacher.shape[1]:
            way_out = "Tap the label-wise embeddings, and give both models the same labels."
            raise mismatch("LabelEmbedding compares embeddings (B, K, D) of the same labels", student, teacher, way_out)
        if batch.labels.shape != student.shape[:2]:
            way_out = f"Give labels (B, K) of 0 and 1 in place of {tuple(batch.labels.shape)}."
            raise mismatch("LabelEmbedding compares embeddings (B, K, D) at labels (B, K)", student, teacher, way_out)
        positive = (batch.labels > 0.5).to(torch.uint8)
        student, teacher, own = meeting_rows(student, teacher, self.scope)
        if self.scope == "global":
            positive, _ = gather_rows(positive)
        return label_relation_shares(student, teacher, positive.bool())[own]
