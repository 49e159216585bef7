import pytest
import torch

from distill.batch import Batch
from distill.losses import Hint

BATCH = Batch(torch.zeros(2), torch.zeros(2).long(), torch.arange(2))


def test_value_is_the_mean_square_of_each_example() -> None:
    # Differences (0, 2) and (3, 4): 4/2 and 25/2.
    student, teacher = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert Hint()(student, teacher, BATCH).tolist() == [2.0, 12.5]


@pytest.mark.parametrize("shape", [(2,), (2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_its_mean_is_the_mean_over_all_elements(shape: tuple[int, ...]) -> None:
    student, teacher = torch.randn(shape), torch.randn(shape)
    torch.testing.assert_close(Hint()(student, teacher, BATCH).mean(), torch.nn.functional.mse_loss(student, teacher))


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (
            (8, 64, 8, 8),
            (8, 256, 8, 8),
            "Hint compares equal shapes, got student (8, 64, 8, 8) and teacher (8, 256, 8, 8). Add head=Conv1x1().",
        ),
        (
            (8, 64, 8, 8),
            (8, 64, 4, 4),
            "Hint compares equal shapes, got student (8, 64, 8, 8) and teacher (8, 64, 4, 4). Add head=Regressor().",
        ),
        (
            (8, 64),
            (8, 128),
            "Hint compares equal shapes, got student (8, 64) and teacher (8, 128). "
            "Add head=Linear(), or tap tensors of one form.",
        ),
    ],
)
def test_a_mismatch_names_both_shapes_and_the_head(
    student: tuple[int, ...], teacher: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match="Hint") as error:
        Hint()(torch.zeros(student), torch.zeros(teacher), BATCH)
    assert str(error.value) == message
