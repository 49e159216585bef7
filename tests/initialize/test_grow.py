import re
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from distill.initialize import Grow, Initializer
from distill.models.cifar import resnet8, resnet14, resnet20, vgg8, wrn
from distill.models.cifar_parts import ConvNormReLU, initialize_convolutions
from distill.models.cifar_vgg import VGG
from tests.initialize.layouts import Bert, as_trained, words

Build = Callable[[], nn.Module]

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class PlainNet(nn.Module):
    """A VGG of any widths, in the layers of the zoo's."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for given, width, depth in zip((3, *widths), widths, depths, strict=False):
            inputs = [given] + [width] * (depth - 1)
            self.stages.append(nn.Sequential(*(ConvNormReLU(each, width, 3, bias=True) for each in inputs)))
        self.classifier = nn.Linear(widths[-1], 4)
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = nn.functional.max_pool2d(stage(x), 2)
        return self.classifier(x.mean((2, 3)))


def vit(layers: int, heads: int, width: int, inner: int, classes: int = 4) -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, layers, heads, width, inner, num_classes=classes)


def bottleneck(depths: list[int], inner: int) -> nn.Module:
    return ResNet(Bottleneck, depths, num_classes=4, width_per_group=inner)


PAIRS = {
    "ResNet wider": (lambda: resnet8(4, width=4), lambda: resnet8(4, width=8)),
    "ResNet wider, no multiple": (lambda: resnet8(4, width=4), lambda: resnet8(4, width=7)),
    "ResNet deeper": (lambda: resnet8(4, width=4), lambda: resnet20(4, width=4)),
    "ResNet deeper and wider": (lambda: resnet14(4, width=3), lambda: resnet20(4, width=5)),
    "bottlenecks": (lambda: bottleneck([1, 1, 1, 1], 8), lambda: bottleneck([2, 1, 2, 1], 12)),
    "wide ResNet deeper": (lambda: wrn(10, 1, 4), lambda: wrn(16, 1, 4)),
    "VGG of the zoo deeper": (lambda: vgg8(4), lambda: VGG((1, 2, 1, 1, 1), 4, 3)),
    "VGG wider": (lambda: PlainNet((4, 6), (1, 2)), lambda: PlainNet((8, 12), (1, 2))),
    "VGG wider, no multiple, and deeper": (lambda: PlainNet((4, 6), (1, 2)), lambda: PlainNet((5, 11), (3, 4))),
    "BERT wider": (lambda: Bert(8, 2, 12, 2), lambda: Bert(16, 4, 24, 2)),
    "BERT with other hidden units": (lambda: Bert(8, 2, 12, 2), lambda: Bert(8, 2, 17, 2)),
    "BERT three times as wide": (lambda: Bert(8, 2, 12, 2), lambda: Bert(24, 6, 29, 2)),
    "ViT wider": (lambda: vit(2, 2, 8, 12), lambda: vit(2, 4, 16, 24)),
    "ViT with one more head": (lambda: vit(2, 4, 16, 12), lambda: vit(2, 5, 20, 17)),
    "ViT with wider heads": (lambda: vit(2, 4, 16, 12), lambda: vit(2, 4, 20, 17)),
    "ViT wider, with more and wider heads, deeper": (lambda: vit(1, 2, 8, 12), lambda: vit(3, 3, 21, 17)),
}


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("pair", PAIRS)
def test_the_student_computes_what_the_teacher_does(pair, noise):
    teacher, student = as_trained(PAIRS[pair][0]()), PAIRS[pair][1]()
    inputs = words() if pair.startswith("BERT") else IMAGES
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    coverage = Grow(noise=noise)(teacher, student)
    student.eval()
    answer = teacher(inputs)
    assert answer.std(0).min() > 1e-2  # the comparison is not of constants
    scale = max(1.0, float(answer.detach().abs().max()))
    torch.testing.assert_close(student(inputs), answer, rtol=0.0, atol=1e-5 * scale)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert {tensor.how for tensor in coverage.tensors} <= {"copied", "grown", "left"}
    assert all("added block" in tensor.reason for tensor in coverage.left)


def test_a_layer_by_hand():
    # Two hidden units to three: unit 2 is a copy of unit 0, and both pass on half.
    teacher = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    student = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        teacher[0].weight.copy_(torch.tensor([[1.0], [2.0]]))
        teacher[0].bias.copy_(torch.tensor([3.0, 4.0]))
        teacher[2].weight.copy_(torch.tensor([[6.0, 5.0]]))
    coverage = Grow()(teacher, student)
    assert student[0].weight.tolist() == [[1], [2], [1]]
    assert student[0].bias.tolist() == [3, 4, 3]
    assert student[2].weight.tolist() == [[3, 5, 3]]
    assert [tensor.how for tensor in coverage.tensors] == ["grown", "grown", "grown", "copied"]
    assert coverage.share == 1.0


def test_the_same_sizes_are_a_full_copy():
    teacher, student = as_trained(resnet8(4, width=4)), resnet8(4, width=4)
    assert {tensor.how for tensor in Grow()(teacher, student).tensors} == {"copied"}


def test_a_wider_student_computes_the_same_in_training_too():
    teacher, student = as_trained(resnet8(4, width=4)), resnet8(4, width=7)
    Grow()(teacher, student)
    torch.testing.assert_close(student.train()(IMAGES), teacher.train()(IMAGES), rtol=1e-4, atol=1e-4)


def test_copies_that_share_evenly_stay_equal_and_uneven_ones_do_not():
    def copies_after_a_step(noise: float) -> tuple[Tensor, Tensor]:
        teacher, student = as_trained(resnet8(4, width=4)), resnet8(4, width=8)
        Grow(noise=noise)(teacher, student)
        student(IMAGES).square().sum().backward()
        gradient = student.layer2[0].conv1.weight.grad
        return gradient[:8], gradient[8:]

    torch.testing.assert_close(*copies_after_a_step(0.0))
    equal, uneven = copies_after_a_step(0.5)
    assert float((equal - uneven).abs().max()) > 1e-2 * float(equal.abs().max())


def test_noise_is_drawn_from_the_seed():
    def grown(seed: int) -> Tensor:
        torch.manual_seed(0)
        teacher, student = resnet8(4, width=4), resnet8(4, width=6)
        Grow(noise=0.1, seed=seed)(teacher, student)
        return student.fc.weight.detach()

    assert torch.equal(grown(1), grown(1))
    assert not torch.equal(grown(1), grown(2))


def test_added_blocks_get_gradients():
    teacher, student = as_trained(resnet8(4, width=4)), resnet14(4, width=4)
    coverage = Grow()(teacher, student)
    student(IMAGES).square().sum().backward()
    assert float(student.layer1[1].bn2.weight.grad.abs().max()) > 0.0
    grown = [tensor for tensor in coverage.tensors if tensor.source is None and tensor.how == "grown"]
    assert [tensor.name for tensor in grown] == [
        f"layer{stage}.1.bn2.{name}" for stage in (1, 2, 3) for name in ("weight", "bias")
    ]
    assert coverage.covered == sum(parameter.numel() for parameter in teacher.parameters())


def test_added_plain_blocks_nearly_pass_their_input_on_in_training():
    # Their norms start with the mean and variance that a ReLU gives of the norm before it, if that is normal.
    teacher, student = as_trained(PlainNet((8,), (1,))), PlainNet((8,), (2,))
    Grow()(teacher, student)
    with torch.no_grad():
        taken = student.train().stages[0][0](IMAGES)
        passed = student.stages[0][1](taken)
    assert float((passed - taken).square().mean() / taken.var()) < 0.05


def test_another_classifier_is_left_and_what_it_is_given_stays():
    teacher, student = as_trained(resnet8(4, width=4)), resnet8(9, width=6).eval()
    coverage = Grow()(teacher, student)
    assert [tensor.name for tensor in coverage.left] == ["fc.weight", "fc.bias"]
    teacher.fc = student.fc = nn.Identity()
    torch.testing.assert_close(student(IMAGES)[:, :16], teacher(IMAGES))


def test_the_student_keeps_its_own_type():
    teacher, student = as_trained(resnet8(4, width=4)), resnet8(4, width=6).bfloat16()
    Grow()(teacher, student)
    assert torch.equal(student.conv1.weight[:4], teacher.conv1.weight.bfloat16())


class Joined(nn.Module):
    """Two layers' channels joined, as many as the layer behind them gives, so their number does not give it away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, width, 1), nn.Conv2d(3, width, 1)
        self.mix, self.fc = nn.Conv2d(2 * width, 2 * width, 1), nn.Linear(2 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.mix(torch.cat([self.left(x), self.right(x)], 1)).relu().mean((2, 3)))


