import re
from collections.abc import Mapping

import pytest
import torch
import torchvision
from torch import Tensor, nn

from distill.initialize import SelectWeights
from distill.models.cifar import resnet8
from tests.initialize.layouts import as_trained


def two_layers(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, hidden, bias=False), nn.Linear(hidden, 1, bias=False))


@pytest.mark.parametrize(("choose", "kept"), [("uniform", [0, 3]), ("first", [0, 1]), ("l1", [1, 3]), ("l2", [2, 3])])
def test_hidden_units_by_hand(choose, kept):
    # Unit 0 touches 1, 1 and 0: l1 2, squares 2. Unit 1: 2, 2, 2: 6 and 12. Unit 2: 0, 5, 0: 5 and 25. Unit 3: 0, 3 and
    # 4: 7 and 25.
    teacher, student = two_layers(4), two_layers(2)
    with torch.no_grad():
        teacher[0].weight.copy_(torch.tensor([[1.0, -1.0], [2.0, 2.0], [0.0, -5.0], [0.0, 3.0]]))
        teacher[1].weight.copy_(torch.tensor([[0.0, -2.0, 0.0, 4.0]]))
    coverage = SelectWeights(choose=choose)(teacher, student)
    assert torch.equal(student[0].weight, teacher[0].weight[kept])
    assert torch.equal(student[1].weight, teacher[1].weight[:, kept])
    assert coverage.share == 1.0


def test_of_equal_scores_the_first_are_kept():
    # Every unit has the norm 1; the second is known by its column.
    teacher, student = two_layers(4), two_layers(2)
    with torch.no_grad():
        teacher[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]))
        nn.init.zeros_(teacher[1].weight)
    SelectWeights(choose="l2")(teacher, student)
    assert student[0].weight.tolist() == [[1, 0], [0, 1]]


def put_in(narrow: Tensor, size: torch.Size, positions: Mapping[int, Tensor], axes: Mapping[int, Tensor]) -> Tensor:
    """A wide tensor of zeros with a narrow one at some positions: those of an axis, else those of its size."""
    index = [axes.get(axis, positions.get(length, torch.arange(length))) for axis, length in enumerate(size)]
    wide = torch.zeros(size, dtype=narrow.dtype)
    wide[torch.meshgrid(*index, indexing="ij")] = narrow
    return wide


@pytest.mark.parametrize("choose", ["l1", "l2"])
def test_a_narrow_resnet_hidden_in_a_wide_one_is_found(choose):
    # Widths 8, 16, 32 to 5, 10, 20, at the same places all along the residual stream, sizes that do not divide.
    narrow, wide, student = as_trained(resnet8(3, width=5)), resnet8(3, width=8).eval(), resnet8(3, width=5).eval()
    positions = {size: torch.randperm(size)[:kept].sort().values for size, kept in ((8, 5), (16, 10), (32, 20))}
    wide.load_state_dict(
        {name: put_in(narrow.state_dict()[name], tensor.shape, positions, {}) if tensor.dim() else tensor
         for name, tensor in wide.state_dict().items()}
    )  # fmt: skip
    assert SelectWeights(choose=choose)(wide, student).share == 1.0
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(student(images), narrow(images))


@pytest.mark.parametrize("choose", ["l1", "l2"])
def test_heads_are_chosen_whole_in_each_attention_by_itself(choose):
    # Two heads of four, others in each layer, at stream positions 1, 2, 5, ...; so the narrow transformer comes out.
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
        # The kernels of patches, 8 x 8, and the 3 classes stay as they are.
        state[name] = put_in(narrow.state_dict()[name], tensor.shape, positions, axes)
    wide.load_state_dict(state)
    coverage = SelectWeights(choose=choose)(wide, student)
    assert coverage.share == 1.0
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, narrow.state_dict()[name]), name


def test_kernels_and_positions_are_not_channels():
    # A kernel of 7 to 3 takes 0, 3 and 6 whichever channels are kept.
    teacher = nn.Sequential(nn.Conv2d(1, 4, 7), nn.Flatten(), nn.Linear(4, 2))
    student = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2))
    SelectWeights(choose="first")(teacher, student)
    assert torch.equal(student[0].weight, teacher[0].weight[:2][:, :, [0, 3, 6]][..., [0, 3, 6]])


@pytest.mark.parametrize("choose", ["first", "l1", "l2"])
def test_the_same_architecture_is_a_full_copy(choose):
    teacher, student = resnet8(3, width=4), resnet8(3, width=4)
    assert {tensor.how for tensor in SelectWeights(choose=choose)(teacher, student).tensors} == {"copied"}


def test_a_wider_student_is_still_left():
    coverage = SelectWeights(choose="l2", minimum=0.0)(two_layers(2), two_layers(4))
    assert re.search("4 cannot be taken from the teacher's 2", coverage.left[0].reason)


def test_what_a_convolution_reads_counts_as_well():
    # The filters are alike; the second convolution reads channels 1 and 2 most.
    teacher = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.Conv2d(3, 1, 1, bias=False))
    student = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False))
    nn.init.ones_(teacher[0].weight)
    teacher[1].weight.data = torch.tensor([1.0, -3.0, 2.0]).view(1, 3, 1, 1)
    SelectWeights(choose="l1")(teacher, student)
    assert student[1].weight.flatten().tolist() == [-3, 2]
