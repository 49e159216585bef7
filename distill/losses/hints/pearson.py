"""Pearson hint: each of the student's channels varies over the examples as the teacher's does, on its own scale.

Cao, Zhang, Gao, Cheng, Cheng and Cheng, 2022, "PKD: General Distillation Framework for Object Detectors via Pearson
Correlation Coefficient", arXiv:2207.02039, section 3.

    z = (f − mean) / (1e-6 + std),    mean and std (unbiased) of a channel over examples and positions
    L = ½ · mean over all elements of (z_s − z_t)²

For n values in a channel that is (n − 1) / n times the mean over channels of 1 − r, with Pearson's correlation r.

Departures: a constant channel has z = 0, with gradient 0 and not 1e6. Example i's share is the mean over its elements.
Needs: maps (B, C, H, W) or embeddings (B, D), of equal shape.
Cost: light, O(B · elements).
Paper setting: weight 6 for every level of a two-stage detector's feature pyramid, weight 10 for a one-stage one's.
"""

from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import check_scope, mismatch, same_examples
from distill.losses.kinds import Coupled, Scope
from distill.losses.rows import meeting_rows
from distill.numerics import safe_sqrt


def standardize_channels(features_BCN: Tensor) -> Tensor:
    """Each channel with mean 0 and unbiased deviation 1 over examples and positions; zeros where it is constant."""
    # The first value is taken off beforehand: the mean of equal numbers may differ from them by a rounding error, which
    # would be all that is left, and be scaled up.
    shifted_BCN = features_BCN - features_BCN[:1, :, :1].detach()
    centred_BCN = shifted_BCN - shifted_BCN.mean((0, 2), keepdim=True)
    count = centred_BCN.shape[0] * centred_BCN.shape[2]
    variance_C = centred_BCN.square().sum((0, 2), keepdim=True) / max(count - 1, 1)
    return centred_BCN * (1e-6 + safe_sqrt(variance_C)).reciprocal().where(variance_C > 0, 0.0)


@dataclass(frozen=True)
class PearsonHint(Coupled):
    """Half the mean squared difference of standardised channels; maps (B, C, H, W) or embeddings (B, D), equal shapes.

    scope: "global" standardises over the examples of all processes, "local" over those of one.

    Raises: ValueError where the shapes differ.
    """

    scope: Scope = "global"

    def __post_init__(self) -> None:
        check_scope("PearsonHint.scope", self.scope)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The share of each example, (B,)."""
        if not same_examples(student, teacher) or student.shape != teacher.shape or student.ndim not in (2, 4):
            way_out = "Add head=Conv1x1() or head=Linear(), or tap tensors of one form."
            raise mismatch("PearsonHint compares equal shapes (B, C, H, W) or (B, D)", student, teacher, way_out)
        student, teacher, own = meeting_rows(student, teacher, self.scope)
        columns = len(student), student.shape[1], -1
        difference = standardize_channels(student.reshape(columns)) - standardize_channels(teacher.reshape(columns))
        return difference[own].square().mean((1, 2)) / 2
