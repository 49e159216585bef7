import pytest
import torch
from torch import Tensor, nn

from distill.heads import Grid, Head, StageClassifier
from distill.heads.grid import resize

MAP, FINE_MAP = (4, 6, 4, 4), (4, 10, 7, 5)
TOKENS, CLASS_AND_TOKENS, REGISTERS = (4, 9, 6), (4, 17, 10), (4, 21, 10)


def module(head: Head, student: tuple[int, ...], teacher: tuple[int, ...]) -> nn.Module:
    return head(torch.Size(student), torch.Size(teacher))


def without_map(head: nn.Module) -> nn.Module:
    """The head with linear layers that change nothing, so that what it does to positions shows."""
    for layer in (head.positions, *head.prefix):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    return head


@pytest.mark.parametrize("student", [MAP, FINE_MAP, TOKENS, CLASS_AND_TOKENS])
@pytest.mark.parametrize("teacher", [MAP, FINE_MAP, TOKENS, CLASS_AND_TOKENS])
def test_maps_and_tokens_meet_in_the_teachers_shape_and_all_of_the_head_is_trained(
    student: tuple[int, ...], teacher: tuple[int, ...]
) -> None:
    head = module(Grid(), student, teacher)
    x = torch.randn(9, *student[1:], requires_grad=True)
    mapped = head(x)
    assert mapped.shape == (9, *teacher[1:])
    mapped.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())
    assert x.grad is not None and x.grad.any()


@pytest.mark.parametrize(
    ("student", "teacher", "count"),
    [
        ((2, 6, 4, 4), (2, 16, 10), 6 * 10 + 10),
        ((2, 6, 4, 4), (2, 17, 10), 2 * (6 * 10 + 10)),  # one linear layer more, for the class token
        ((2, 17, 6), (2, 10, 4, 4), 6 * 10 + 10),
    ],
)
def test_parameters(student: tuple[int, ...], teacher: tuple[int, ...], count: int) -> None:
    assert sum(parameter.numel() for parameter in module(Grid(), student, teacher).parameters()) == count


def test_tokens_are_laid_row_by_row_without_the_class_token() -> None:
    tokens = torch.arange(5.0).view(1, 5, 1)  # the class token 0, then the patches 1 2 / 3 4
    head = without_map(module(Grid(), (1, 5, 1), (1, 1, 2, 2)))
    assert torch.equal(head(tokens), torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))


def test_a_map_becomes_tokens_row_by_row_with_its_mean_as_the_class_token() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    head = without_map(module(Grid(), (1, 1, 2, 2), (1, 5, 1)))
    assert torch.equal(head(x), torch.tensor([3.0, 1.0, 2.0, 3.0, 6.0]).view(1, 5, 1))


def test_a_class_token_meets_a_class_token() -> None:
    tokens = torch.arange(5.0).view(1, 5, 1)
    assert torch.equal(without_map(module(Grid(), (1, 5, 1), (1, 5, 1)))(tokens), tokens)
    finer = without_map(module(Grid(), (1, 5, 1), (1, 17, 1)))(tokens)
    assert finer[0, 0] == 0
    torch.testing.assert_close(finer[0, 1:].mean(), torch.tensor(2.5))


def test_a_grid_that_shrinks_is_averaged_and_one_that_grows_is_interpolated() -> None:
    x = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    assert torch.equal(resize(x, 1, 2), torch.tensor([[[[3.0, 5.0]]]]))
    # The mean of all four columns, not of the two in the middle.
    assert torch.equal(resize(torch.tensor([[[[0.0, 0.0, 0.0, 8.0]]]]), 1, 1), torch.tensor([[[[2.0]]]]))
    # Four columns have their centres at 1/8, 3/8, ..., two at 1/4 and 3/4: the inner two lie a quarter of the way in.
    torch.testing.assert_close(resize(x, 2, 4), torch.tensor([[[[1.0, 1.5, 2.5, 3.0], [5.0, 5.5, 6.5, 7.0]]]]))
    torch.testing.assert_close(resize(x, 1, 4), torch.tensor([[[[3.0, 3.5, 4.5, 5.0]]]]))


def test_on_one_grid_it_is_a_convolution_of_1x1() -> None:
    head = module(Grid(), (4, 6, 5, 3), (4, 10, 5, 3))
    convolution = nn.Conv2d(6, 10, 1)
    convolution.weight.data, convolution.bias.data = head.positions.weight[:, :, None, None], head.positions.bias
    x = torch.randn(4, 6, 5, 3)
    torch.testing.assert_close(head(x), convolution(x))


def test_registers_are_counted_by_the_user() -> None:
    head = module(Grid(student_prefix=5), REGISTERS, MAP)
    x = torch.randn(4, 21, 10)
    changed = torch.cat([torch.randn(4, 5, 10), x[:, 5:]], 1)
    assert torch.equal(head(x), head(changed))
    assert module(Grid(teacher_prefix=5), MAP, REGISTERS)(torch.randn(MAP)).shape == REGISTERS


@pytest.mark.parametrize(
    ("head", "student", "teacher", "message"),
    [
        (
            Grid(),
            (8, 7, 64),
            (8, 64, 4, 4),
            "Grid finds no grid in the student's 7 tokens, (8, 7, 64): 7 or 6 make no square. Say how many tokens "
            "stand in front of a square of them (student_prefix=...), or compare embeddings or logits.",
        ),
        (
            Grid(teacher_prefix=2),
            (8, 64, 4, 4),
            (8, 17, 64),
            "Grid finds no grid in the teacher's 17 tokens, (8, 17, 64): 15 make no square. Say how many tokens "
            "stand in front of a square of them (teacher_prefix=...), or compare embeddings or logits.",
        ),
        (
            Grid(),
            (8, 64),
            (8, 17, 64),
            "Grid maps (B, C, H, W) or tokens (B, T, D), got student (8, 64) and teacher (8, 17, 64). Tap layers "
            "before the mean over positions, or use head=Linear() between embeddings.",
        ),
        (
            Grid(student_prefix=1),
            MAP,
            CLASS_AND_TOKENS,
            "Grid.student_prefix counts tokens, and the student's (4, 6, 4, 4) is a map. Leave it out.",
        ),
    ],
)
def test_layers_that_cannot_be_joined_are_refused_with_the_way_out(
    head: Head, student: tuple[int, ...], teacher: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=r"^Grid") as error:
        module(head, student, teacher)
    assert str(error.value) == message


@pytest.mark.parametrize("length", [0, 1])
def test_a_prefix_that_leaves_no_token_is_no_grid(length: int) -> None:
    with pytest.raises(ValueError, match="finds no grid"):
        module(Grid(student_prefix=length), (2, length, 3), (2, 3, 1, 1))


def test_the_prefix_is_checked() -> None:
    with pytest.raises(ValueError, match=r"^Grid\.teacher_prefix must be .*, got -1\.$"):
        Grid(teacher_prefix=-1)


def test_a_stage_classifier_reads_a_transformers_tokens() -> None:
    tokens: Tensor = torch.randn(4, 17, 10)
    assert module(StageClassifier(), (4, 17, 10), (4, 3))(tokens).shape == (4, 3)
