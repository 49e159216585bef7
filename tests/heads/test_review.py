import math

import pytest
import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.heads import Joint, ReviewFusion
from distill.losses import ReviewHCL

Shapes = tuple[tuple[int, ...], ...]
STUDENT: Shapes = ((4, 3, 8, 8), (4, 6, 4, 4), (4, 8, 1, 1))
TEACHER: Shapes = ((4, 5, 8, 8), (4, 7, 6, 5), (4, 9, 1, 1))


def module(student: Shapes = STUDENT, teacher: Shapes = TEACHER, width: int = 512) -> nn.Module:
    return ReviewFusion(width)(tuple(map(torch.Size, student)), tuple(map(torch.Size, teacher)))


def maps(shapes: Shapes) -> tuple[Tensor, ...]:
    return tuple(torch.randn(shape) for shape in shapes)


def test_each_stage_comes_out_in_its_teachers_shape() -> None:
    assert isinstance(ReviewFusion(), Joint)
    assert tuple(x.shape for x in module()(maps(STUDENT))) == TEACHER


def test_all_stages_are_trained() -> None:
    head = module()
    batch = Batch(torch.zeros(4), torch.zeros(4).long(), torch.arange(4))
    ReviewHCL()(head(maps(STUDENT)), maps(TEACHER), batch).mean().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    weights = [parameter for parameter in head.parameters() if parameter.ndim == 4]
    assert all(weight.grad.any() for weight in weights)


def test_a_stage_reads_the_deeper_ones_and_not_the_shallower() -> None:
    head = module().eval()
    student = tuple(x.requires_grad_() for x in maps(STUDENT))
    for stage, output in enumerate(head(student)):
        gradients = torch.autograd.grad(output.square().sum(), student, allow_unused=True, retain_graph=True)
        assert [gradient is not None for gradient in gradients] == [deep >= stage for deep in range(3)]


def test_the_attention_weighs_both_at_each_position_between_zero_and_one() -> None:
    head, seen = module(), []
    head.stages[0].attention.register_forward_hook(lambda part, args, output: seen.append(output))
    head(maps(STUDENT))
    assert seen[0].shape == (4, 2, 8, 8)
    assert 0 < seen[0].min() < seen[0].max() < 1
    assert head.stages[-1].attention is None


def test_both_are_added_with_their_weights_and_the_deeper_is_spread_over_its_nearest_positions() -> None:
    # sigmoid(ln 3) = 3/4 for the stage's own map and sigmoid(−ln 3) = 1/4 for the deeper one.
    stage = module().stages[0].eval()
    nn.init.zeros_(stage.attention[0].weight)
    stage.attention[0].bias.data = torch.tensor([math.log(3), -math.log(3)])
    x, deeper = torch.randn(4, 3, 8, 8), torch.randn(4, 8, 4, 4)
    fused = stage(x, deeper)[1]
    spread = deeper.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(fused, 0.75 * stage.reduce(x) + 0.25 * spread)


@pytest.mark.parametrize(("width", "expected"), [(512, 8), (5, 5)])
def test_stages_are_fused_at_the_width_or_at_the_deepest_channels(width: int, expected: int) -> None:
    assert [stage.reduce[0].out_channels for stage in module(width=width).stages] == [expected] * 3


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (STUDENT[:1], TEACHER[:1]),
        (STUDENT[:2], TEACHER),
        (((4, 3, 8, 8), (4, 8)), ((4, 5, 8, 8), (4, 9))),
    ],
)
def test_what_cannot_be_fused_is_refused_with_all_shapes(student: Shapes, teacher: Shapes) -> None:
    with pytest.raises(ValueError, match="ReviewFusion") as error:
        module(student, teacher)
    assert f"got student {list(student)} and teacher {list(teacher)}. Tap one map a stage" in str(error.value)


def test_the_width_is_checked() -> None:
    with pytest.raises(ValueError, match=r"^ReviewFusion\.width must be .*, got 0\.$"):
        ReviewFusion(width=0)
