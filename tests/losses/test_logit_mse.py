import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import LogitMSE


def loss_of(loss: LogitMSE, student: Tensor, teacher: Tensor) -> Tensor:
    size = len(student)
    return loss(student, teacher, Batch(torch.zeros(size), torch.zeros(size).long(), torch.arange(size)))


def test_value_is_the_mean_over_classes_of_each_example() -> None:
    # (1, −2, 0) − (3, 0, −4) = (−2, −2, 4): (4 + 4 + 16) / 3 = 8; the second example agrees.
    student = torch.tensor([[1.0, -2.0, 0.0], [5.0, 5.0, 5.0]])
    teacher = torch.tensor([[3.0, 0.0, -4.0], [5.0, 5.0, 5.0]])
    assert loss_of(LogitMSE(), student, teacher).tolist() == pytest.approx([8.0, 0.0])


def test_the_temperature_divides_the_logits() -> None:
    # 8 / 2².
    student, teacher = torch.tensor([[1.0, -2.0, 0.0]]), torch.tensor([[3.0, 0.0, -4.0]])
    assert loss_of(LogitMSE(temperature=2.0), student, teacher).item() == pytest.approx(2)


def test_a_shift_of_all_logits_counts_though_the_probabilities_stay() -> None:
    student = torch.tensor([[1.0, 2.0, 3.0]])
    assert loss_of(LogitMSE(), student + 3, student).item() == pytest.approx(9)


def test_one_logit_is_enough() -> None:
    assert loss_of(LogitMSE(), torch.tensor([[1.0]]), torch.tensor([[4.0]])).item() == pytest.approx(9)


def test_logits_of_other_classes_are_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="LogitMSE") as error:
        loss_of(LogitMSE(), torch.zeros(4, 10), torch.zeros(4, 100))
    assert str(error.value) == (
        "LogitMSE compares logits (B, K) of the same classes, got student (4, 10) and teacher (4, 100). "
        "Tap the logits, and give both models the same classes."
    )
