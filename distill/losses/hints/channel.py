"""Channel-wise distillation: each of the student's channels spreads over the positions as the teacher's does.

Shu, Liu, Gao, Yan and Shen, 2021, "Channel-wise Knowledge Distillation for Dense Prediction", arXiv:2011.13256,
eq. 4 and 5.

    L = (T² / (B·C)) Σ_bc Σ_i p_t(i) [log p_t(i) − log p_s(i)],    p = softmax(f / T) over the positions of a channel

Departures: none.
Needs: maps (B, C, H, W) of equal shape and at least two positions.
Cost: light, O(B · elements).
Paper setting: weight 5 for the logits' map of a segmentation network, temperature=1.0 (as in the public code).
"""

from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import check_positive, is_tensor, mismatch, same_examples
from distill.losses.logits.kd import softened_divergence
from distill.numerics import widen


def channel_divergence(student_BCHW: Tensor, teacher_BCHW: Tensor, *, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of each channel's softmax over positions, averaged over channels, (B,)."""
    student, teacher = student_BCHW.flatten(2).flatten(0, 1), teacher_BCHW.flatten(2).flatten(0, 1)
    divergence = softened_divergence(student, teacher, temperature=temperature)
    return divergence.reshape(student_BCHW.shape[:2]).mean(1)


@dataclass(frozen=True)
class ChannelKD:
    """T² · KL(teacher ‖ student) over the positions of each channel; maps (B, C, H, W) of equal shape.

    temperature: T > 0; a higher one gives more weight to the positions where the teacher is hardly active.

    Raises: ValueError where the shapes differ, or for maps of one position, whose softmax is always 1.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_positive("ChannelKD.temperature", self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        if not same_examples(student, teacher, 4) or student.shape != teacher.shape or student[0, 0].numel() < 2:
            raise mismatch(
                "ChannelKD compares maps (B, C, H, W) of equal shape and at least two positions",
                student,
                teacher,
                _way_out(student, teacher),
            )
        return channel_divergence(widen(student), widen(teacher.detach()), temperature=self.temperature)


def _way_out(student: object, teacher: object) -> str:
    if is_tensor(student, 4) and is_tensor(teacher, 4) and student.shape != teacher.shape:
        return "Add head=Conv1x1()." if student.shape[2:] == teacher.shape[2:] else "Add head=Regressor()."
    return "Tap one feature map of each."
