"""LogitMSE: the student's logits equal the teacher's.

Ba and Caruana, 2014, "Do Deep Nets Really Need to be Deep?", arXiv:1312.6184, section 2.2.

    L = (1/B) Σ_b (1/K) Σ_c ((z_s(c) − z_t(c)) / T)²

Departures: mean over the classes, as in public code, where the paper has half their sum: a weight. The paper has T = 1.
Needs: logits (B, K) of the same classes.
Cost: light, O(B·K).
Paper setting: weight 1 without a loss against labels, temperature=1.0.
"""

from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import check_positive
from distill.losses.hints.hint import squared_difference
from distill.losses.logits.kd import check_logits
from distill.numerics import widen


@dataclass(frozen=True)
class LogitMSE:
    """Mean squared difference of the logits (B, K).

    temperature: T > 0 divides both models' logits.

    Raises: ValueError where the shapes differ.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_positive("LogitMSE.temperature", self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        check_logits("LogitMSE", student, teacher, least=1)
        return squared_difference(widen(student) / self.temperature, widen(teacher.detach()) / self.temperature)
