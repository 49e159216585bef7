import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import Overhaul

BATCH = Batch(torch.zeros(1), torch.zeros(1).long(), torch.arange(1))


def row(*values: float) -> Tensor:
    """A map (1, 1, 1, W)."""
    return torch.tensor([[[values]]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("student", "teacher", "cost"),
    [
        (1.0, 2.0, 1.0),  # an active teacher is followed from below
        (3.0, 2.0, 1.0),  # and from above
        (0.5, -0.5, 1.0),  # an inactive one only from above
        (-0.8, -0.5, 0.0),
        (-0.5, -3.0, 0.25),  # and no further than the margin
        (-2.0, -3.0, 0.0),
    ],
)
def test_value_of_one_element_with_margin_minus_one(student: float, teacher: float, cost: float) -> None:
    assert Overhaul(margin=-1.0)(row(student), row(teacher), BATCH).item() == pytest.approx(cost)


def test_elements_are_summed() -> None:
    loss = Overhaul(margin=-1.0)(row(1.0, 3.0, 0.5, -0.8, -0.5, -2.0), row(2.0, 2.0, -0.5, -0.5, -3.0, -3.0), BATCH)
    assert loss.item() == pytest.approx(3.25)


def test_without_a_margin_the_teachers_map_is_taken_as_it_is() -> None:
    assert Overhaul()(row(-2.0), row(-3.0), BATCH).item() == pytest.approx(1)


def test_each_channel_has_its_own_margin() -> None:
    # Distances to −1 and to −0.5: 1² + 0.5².
    student, teacher = torch.zeros(1, 2, 1, 1), torch.full((1, 2, 1, 1), -3.0)
    assert Overhaul(margin=(-1.0, -0.5))(student, teacher, BATCH).item() == pytest.approx(1.25)


def test_it_is_the_sum_of_the_three_cases_of_the_authors() -> None:
    # Above the margin where the teacher is below it; above the teacher where that is between margin and 0; or an active
    # teacher.
    student, teacher = torch.randn(1, 3, 4, 4, dtype=torch.float64), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    margins = (-0.3, -0.9, -1.5)
    expected = 0.0
    for channel, m in enumerate(margins):
        for s, t in zip(student[0, channel].flatten().tolist(), teacher[0, channel].flatten().tolist(), strict=True):
            if t <= m:
                expected += (s - m) ** 2 if s > m else 0
            elif t <= 0:
                expected += (s - t) ** 2 if s > t else 0
            else:
                expected += (s - t) ** 2
    assert Overhaul(margin=margins)(student, teacher, BATCH).item() == pytest.approx(expected)


def test_as_many_margins_as_channels_are_needed() -> None:
    with pytest.raises(ValueError, match=r"^Overhaul compares maps of as many channels as it has margins, 2, got "):
        Overhaul(margin=(-1.0, -1.0))(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), BATCH)
