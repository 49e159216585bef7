import pytest
import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.heads import VIDRegressor
from distill.losses import VID


def module(student: tuple[int, ...], teacher: tuple[int, ...], hidden: int | None = None) -> nn.Module:
    return VIDRegressor(hidden)(torch.Size(student), torch.Size(teacher))


def loss_of(head: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    size = len(student)
    return VID()(head(student), teacher, Batch(torch.zeros(size), torch.zeros(size).long(), torch.arange(size))).mean()


@pytest.mark.parametrize("side", [4, 6, 8])
def test_the_mean_has_the_teachers_shape_and_there_is_a_variance_for_each_channel(side: int) -> None:
    mean, variance = module((4, 6, side, side), (4, 10, 4, 4))(torch.randn(9, 6, side, side))
    assert mean.shape == (9, 10, 4, 4)
    assert variance.shape == (9, 10, 1, 1)


def test_the_variance_is_five_at_first_and_never_zero() -> None:
    head = module((4, 6, 4, 4), (4, 10, 4, 4))
    torch.testing.assert_close(head(torch.randn(4, 6, 4, 4))[1], torch.full((4, 10, 1, 1), 5.0))
    nn.init.constant_(head.alpha, -200.0)
    torch.testing.assert_close(head(torch.randn(4, 6, 4, 4))[1], torch.full((4, 10, 1, 1), 1e-5))


def test_every_parameter_is_trained_and_the_variance_comes_to_the_squared_error() -> None:
    head = module((4, 6, 4, 4), (4, 10, 4, 4))
    nn.init.zeros_(head.mean[-1].weight)  # the mean is 0 and the error the teacher's 0.5: the best variance is 0.25
    optimizer = torch.optim.SGD([head.alpha], lr=20.0)
    student, teacher = torch.randn(4, 6, 4, 4), torch.full((4, 10, 4, 4), 0.5)
    for _ in range(200):
        optimizer.zero_grad()
        loss_of(head, student, teacher).backward()
        optimizer.step()
    torch.testing.assert_close(head(student)[1], torch.full((4, 10, 1, 1), 0.25), rtol=1e-3, atol=0)
    nn.init.ones_(head.mean[-1].weight)
    head.zero_grad()
    loss_of(head, student, teacher).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_hidden_channels_are_the_teachers_unless_given() -> None:
    count = lambda head: sum(parameter.numel() for parameter in head.parameters())  # noqa: E731
    assert count(module((4, 6, 4, 4), (4, 10, 4, 4))) == 6 * 10 + 10 * 10 + 10 * 10 + 10
    assert count(module((4, 6, 4, 4), (4, 10, 4, 4), hidden=3)) == 6 * 3 + 3 * 3 + 3 * 10 + 10


def test_a_larger_map_is_averaged_before_the_convolutions() -> None:
    head = module((1, 2, 4, 4), (1, 3, 2, 2))
    student = torch.randn(1, 2, 2, 2)
    torch.testing.assert_close(head(student.repeat_interleave(2, 2).repeat_interleave(2, 3))[0], head(student)[0])


def test_a_smaller_map_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="VIDRegressor") as error:
        module((8, 64, 4, 4), (8, 64, 8, 8))
    assert str(error.value) == (
        "VIDRegressor needs a student's map not smaller than the teacher's, got student (8, 64, 4, 4) and teacher "
        "(8, 64, 8, 8). Tap an earlier layer of the student or a later one of the teacher."
    )
    with pytest.raises(ValueError, match=r"got student \(8, 64\) and teacher \(8, 256\)"):
        module((8, 64), (8, 256))


def test_hidden_is_checked() -> None:
    with pytest.raises(ValueError, match=r"^VIDRegressor\.hidden .*, got 0\.$"):
        VIDRegressor(hidden=0)
