import pytest
import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.heads import Meeting, Projector

BATCH = Batch(torch.zeros(9), torch.zeros(9).long(), torch.arange(9))


def module(head: Projector, student: tuple[int, ...], teacher: tuple[int, ...]) -> nn.Module:
    return head(torch.Size(student), torch.Size(teacher))


def standardized(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-4).sqrt()


@pytest.mark.parametrize("norm", [True, False])
def test_both_sides_get_the_teachers_shape_and_the_projection_learns(norm: bool) -> None:
    projection = module(Projector(norm=norm), (4, 6), (4, 10))
    student, teacher = projection(torch.randn(9, 6), torch.randn(9, 10), BATCH)
    assert student.shape == teacher.shape == (9, 10)
    (student - teacher).square().sum().backward()
    assert [parameter.shape for parameter in projection.parameters()] == [(10, 6)]  # no bias, no scale, no shift
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in projection.parameters())
    assert isinstance(Projector(), Meeting)


def test_both_sides_are_standardized_over_the_batch() -> None:
    projection = module(Projector(), (4, 6), (4, 10))
    inputs, targets = torch.randn(9, 6), 3 * torch.randn(9, 10) + 2
    (weight,) = projection.parameters()
    student, teacher = projection(inputs, targets, BATCH)
    torch.testing.assert_close(student, standardized(inputs @ weight.T))
    torch.testing.assert_close(teacher, standardized(targets))


def test_without_norm_the_teacher_stays_and_the_student_is_mapped_linearly() -> None:
    projection = module(Projector(norm=False), (4, 6), (4, 10))
    inputs, targets = torch.randn(9, 6), torch.randn(9, 10)
    (weight,) = projection.parameters()
    student, teacher = projection(inputs, targets, BATCH)
    torch.testing.assert_close(student, inputs @ weight.T)
    assert torch.equal(teacher, targets)


@pytest.mark.parametrize(
    ("student", "teacher", "way_out"),
    [
        ((8, 64, 8, 8), (8, 256, 8, 8), "Use head=Conv1x1()."),
        ((8, 5, 64), (8, 64), 'Tap "embedding".'),
    ],
)
def test_other_than_embeddings_is_refused_with_both_shapes(
    student: tuple[int, ...], teacher: tuple[int, ...], way_out: str
) -> None:
    with pytest.raises(ValueError, match="Projector maps") as error:
        module(Projector(), student, teacher)
    expected = f"Projector maps embeddings (B, D), got student {student} and teacher {teacher}. {way_out}"
    assert str(error.value) == expected
