"""Where models look: Grad-CAM by hand, maps against boxes by hand, and models of other views and resolutions."""

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer, get_model

from distill.data.cases import Box
from distill.data.examples import Examples, Part
from distill.looks import (
    Average,
    activation_maps,
    chance_inside,
    chosen_boxes,
    hits,
    inside,
    last_map,
    likeness,
    looks,
    maps_of,
    overlap,
)
from distill.models.cifar import resnet8
from distill.taps import TapError
from distill.view import View
from tests.tiny import net

CPU = torch.device("cpu")
AS_IT_IS = View().module()
NAN = math.nan


class Linear(nn.Module):
    """Logits that are linear in the mean of each channel of its map, which is the image itself."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.map = nn.Identity()
        self.dropout = nn.Dropout(0.9)
        self.fc = nn.Linear(weight.shape[1], weight.shape[0])
        self.fc.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(self.map(x).mean((2, 3))))


IMAGE = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]], [[0.0, 3.0], [1.0, 0.0]]]])
WEIGHT = torch.tensor([[2.0, -1.0], [-2.0, 1.0], [-1.0, -1.0]])


def maps(label: int, size: int = 2) -> Tensor:
    return activation_maps(Linear(WEIGHT), AS_IT_IS, IMAGE, torch.tensor([label]), tap="map", size=size)[0]


def test_grad_cam_of_a_linear_model_is_the_weighted_sum_of_its_channels() -> None:
    # d logit / d A_c is w_c / 4 at each of the four positions, and so is its mean. For label 0, w = (2, -1):
    # 2 [[1, 0], [0, 2]] - [[0, 3], [1, 0]] = [[2, -3], [-1, 4]], whose
    # positive values are, over 4, [[.5, 0], [0, 1]].
    assert maps(0).tolist() == [[0.5, 0.0], [0.0, 1.0]]
    # For label 1, w = (-2, 1): the same with the other sign, [[-2, 3], [1, -4]], over 3.
    assert torch.allclose(maps(1), torch.tensor([[0.0, 1.0], [1 / 3, 0.0]]))
    # For label 2 nothing speaks, and zeros are not divided by zero.
    assert maps(2).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_maps_are_upsampled_bilinearly() -> None:
    # Between two positions a and b, four points of twice the resolution are a, 3/4 a + 1/4 b, 1/4 a + 3/4 b, b.
    # [[.5, 0], [0, 1]]: the first row is .5 times (1, 3/4, 1/4, 0); at (1, 1) it is 9/16 * .5 + 1/16 * 1.
    got = maps(0, size=4)
    assert got[0].tolist() == [0.5, 0.375, 0.125, 0.0]
    assert got[1, 1] == 0.28125 + 0.0625 and got[3, 3] == got.max() == 1.0


def test_each_example_is_asked_about_its_own_label() -> None:
    both = activation_maps(Linear(WEIGHT), AS_IT_IS, IMAGE.repeat(2, 1, 1, 1), torch.tensor([1, 0]), tap="map", size=2)
    assert torch.equal(both, torch.stack([maps(1), maps(0)]))


@pytest.mark.parametrize("frozen", [False, True])
def test_the_model_is_left_as_it_was_trained_or_frozen(frozen: bool) -> None:
    model = resnet8(3, in_channels=1, width=4).train()
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    model(images.float()).sum().backward()
    model.requires_grad_(not frozen)
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    got = activation_maps(model, AS_IT_IS, images, torch.tensor([0, 2]), tap="layer3", size=8)
    assert got.shape == (2, 8, 8) and not got.requires_grad and bool(((got >= 0) & (got <= 1)).all())
    assert model.training and all(parameter.requires_grad != frozen for parameter in model.parameters())
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is not None and torch.equal(parameter.grad, gradient)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_map_is_of_the_model_in_evaluation_and_under_no_grad_too() -> None:
    with torch.no_grad():
        assert all(torch.equal(maps(0), maps(0)) for _ in range(3))  # a dropout of 0.9 would show


def test_a_tap_that_the_logits_do_not_depend_on_is_refused() -> None:
    class Aside(Linear):
        def __init__(self) -> None:
            super().__init__(WEIGHT)
            self.aside = nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.aside(x)
            return super().forward(x)

    with pytest.raises(ValueError, match="The logits of Aside do not depend on 'aside'"):
        activation_maps(Aside(), AS_IT_IS, IMAGE, torch.tensor([0]), tap="aside", size=2)


@pytest.mark.parametrize(
    ("model", "tap"),
    [
        (get_model("resnet18", num_classes=3), "layer4"),
        # Its last batch norm is changed in place by a ReLU that is no module.
        (get_model("densenet121", num_classes=3), "features.denseblock4"),
        (get_model("mobilenet_v3_small", num_classes=3), "features"),
        # Channels come last in all of its maps but the one behind `permute`.
        (SwinTransformer([4, 4], 8, [1, 1], [1, 1], [7, 7], num_classes=3), "permute"),
    ],
    ids=["resnet", "densenet", "mobilenet", "swin"],
)
def test_the_last_map_of_networks_that_change_it_in_place(model: nn.Module, tap: str) -> None:
    model.train()
    images = torch.rand(1, 3, 64, 64)
    assert last_map(model, images) == tap
    assert model.training
    got = activation_maps(model, AS_IT_IS, images, torch.tensor([1]), tap=tap, size=64)
    assert got.shape == (1, 64, 64)


def test_a_model_without_a_map_is_refused_by_name() -> None:
    vector = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(ValueError, match=r"Sequential has no feature map .* Take a convolutional network\."):
        last_map(vector, torch.rand(1, 1, 4, 4))
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
    with pytest.raises(ValueError, match="no feature map"):
        last_map(pooled, torch.rand(1, 1, 4, 4))
    tokens = VisionTransformer(32, 16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=3)
    with pytest.raises(ValueError, match=r"VisionTransformer goes on .* map 'conv_proj' .* \(B, 5, 8\)"):
        last_map(tokens, torch.rand(1, 3, 32, 32))


def test_a_map_with_its_channels_last_is_not_taken_for_one() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.norm, self.fc = nn.Conv2d(1, 8, 2, stride=2), nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.norm(self.patches(x).permute(0, 2, 3, 1)).mean((1, 2)))

    with pytest.raises(ValueError, match=r"map 'patches' \('norm' gives \(B, 4, 4, 8\)\)"):
        last_map(Last(), torch.rand(1, 1, 8, 8))


def test_a_tap_that_is_changed_in_place_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(TapError, match="'0' of Sequential is changed in place"):
        activation_maps(model, AS_IT_IS, torch.rand(1, 1, 2, 2), torch.tensor([0]), tap="0", size=2)
    assert last_map(model, torch.rand(1, 1, 2, 2)) == "1"
    first = nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())  # which changes its input
    assert activation_maps(first, AS_IT_IS, torch.rand(1, 1, 2, 2), torch.tensor([0]), tap="0", size=2).max() == 1.0


# Four by four, highest in the upper left quarter, with 16 in all.
MAP = torch.tensor([[4.0, 3.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 3.0]])
UPPER_LEFT, LEFT, WHOLE = (0.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.25, 1.0), (0.0, 0.0, 1.0, 1.0)
BLANK = torch.zeros(4, 4)


def test_the_share_inside_a_box() -> None:
    assert inside(MAP, UPPER_LEFT) == 10 / 16  # 4 + 3 + 2 + 1
    assert inside(MAP, LEFT) == 6 / 16  # 4 + 2
    assert inside(MAP, WHOLE) == 1.0 and inside(BLANK, WHOLE) == 0.0
    # Half of the first position's width and all of its height.
    assert inside(MAP, (0.0, 0.0, 0.125, 0.25)) == 2 / 16


def test_a_map_that_looks_everywhere_alike_gives_chance_whatever_the_box() -> None:
    for box in (UPPER_LEFT, LEFT, (0.1, 0.2, 0.37, 0.91), (0.5, 0.5, 0.51, 0.51)):
        assert inside(torch.full((5, 7), 0.3), box) == pytest.approx(chance_inside(box), rel=1e-6)
    assert chance_inside((0.1, 0.2, 0.6, 0.4)) == pytest.approx(0.1)


def test_the_pointing_game() -> None:
    assert hits(MAP, UPPER_LEFT) and hits(MAP, LEFT)
    assert not hits(MAP, (0.5, 0.0, 1.0, 1.0)) and not hits(BLANK, WHOLE)
    assert hits(MAP, (0.125, 0.0, 1.0, 1.0)) and not hits(MAP, (0.13, 0.0, 1.0, 1.0))  # half of the position
    two = torch.tensor([[1.0, 0.0, 1.0]])  # of two equal maxima one is enough, first or last
    assert hits(two, (0.0, 0.0, 0.5, 1.0)) and hits(two, (0.5, 0.0, 1.0, 1.0))
    assert not hits(torch.tensor([[1.0, 1.0, 1.0]]), (0.0, 0.0, 0.4, 1.0))
    assert not hits(torch.full((2, 2), NAN), WHOLE)


def test_the_overlap_of_a_box_with_as_many_of_the_highest_positions() -> None:
    # Four positions: 4, 3, 3, 3, of which two lie in the box: 2 / (4 + 4 - 2).
    assert overlap(MAP, UPPER_LEFT) == pytest.approx(2 / 6)
    # Two positions: 4, and of three that are equal a third each. Two thirds lie in the box, 2/3 / (2 + 2 - 2/3).
    assert overlap(MAP, (0.5, 0.75, 1.0, 1.0)) == pytest.approx(0.2)
    # Six positions are not zero; they are all that is taken of sixteen.
    assert overlap(MAP, WHOLE) == pytest.approx(6 / 16)
    assert overlap(BLANK, UPPER_LEFT) == 0.0
    one = torch.zeros(4, 4)
    one[:2, :2] = 1.0
    assert overlap(one, UPPER_LEFT) == 1.0 and overlap(one, (0.5, 0.5, 1.0, 1.0)) == 0.0
    assert overlap(MAP.flip(1), (0.5, 0.0, 1.0, 0.5)) == overlap(MAP, UPPER_LEFT)


def test_likeness_is_the_correlation_of_positions() -> None:
    assert likeness(MAP, 3.0 * MAP + 1.0) == pytest.approx(1.0)
    assert likeness(MAP, 1.0 - MAP) == pytest.approx(-1.0)
    # (1, 2, 3) and (1, 3, 2) less their means: (-1, 0, 1) and (-1, 1, 0), 1 / (sqrt 2 sqrt 2).
    assert likeness(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0, 2.0]])) == pytest.approx(0.5)
    assert likeness(MAP, torch.full((4, 4), 0.1)) == likeness(BLANK, MAP) == 0.0


def test_looks_are_means_over_boxes_with_errors_over_patients() -> None:
    boxes = [Box(0, 1, *UPPER_LEFT), Box(0, 2, *LEFT), Box(1, 1, *WHOLE), Box(2, 0, *WHOLE)]
    stack = torch.stack([MAP, MAP, MAP, BLANK])
    got = looks(stack, boxes)
    assert got.count == 4 and got.blank == 1 and got.likeness is None
    assert got.area == pytest.approx((0.25 + 0.25 + 1 + 1) / 4)
    # inside is 10/16, 6/16, 1, 0 with mean 1/2. Examples 0, 1 and 2 are off by 1/8 - 1/8, 1/2 and -1/2 in sum:
    # sqrt(3/2 (0 + 1/4 + 1/4)) / 4.
    assert got.inside.mean == pytest.approx(0.5)
    assert got.inside.standard_error == pytest.approx(math.sqrt(0.75) / 4)
    assert got.hits.mean == 0.75
    # Examples 1 and 2 of one patient, 7: sums 0 and 0.
    assert looks(stack, boxes, patient=torch.tensor([5, 7, 7])).inside == Average(got.inside.mean, 0.0)
    assert looks(stack, boxes, patient=torch.tensor([5, 5, 5])).inside.standard_error is None
    # Patients of one box each: the usual standard error, sqrt(variance / N), of 10/16 and 1.
    two = looks(stack[[0, 2]], [boxes[0], boxes[2]]).inside
    assert two.standard_error == pytest.approx(math.sqrt(2 * (3 / 16) ** 2 / 2))


def test_looks_of_a_student_are_likened_to_its_teachers() -> None:
    boxes = [Box(0, 0, *WHOLE), Box(1, 0, *WHOLE)]
    got = looks(torch.stack([MAP, MAP]), boxes, teacher_maps=torch.stack([MAP, BLANK]))
    assert got.likeness is not None and got.likeness.mean == pytest.approx(0.5)


def test_boxes_are_chosen_by_label_in_proportion_and_by_seed() -> None:
    boxes = [Box(index, 0 if index % 4 else 1, *WHOLE) for index in range(400)]
    chosen = chosen_boxes(boxes, 100)
    assert [sum(box.label == label for box in chosen) for label in (0, 1)] == [75, 25]
    assert len(set(chosen)) == 100 and list(chosen) == sorted(chosen)
    assert chosen == chosen_boxes(boxes, 100) != chosen_boxes(boxes, 100, seed=1)
    assert chosen_boxes(boxes, 1000) == tuple(boxes) and chosen_boxes([], 10) == ()


def test_models_of_other_views_are_compared_at_the_crops_size() -> None:
    images = torch.randint(0, 256, (5, 1, 12, 12), dtype=torch.uint8)
    examples = Examples(Part(images, torch.zeros(5, 3)), num_classes=3)
    boxes = [Box(index, index % 3, 0.0, 0.0, 0.5, 0.5) for index in (4, 1, 1, 0)]
    asked = [(box.example, box.label) for box in boxes]
    teacher, student = resnet8(3, width=4), net(num_classes=3)
    teacher.requires_grad_(False)
    teacher_view = View(size=32, mean=(0.5,) * 3, std=(0.5,) * 3).module()
    of_teacher = maps_of(teacher, teacher_view, examples, asked, CPU)
    of_student = maps_of(student, AS_IT_IS, examples, asked, CPU)
    assert of_teacher.shape == of_student.shape == (4, 12, 12)
    got = looks(of_student, boxes, teacher_maps=of_teacher)
    assert got.likeness is not None and -1 <= got.likeness.mean <= 1 and 0 <= got.overlap.mean <= 1
    # In batches as at once, up to the rounding of convolutions.
    assert torch.allclose(maps_of(teacher, teacher_view, examples, asked, CPU, batch_size=3), of_teacher, atol=1e-5)


def test_a_model_that_looks_at_a_bright_spot_finds_its_box() -> None:
    # The only channel is the brightness, so where an image is bright is where it speaks for the label.
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    boxes = []
    for index, (top, left) in enumerate(((0, 0), (2, 4), (6, 6))):
        images[index, 0, top : top + 2, left : left + 2] = 200
        boxes.append(Box(index, 0, left / 8, top / 8, (left + 2) / 8, (top + 2) / 8))
    examples = Examples(Part(images, torch.ones(3, 1)), num_classes=1)
    model = Linear(torch.ones(1, 1))
    got = looks(maps_of(model, AS_IT_IS, examples, [box[:2] for box in boxes], CPU), boxes)
    assert (got.inside.mean, got.hits.mean, got.overlap.mean, got.area) == (1.0, 1.0, 1.0, 1 / 16)
