import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses import ChannelKD

BATCH = Batch(torch.zeros(1), torch.zeros(1).long(), torch.arange(1))
# KL of (1/4, 3/4) from (1/2, 1/2).
QUARTERS = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)


def loss_of(student: list[object], teacher: list[object], *, temperature: float = 1.0) -> float:
    """Of maps (C, H, W)."""
    maps: list[Tensor] = [torch.tensor([x], dtype=torch.float64) for x in (student, teacher)]
    return ChannelKD(temperature=temperature)(maps[0], maps[1], BATCH).item()


def test_value_of_one_channel() -> None:
    # softmax(0, ln 3) = (1/4, 3/4).
    assert loss_of([[[0.0], [0.0]]], [[[0.0], [math.log(3)]]]) == pytest.approx(QUARTERS)


def test_temperature_divides_the_map_and_its_square_multiplies_the_divergence() -> None:
    value = loss_of([[[0.0, 0.0]]], [[[0.0, 2 * math.log(3)]]], temperature=2.0)
    assert value == pytest.approx(4 * QUARTERS)


def test_channels_are_averaged_each_with_a_softmax_of_its_own() -> None:
    # The second channel agrees up to a constant, which a softmax ignores.
    student, teacher = [[[0.0, 0.0]], [[1.0, 2.0]]], [[[0.0, math.log(3)]], [[6.0, 7.0]]]
    assert loss_of(student, teacher) == pytest.approx(QUARTERS / 2)


def test_it_is_the_divergence_of_torch_over_all_positions() -> None:
    student, teacher = torch.randn(3, 4, 5, 6, dtype=torch.float64), torch.randn(3, 4, 5, 6, dtype=torch.float64)
    batch = Batch(torch.zeros(3), torch.zeros(3).long(), torch.arange(3))
    rows = [(x.reshape(12, 30) / 3).log_softmax(1) for x in (student, teacher)]
    expected = 9 * F.kl_div(*rows, reduction="batchmean", log_target=True)  # over 3 examples times 4 channels
    torch.testing.assert_close(ChannelKD(temperature=3.0)(student, teacher, batch).mean(), expected)


@pytest.mark.parametrize(
    ("student", "teacher", "way_out"),
    [
        ((1, 2, 4, 4), (1, 3, 4, 4), "Add head=Conv1x1()."),
        ((1, 2, 4, 4), (1, 2, 2, 2), "Add head=Regressor()."),
        ((1, 2, 1, 1), (1, 2, 1, 1), "Tap one feature map of each."),  # a softmax over one position is always 1
    ],
)
def test_maps_that_do_not_meet_are_refused_with_the_way_out(
    student: tuple[int, ...], teacher: tuple[int, ...], way_out: str
) -> None:
    with pytest.raises(ValueError, match="ChannelKD compares maps") as error:
        ChannelKD()(torch.zeros(student), torch.zeros(teacher), BATCH)
    assert str(error.value).endswith(f"got student {student} and teacher {teacher}. {way_out}")
