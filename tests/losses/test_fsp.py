import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import FSP

BATCH = Batch(torch.zeros(1), torch.zeros(1).long(), torch.arange(1))


def maps(*values: object) -> tuple[Tensor, ...]:
    """Maps (1, C, H, W) of nested lists (C, H, W)."""
    return tuple(torch.tensor([value], dtype=torch.float64) for value in values)


def test_the_larger_map_of_a_pair_is_max_pooled() -> None:
    # Student: max 4 times (2, −1) = (8, −4); teacher: 1 times (3, 1). Differences 5 and −5: 50.
    student = maps([[[1.0, 2.0], [3.0, 4.0]]], [[[2.0]], [[-1.0]]])
    teacher = maps([[[1.0]]], [[[3.0]], [[1.0]]])
    assert FSP()(student, teacher, BATCH).item() == pytest.approx(50)
    # The second map the larger: (max 4 and max −1) times 2.
    student = maps([[[2.0]]], [[[1.0, 4.0]], [[-1.0, -3.0]]])
    assert FSP()(student, teacher, BATCH).item() == pytest.approx((8 - 3) ** 2 + (-2 - 1) ** 2)


def test_the_flow_is_averaged_over_positions() -> None:
    # (1·2 + 3·4) / 2 = 7 against (1·1 + 1·1) / 2 = 1.
    student, teacher = maps([[[1.0, 3.0]]], [[[2.0, 4.0]]]), maps([[[1.0, 1.0]]], [[[1.0, 1.0]]])
    assert FSP()(student, teacher, BATCH).item() == pytest.approx(36)


def test_consecutive_maps_are_pairs_and_their_losses_add() -> None:
    # Flows 1·2 and 2·3 against 1·1 and 1·1: 1² + 5².
    student, teacher = maps([[[1.0]]], [[[2.0]]], [[[3.0]]]), maps([[[1.0]]], [[[1.0]]], [[[1.0]]])
    assert FSP()(student, teacher, BATCH).item() == pytest.approx(26)


def test_channels_that_differ_are_refused_with_both_shapes() -> None:
    student = torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 2, 2)
    teacher = torch.zeros(1, 2, 4, 4), torch.zeros(1, 6, 2, 2)
    message = (
        "FSP compares maps of equal channels, got student [(1, 2, 4, 4), (1, 3, 2, 2)] "
        "and teacher [(1, 2, 4, 4), (1, 6, 2, 2)]. Add head=Conv1x1()."
    )
    with pytest.raises(ValueError, match="FSP") as error:
        FSP()(student, teacher, BATCH)
    assert str(error.value) == message


@pytest.mark.parametrize("count", [1, 3])
def test_tuples_too_short_or_of_other_length_are_refused(count: int) -> None:
    two = (torch.zeros(1, 2, 4, 4),) * 2
    with pytest.raises(ValueError, match="FSP compares equally long tuples of two or more maps"):
        FSP()((torch.zeros(1, 2, 4, 4),) * count, two, BATCH)
