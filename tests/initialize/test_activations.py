"""Channels and heads that are active on examples are kept, and no data is read where the choice needs none."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from distill.initialize import ReadsExamples, SelectWeights
from distill.models.cifar import resnet8
from tests.initialize.layouts import as_trained
from tests.initialize.test_importance import put_in, two_layers

ACTIVE = SelectWeights(choose="activation")


def feed(model: nn.Module, *batches: Tensor) -> Callable[[], None]:
    """As a run feeds its teacher."""

    def run() -> None:
        with torch.no_grad():
            for batch in batches:
                model.eval()(batch)

    return run


def test_hidden_units_by_hand() -> None:
    """The examples (1, 0) and (0, 1) give the columns: means of |h| are 1, 2, 2.5 and 1.5, so units 1 and 2 stay."""
    teacher, student = two_layers(4), two_layers(2)
    with torch.no_grad():
        teacher[0].weight.copy_(torch.tensor([[1.0, -1.0], [2.0, 2.0], [0.0, -5.0], [0.0, 3.0]]))
        teacher[1].weight.copy_(torch.tensor([[0.0, -2.0, 0.0, 4.0]]))
    coverage = ACTIVE.from_examples(teacher, student, feed(teacher, *torch.eye(2).split(1)))
    assert torch.equal(student[0].weight, teacher[0].weight[[1, 2]])
    assert torch.equal(student[1].weight, teacher[1].weight[:, [1, 2]])
    assert coverage.share == 1.0


def test_the_mean_is_over_examples_and_not_over_batches() -> None:
    """Unit 0 gives 4 for one example alone and unit 1 gives 2 for three: 1 and 1.5 of all; 2 and 1 of batches."""
    teacher, student = two_layers(2), two_layers(1)
    with torch.no_grad():
        teacher[0].weight.copy_(torch.tensor([[4.0, 0.0], [0.0, 2.0]]))
    examples = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    ACTIVE.from_examples(teacher, student, feed(teacher, examples[:1], examples[1:]))
    assert student[0].weight.tolist() == [[0, 2]]


def test_layers_of_equal_sizes_count_alike_however_many_positions_they_see() -> None:
    """The channels give 1 and 2 at 16 places, then 4 and 1 at one: 5 and 3; by sums they would be 20 and 33."""

    def convolutions(width: int) -> nn.Sequential:
        sizes = (1, width, 1), (width, width, 4), (width, 1, 1)
        return nn.Sequential(*(nn.Conv2d(before, after, 1, stride, bias=False) for before, after, stride in sizes))

    teacher, student = convolutions(2), convolutions(1)
    with torch.no_grad():
        teacher[0].weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
        teacher[1].weight.copy_(torch.tensor([[4.0, 0.0], [0.0, 0.5]]).view(2, 2, 1, 1))
    ACTIVE.from_examples(teacher, student, feed(teacher, torch.ones(1, 1, 4, 4)))
    assert student[0].weight.item() == 1.0 and student[1].weight.item() == 4.0


def test_a_channel_that_its_nonlinearity_closes_is_not_active() -> None:
    """Unit 0 has the larger weights and gives what ReLU takes away."""
    teacher = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    student = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        teacher[0].weight.copy_(torch.tensor([[-9.0], [1.0]]))
    ACTIVE.from_examples(teacher, student, feed(teacher, torch.ones(2, 1)))
    assert student[0].weight.tolist() == [[1.0]]


def test_a_narrow_resnet_hidden_in_a_wide_one_is_found() -> None:
    narrow, wide, student = as_trained(resnet8(3, width=5)), resnet8(3, width=8), resnet8(3, width=5).eval()
    positions = {size: torch.randperm(size)[:kept].sort().values for size, kept in ((8, 5), (16, 10), (32, 20))}
    state = narrow.state_dict()
    wide.load_state_dict(
        {name: put_in(state[name], tensor.shape, positions, {}) if tensor.dim() else tensor
         for name, tensor in wide.state_dict().items()}
    )  # fmt: skip
    images = torch.randn(4, 3, 16, 16)
    assert ACTIVE.from_examples(wide, student, feed(wide, images)).share == 1.0
    torch.testing.assert_close(student(images), narrow(images))


def test_heads_are_chosen_whole_in_each_attention_by_itself() -> None:
    def vit(width: int, heads: int, inner: int) -> nn.Module:
        return torchvision.models.VisionTransformer(16, 8, 2, heads, width, inner, num_classes=3)

    narrow, wide, student = as_trained(vit(8, 2, 10)), vit(16, 4, 13), vit(8, 2, 10)
    positions = {16: torch.tensor([1, 2, 5, 6, 7, 11, 12, 15]), 13: torch.arange(13)[-10:]}
    state = {}
    for name, tensor in wide.state_dict().items():
        heads = (0, 3) if "layer_0" in name else (1, 2)
        rows = torch.cat([torch.arange(4) + 4 * head for head in heads])
        axes = {0: torch.cat([rows, rows + 16, rows + 32])} if "in_proj" in name else {}
        axes = {1: rows} if name.endswith("out_proj.weight") else axes
        state[name] = put_in(narrow.state_dict()[name], tensor.shape, positions, axes)
    wide.load_state_dict(state)
    assert ACTIVE.from_examples(wide, student, feed(wide, torch.randn(3, 3, 16, 16))).share == 1.0
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, narrow.state_dict()[name]), name


def test_the_fused_path_of_torch_s_encoder_is_not_taken_past_the_hooks() -> None:
    """In evaluation and without gradient, torch's layer calls none of its modules. Inner unit 3 alone is open."""
    teacher, student = (nn.TransformerEncoderLayer(4, 2, inner, batch_first=True) for inner in (6, 1))
    with torch.no_grad():
        teacher.linear1.bias.copy_(torch.tensor([-99.0, -99.0, -99.0, 99.0, -99.0, -99.0]))
    coverage = ACTIVE.from_examples(teacher, student, feed(teacher, torch.randn(2, 3, 4)))
    assert coverage.share == 1.0 and student.linear1.bias.tolist() == [99.0]


def test_the_teacher_is_left_without_hooks_though_it_fails() -> None:
    teacher, student = two_layers(4), two_layers(2)
    with pytest.raises(RuntimeError):
        ACTIVE.from_examples(teacher, student, feed(teacher, torch.ones(1, 3)))
    assert not any(module._forward_pre_hooks for module in teacher.modules())


def test_without_examples_it_is_refused_and_other_choices_read_none() -> None:
    def never() -> None:
        raise AssertionError

    with pytest.raises(ValueError, match=r"SelectWeights\(choose='activation'\) needs training examples"):
        ACTIVE(two_layers(4), two_layers(2))
    assert isinstance(ACTIVE, ReadsExamples)
    assert SelectWeights(choose="l2").from_examples(two_layers(4), two_layers(2), never).share == 1.0
