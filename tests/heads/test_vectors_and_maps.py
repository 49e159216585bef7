import pytest
import torch
from torch import nn

from distill.heads import MLP, Conv1x1, Head, Linear, Regressor


def module(head: Head, student: tuple[int, ...], teacher: tuple[int, ...]) -> nn.Module:
    return head(torch.Size(student), torch.Size(teacher))


def parameters(of: nn.Module) -> int:
    return sum(parameter.numel() for parameter in of.parameters())


@pytest.mark.parametrize(
    ("head", "student", "teacher"),
    [
        (Linear(), (4, 6), (4, 10)),
        (Linear(bias=False), (4, 7, 6), (4, 7, 10)),
        (MLP(), (4, 6), (4, 10)),
        (MLP(hidden=5, layers=2, activation="gelu"), (4, 7, 6), (4, 7, 10)),
        (Conv1x1(), (4, 6, 5, 3), (4, 10, 5, 3)),
        (Conv1x1(norm=False), (4, 6, 5, 3), (4, 10, 5, 3)),
        *((Regressor(), (4, 6, *s), (4, 10, *t)) for s, t in [((8, 8), (4, 4)), ((4, 4), (8, 8)), ((8, 8), (8, 8))]),
        *((Regressor(relu=False), (4, 6, *s), (4, 10, *t)) for s, t in [((8, 8), (6, 6)), ((8, 6), (4, 6))]),
        (Regressor(), (4, 6, 2, 2), (4, 10, 1, 1)),
    ],
)
def test_a_head_carries_the_students_shape_to_the_teachers(
    head: Head, student: tuple[int, ...], teacher: tuple[int, ...]
) -> None:
    mapped = module(head, student, teacher)
    assert mapped(torch.randn(student)).shape == teacher
    assert mapped(torch.randn(9, *student[1:])).shape == (9, *teacher[1:])
    assert all(parameter.requires_grad for parameter in mapped.parameters())


@pytest.mark.parametrize(
    ("head", "count"),
    [
        (Linear(), 6 * 10 + 10),
        (Linear(bias=False), 6 * 10),
        (MLP(), 6 * 10 + 10 + 10 * 10 + 10),  # hidden: the teacher's width
        (MLP(hidden=5), 6 * 5 + 5 + 5 * 10 + 10),
        (MLP(hidden=5, layers=2), 6 * 5 + 5 + 5 * 5 + 5 + 5 * 10 + 10),
    ],
)
def test_parameters_of_vector_heads(head: Head, count: int) -> None:
    assert parameters(module(head, (2, 6), (2, 10))) == count


@pytest.mark.parametrize(
    ("head", "student", "teacher", "count"),
    [
        (Conv1x1(), 4, 4, 6 * 10 + 2 * 10),  # normalised, without bias
        (Conv1x1(norm=False), 4, 4, 6 * 10 + 10),
        (Regressor(), 8, 4, 6 * 10 * 3 * 3 + 2 * 10),  # half: 3 x 3 with stride 2
        (Regressor(), 4, 8, 6 * 10 * 4 * 4 + 2 * 10),  # double: transposed 4 x 4 with stride 2
        (Regressor(), 8, 6, 6 * 10 * 3 * 3 + 2 * 10),  # else the kernel 1 + 8 − 6
        (Regressor(), 8, 8, 6 * 10 + 2 * 10),
    ],
)
def test_parameters_of_map_heads(head: Head, student: int, teacher: int, count: int) -> None:
    assert parameters(module(head, (2, 6, student, student), (2, 10, teacher, teacher))) == count


def test_mlp_has_its_activation_after_each_hidden_layer_only() -> None:
    kinds = [type(part) for part in module(MLP(layers=2, activation="tanh"), (2, 6), (2, 10)).children()]
    assert kinds == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]


def test_regressor_ends_in_a_relu_unless_told_not_to() -> None:
    shapes = (4, 6, 8, 8), (4, 10, 8, 8)
    assert module(Regressor(), *shapes)(torch.randn(4, 6, 8, 8)).min() == 0
    assert module(Regressor(relu=False), *shapes)(torch.randn(4, 6, 8, 8)).min() < 0


@pytest.mark.parametrize(
    ("head", "student", "teacher", "message"),
    [
        (
            Linear(),
            (8, 64, 8, 8),
            (8, 256, 8, 8),
            "Linear maps (B, D) or (B, T, D) over D, got student (8, 64, 8, 8) and teacher (8, 256, 8, 8). "
            "Use head=Conv1x1().",
        ),
        (
            MLP(),
            (8, 64),
            (8, 4, 64),
            "MLP maps (B, D) or (B, T, D) over D, got student (8, 64) and teacher (8, 4, 64). Tap tensors of one form.",
        ),
        (
            Conv1x1(),
            (8, 64),
            (8, 256),
            "Conv1x1 maps (B, C, H, W) over C, got student (8, 64) and teacher (8, 256). Use head=Linear().",
        ),
        (
            Conv1x1(),
            (8, 64, 8, 8),
            (8, 64, 4, 4),
            "Conv1x1 keeps height and width, got student (8, 64, 8, 8) and teacher (8, 64, 4, 4). Use "
            "head=Regressor().",
        ),
        (
            Regressor(),
            (8, 64, 4, 4),
            (8, 64, 7, 7),
            "Regressor needs a student's map half the teacher's or not smaller than it, got student (8, 64, 4, 4) and "
            "teacher (8, 64, 7, 7). Tap an earlier layer of the student or a later one of the teacher.",
        ),
    ],
)
def test_shapes_that_a_head_cannot_map_are_refused_with_the_way_out(
    head: Head, student: tuple[int, ...], teacher: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match="got student") as error:
        module(head, student, teacher)
    assert str(error.value) == message


@pytest.mark.parametrize("settings", [{"hidden": 0}, {"layers": 3}, {"layers": 0}, {"activation": "step"}])
def test_mlp_settings_are_checked(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"^MLP\.{next(iter(settings))} .*, got "):
        MLP(**settings)  # type: ignore[arg-type]
