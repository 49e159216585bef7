import math

import pytest
import torch
from torch import nn

from distill.batch import Batch
from distill.heads import Connector, Meeting, ReadsTeacher, batch_norm_margin
from distill.losses import Overhaul

STUDENT, TEACHER = torch.Size((4, 6, 4, 4)), torch.Size((4, 10, 8, 8))
BATCH = Batch(torch.zeros(4), torch.zeros(4).long(), torch.arange(4))


def margin(weight: float, bias: float) -> float:
    return batch_norm_margin(torch.tensor([weight]), torch.tensor([bias])).item()


def teacher_model() -> nn.Sequential:
    """A model with the norms bn1 (3 channels), bn2 (10) and plain (10, without weight)."""
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(3, 10, 3))
    model.add_module("bn1", nn.BatchNorm2d(3))
    model.add_module("bn2", nn.BatchNorm2d(10))
    model.add_module("plain", nn.BatchNorm2d(10, affine=False))
    return model


def test_margin_of_a_standard_normal() -> None:
    # −φ(0) / Φ(0) = −(1 / √2π) / ½ = −√(2/π): the mean of a half-normal, below zero. It grows with |γ|.
    assert margin(1.0, 0.0) == pytest.approx(-math.sqrt(2 / math.pi))
    assert margin(-3.0, 0.0) == pytest.approx(-3 * math.sqrt(2 / math.pi))


@pytest.mark.parametrize(("weight", "bias"), [(1.5, 0.5), (0.7, -2.0), (2.0, 5.0)])
def test_margin_is_the_mean_of_the_negative_part(weight: float, bias: float) -> None:
    x = torch.linspace(-30, 0, 300_001, dtype=torch.float64)
    density = torch.exp(-(((x - bias) / weight) ** 2) / 2)
    assert margin(weight, bias) == pytest.approx((x * density).sum().item() / density.sum().item(), rel=1e-3)


def test_margin_where_negative_values_are_rare_is_three_deviations() -> None:
    # Φ(−3.09) = 0.0010008 and Φ(−3.1) = 0.00097. At the former φ = 0.003370: 3.09 − 0.003370 / 0.0010008 = −0.277.
    assert margin(1.0, 3.09) == pytest.approx(-0.277, abs=2e-3)
    assert margin(1.0, 3.1) == pytest.approx(-3)
    assert margin(2.0, 100.0) == pytest.approx(-6)


def test_margin_of_a_channel_that_does_not_vary_is_its_negative_value_or_zero() -> None:
    margins = batch_norm_margin(torch.zeros(3), torch.tensor([-2.0, 0.0, 2.0]))
    torch.testing.assert_close(margins, torch.tensor([-2.0, 0.0, 0.0]))


def test_the_teachers_map_is_averaged_to_the_students_size_and_raised_to_the_margin_of_the_norm() -> None:
    model = teacher_model()
    nn.init.normal_(model.bn2.weight)
    nn.init.normal_(model.bn2.bias)
    head = Connector(norm="bn2")(STUDENT, TEACHER)
    assert isinstance(head, ReadsTeacher)
    head.read_teacher(model)
    teacher = 3 * torch.randn(TEACHER)
    student, raised = head(torch.randn(STUDENT), teacher, BATCH)
    assert student.shape == raised.shape == (4, 10, 4, 4)
    floor = batch_norm_margin(model.bn2.weight, model.bn2.bias).reshape(10, 1, 1)
    pooled = teacher.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    torch.testing.assert_close(raised, torch.where(pooled > floor, pooled, floor))
    assert (raised == floor).any()
    assert (raised > floor).any()


def test_the_student_is_connected_by_a_normalised_convolution_and_all_of_it_is_trained() -> None:
    head = Connector(norm="bn2")(STUDENT, TEACHER)
    head.read_teacher(teacher_model())
    assert [type(part) for part in head.student] == [nn.Conv2d, nn.BatchNorm2d]
    assert sum(parameter.numel() for parameter in head.parameters()) == 6 * 10 + 2 * 10
    Overhaul()(*head(torch.randn(STUDENT), torch.randn(TEACHER), BATCH), BATCH).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_a_head_that_has_not_read_the_teacher_is_refused_and_a_saved_margin_is_enough() -> None:
    head = Connector(norm="bn2")(STUDENT, TEACHER)
    with pytest.raises(ValueError, match=r"The margin of 'bn2' was not read\. Call read_teacher\(teacher\) first\."):
        head(torch.randn(STUDENT), torch.randn(TEACHER), BATCH)
    head.read_teacher(teacher_model())
    other = Connector(norm="bn2")(STUDENT, TEACHER)
    other.load_state_dict(head.state_dict())
    assert other(torch.randn(STUDENT), torch.randn(TEACHER), BATCH)[1].isfinite().all()


@pytest.mark.parametrize(
    ("norm", "what"),
    [
        ("bn3", "which is not there"),
        ("conv1", "a Conv2d"),
        ("bn1", "a BatchNorm2d"),  # of another number of channels
        ("plain", "a BatchNorm2d"),  # without weight and bias
    ],
)
def test_a_norm_that_does_not_fit_is_refused_with_the_nearest_that_does(norm: str, what: str) -> None:
    with pytest.raises(ValueError, match=r"Connector\.norm") as error:
        Connector(norm)(STUDENT, TEACHER).read_teacher(teacher_model())
    assert str(error.value) == (
        "Connector.norm must be a BatchNorm2d of the teacher with 10 channels, weight and bias, "
        f"got '{norm}', {what}. Nearest: bn2."
    )


def test_a_smaller_map_of_the_teacher_is_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match="Connector") as error:
        Connector("bn2")(TEACHER, STUDENT)
    assert str(error.value) == (
        "Connector needs a teacher's map not smaller than the student's, got student (4, 10, 8, 8) and teacher "
        "(4, 6, 4, 4). Tap a later layer of the student or an earlier one of the teacher."
    )


def test_it_meets_the_teachers_map() -> None:
    assert isinstance(Connector("bn2"), Meeting)
