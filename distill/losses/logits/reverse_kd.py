"""ReverseKD: the student puts its probability only where the teacher puts some.

Gu, Dong, Wei and Huang, 2024, "MiniLLM: Knowledge Distillation of Large Language Models", arXiv:2306.08543, section 2.

    L = T² · (1/B) Σ_b Σ_c p_s(c) [log p_s(c) − log p_t(c)],    p = softmax(z / T)

Departures: the divergence is that of the class probabilities of each example, where the paper has whole texts that the
student samples. T² is always there, so the gradient's size does not depend on T.
Needs: logits (B, K) of the same classes.
Cost: light, O(B·K).
Paper setting: weight 1 in place of forward divergence, temperature=1.0.
"""

from dataclasses import dataclass

from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import check_positive
from distill.losses.kinds import Exclusive
from distill.losses.logits.kd import check_logits, softened_divergence
from distill.numerics import widen


@dataclass(frozen=True)
class ReverseKD(Exclusive):
    """T² · KL(student ‖ teacher) of the softened class probabilities; student and teacher are logits (B, K).

    A student that cannot follow the whole teacher keeps to its likeliest classes, where KD spreads over all of them.

    temperature: T > 0; a higher one gives more weight to the classes that the student finds unlikely.

    Raises: ValueError where the shapes differ, or for fewer than two classes.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_positive("ReverseKD.temperature", self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """The loss of each example, (B,)."""
        check_logits("ReverseKD", student, teacher)
        return softened_divergence(widen(teacher.detach()), widen(student), temperature=self.temperature)