class Flat(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, width, 3, stride=16), nn.Linear(4 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().flatten(1))


class Grouped(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, width, 3), nn.GroupNorm(2, width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


class Tied(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding, self.hidden, self.decoder = nn.Embedding(7, width), nn.Linear(width, width), nn.Linear(width, 7)
        self.decoder.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.hidden(self.embedding(x)))


@pytest.mark.parametrize(
    ("build_teacher", "build_student", "message"),
    [
        pytest.param(
            lambda: resnet8(4, width=8), lambda: resnet8(4, width=6),
            r"conv1.weight has 6 channels in the student and 8 in the teacher, .* Use SelectWeights\(\)", id="narrower",
        ),
        pytest.param(
            lambda: resnet20(4, width=4), lambda: resnet8(4, width=4),
            r"'layer1' has 1 blocks in the student and 3 in the teacher, .* Use SkipLayers\(\)", id="shallower",
        ),
        pytest.param(
            lambda: Bert(8, 2, 12, 2), lambda: Bert(12, 3, 12, 2),
            r"bert.embeddings.LayerNorm has 8 channels in the teacher and 12 .* no multiple.* Give .* multiple of 8",
            id="BERT of no multiple",
        ),
        pytest.param(
            lambda: Bert(8, 2, 12, 1), lambda: Bert(8, 2, 12, 2),
            r"Block 'bert.encoder.layer.1' is one more than the teacher has, and no start", id="BERT deeper",
        ),
        pytest.param(
            lambda: Bert(8, 2, 12, 2), lambda: Bert(16, 2, 12, 2),
            r"Block 'bert.encoder.layer.0' cannot be grown such .* more attention heads", id="wider heads unknown",
        ),
        pytest.param(
            lambda: vit(1, 4, 16, 12), lambda: vit(1, 2, 16, 12),
            r"2 heads of 8 cannot do what the teacher's 4 of 4 do", id="fewer heads",
        ),
        pytest.param(
            lambda: Joined(4), lambda: Joined(6), r"Joined cannot be grown such that it computes the same", id="joined"
        ),
        pytest.param(
            lambda: Flat(4), lambda: Flat(6), r"fc.weight reads 16 channels .* 24 .* which no layer gives", id="flat"
        ),
        pytest.param(
            lambda: Grouped(4), lambda: Grouped(6), r"norm.weight .* GroupNorm of size 4 cannot be made", id="groups"
        ),
        pytest.param(
            lambda: Tied(4), lambda: Tied(6), r"embedding.weight serves layers of two kinds \(Embedding and Linear\)",
            id="tied",
        ),
        pytest.param(
            lambda: torchvision.models.mobilenet_v2(num_classes=4, width_mult=0.25),
            lambda: torchvision.models.mobilenet_v2(num_classes=4, width_mult=0.4),
            r"MobileNetV2 cannot be grown", id="a shortcut that the wider model lacks",
        ),
        pytest.param(
            lambda: resnet8(4, width=4), lambda: resnet8(4, 1, width=4),
            r"conv1.weight has 1 channels in the student and 3", id="fewer input channels",
        ),
        pytest.param(
            lambda: resnet8(4, 1, width=4), lambda: resnet8(4, 3, width=4),
            r"conv1.weight reads 1 channels .* 3 in the student, which no layer gives", id="more input channels",
        ),
        pytest.param(
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)),
            lambda: nn.Sequential(nn.Conv2d(3, 4, 5), nn.Conv2d(4, 4, 1)),
            r"0.weight is \(4, 3, 3, 3\) .* Conv2d of size 3 cannot be made one of 5", id="another kernel",
        ),
        pytest.param(
            lambda: nn.Sequential(nn.Linear(2, 2)), lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
            r"The teacher has no 1.weight, .* Nearest: 0.weight", id="a layer of its own",
        ),
        pytest.param(
            lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), lambda: nn.Sequential(nn.Linear(2, 2)),
            r"The student has no 1.weight, which the teacher uses", id="a layer less",
        ),
    ],
)  # fmt: skip
def test_what_would_not_be_exact_is_refused_by_name_and_nothing_is_written(build_teacher, build_student, message):
    teacher, student = as_trained(build_teacher()), build_student()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        Grow()(teacher, student)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_a_teacher_whose_signal_fades_hides_no_difference():
    # Answers vary by some 1e-6 between images; a student that computes something else is still told apart.
    teacher, student = as_trained(Joined(4)), Joined(6)
    for conv in (teacher.left, teacher.right):
        conv.weight.data *= 1e-6
    answer = teacher(IMAGES).detach()
    assert float(answer.std(0).max()) < 1e-5 * float(answer.abs().max())
    for conv in (teacher.left, teacher.right):
        nn.init.zeros_(conv.bias)  # with biases, the joined channels would differ by more
    with pytest.raises(ValueError, match="Joined cannot be grown"):
        Grow()(teacher, student)


def test_a_model_that_runs_on_no_usual_input_asks_for_one():
    class Odd(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(2, width, 3), nn.Linear(width, 4)

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] != 17:
                raise ValueError(f"side {x.shape[-1]}, not 17")
            return self.fc(self.conv(x).relu().mean((2, 3)))

    teacher, student = Odd(3), Odd(4)
    with pytest.raises(ValueError, match=re.escape("side 28, not 17. Give the shape of one example")):
        Grow()(teacher, student)
    Grow(probe=(2, 17, 17))(teacher, student)
    images = torch.randn(2, 2, 17, 17)
    torch.testing.assert_close(student(images), teacher(images))


@pytest.mark.parametrize("noise", [-0.1, float("inf"), float("nan")])
def test_a_noise_that_is_no_deviation_is_refused(noise):
    with pytest.raises(ValueError, match="noise is a deviation of at least 0"):
        Grow(noise=noise)


def test_is_an_initializer():
    assert isinstance(Grow(), Initializer)
