import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses import ReviewHCL

BATCH = Batch(torch.zeros(2), torch.zeros(2).long(), torch.arange(2))


def maps(*shape: int) -> Tensor:
    return torch.randn(2, *shape, dtype=torch.float64)


def test_value_of_a_map_of_two_by_two() -> None:
    # Only the level 1 is smaller, and has the weight ½. Squares 1, 9, 1, 1 of the differences average to 3, and the
    # difference of the averages is (1 + 3 − 1 + 1) / 4 = 1: (3 + ½ · 1) / 1.5.
    student = torch.tensor([[[[1.0, 3.0], [-1.0, 1.0]]]])
    loss = ReviewHCL()(student, torch.zeros(1, 1, 2, 2), BATCH)
    assert loss.item() == pytest.approx(7 / 3)


def test_all_levels_count_half_as_much_as_the_one_before() -> None:
    student, teacher = maps(3, 6, 6), maps(3, 6, 6)
    expected = ((student - teacher) ** 2).mean((1, 2, 3))
    for level, weight in ((4, 0.5), (2, 0.25), (1, 0.125)):
        pair = F.adaptive_avg_pool2d(student, level), F.adaptive_avg_pool2d(teacher, level)
        expected = expected + weight * ((pair[0] - pair[1]) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(ReviewHCL()(student, teacher, BATCH), expected / 1.875)


def test_a_map_of_one_position_is_compared_as_it_is() -> None:
    student, teacher = maps(3, 1, 1), maps(3, 1, 1)
    torch.testing.assert_close(ReviewHCL()(student, teacher, BATCH), ((student - teacher) ** 2).mean((1, 2, 3)))


def test_a_level_must_be_smaller_than_both_sides() -> None:
    student, teacher = maps(3, 2, 6), maps(3, 2, 6)
    loss = ReviewHCL(levels=(1,))(student, teacher, BATCH)
    torch.testing.assert_close(ReviewHCL()(student, teacher, BATCH), loss)


def test_stages_are_added() -> None:
    student, teacher = (maps(3, 5, 5), maps(4, 2, 2)), (maps(3, 5, 5), maps(4, 2, 2))
    loss = ReviewHCL()
    expected = loss(student[0], teacher[0], BATCH) + loss(student[1], teacher[1], BATCH)
    torch.testing.assert_close(loss(student, teacher, BATCH), expected)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((maps(3, 4, 4),), maps(3, 4, 4)),
        ((maps(3, 4, 4),), (maps(3, 4, 4),) * 2),
        ((maps(3, 4, 4),), (maps(3, 2, 2),)),
        ((), ()),
    ],
)
def test_maps_that_do_not_meet_are_refused_with_the_head(student: tuple[Tensor, ...], teacher: object) -> None:
    with pytest.raises(ValueError, match=r"^ReviewHCL compares maps .*, got .*\. Add head=ReviewFusion\(\)\.$"):
        ReviewHCL()(student, teacher, BATCH)  # type: ignore[arg-type]
