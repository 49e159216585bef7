import re

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from distill.initialize import Initializer, SelectWeights
from distill.initialize.indices import heads, uniform

X = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def as_trained(model: nn.Module) -> nn.Module:
    """The model in evaluation, with normalisations that do something: random weights, and statistics of data."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    settle(model)
    return model.eval()


def settle(model: nn.Module) -> None:
    """Give every BatchNorm the statistics of the data, so that all layers pass on something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(X)
    model.eval()


def silence(teacher: nn.Module, student: nn.Module) -> None:
    """Make zero in the teacher what the student does not take.

    At every BatchNorm, and in MobileNetV3 where there is none: in squeeze and excitation and in the classifier.
    """
    students = dict(student.named_modules())
    for name, module in teacher.named_modules():
        hidden = isinstance(module, nn.Linear) and name == "classifier.0"
        if isinstance(module, nn.BatchNorm2d) or name.endswith("fc1") or hidden:
            dropped = torch.ones(len(module.weight), dtype=torch.bool)
            dropped[uniform(len(module.weight), len(students[name].weight))] = False
            module.weight.data[dropped] = 0.0
            module.bias.data[dropped] = 0.0
    settle(teacher)


def vit(*, layers: int, num_heads: int, hidden: int, mlp: int, classes: int = 5) -> nn.Module:
    model = torchvision.models.VisionTransformer(32, 8, layers, num_heads, hidden, mlp, num_classes=classes)
    nn.init.normal_(model.heads.head.weight)
    return model.eval()


class Residual(nn.Module):
    def __init__(self, width: int, inner: int, groups: int) -> None:
        super().__init__()
        self.reduce, self.norm1 = nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner)
        self.group, self.norm2 = nn.Conv2d(inner, inner, 3, padding=1, groups=groups), nn.BatchNorm2d(inner)
        self.expand, self.norm3 = nn.Conv2d(inner, width, 1), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(self.reduce(x)).relu()
        y = self.norm2(self.group(y)).relu()
        return (x + self.norm3(self.expand(y))).relu()


def residual_net(width: int, inner: int, groups: int) -> nn.Module:
    blocks = [Residual(width, inner, groups) for _ in range(2)]
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), *blocks, pool, nn.Flatten(), nn.Linear(width, 4)
    )


def test_is_an_initializer():
    assert isinstance(SelectWeights(), Initializer)


def test_values_by_hand():
    # Rows 0 and 3 of 4 hidden units, columns 0, 2 and 4 of 5 inputs; the classifier keeps its rows and takes the
    # hidden units 0 and 3.
    teacher, student = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2)), nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.copy_(torch.arange(parameter.numel()).view(parameter.shape))
    coverage = SelectWeights(minimum=1.0)(teacher, student)
    assert student[0].weight.tolist() == [[0, 2, 4], [15, 17, 19]]
    assert student[0].bias.tolist() == [0, 3]
    assert student[1].weight.tolist() == [[0, 3], [4, 7]]
    assert [tensor.how for tensor in coverage.tensors] == ["selected", "selected", "selected", "copied"]


@pytest.mark.parametrize(
    "build",
    [
        lambda: torchvision.models.resnet18(num_classes=4),
        lambda: torchvision.models.mobilenet_v3_small(num_classes=4),
        lambda: ResNet(Bottleneck, [1, 1, 1, 1], num_classes=4, groups=8, width_per_group=4),
        lambda: vit(layers=2, num_heads=4, hidden=16, mlp=32),
    ],
)
def test_same_architecture_is_a_full_copy(build):
    teacher, student = as_trained(build()), build().eval()
    assert not torch.equal(teacher(X), student(X))
    coverage = SelectWeights()(teacher, student)
    assert coverage.share == 1.0
    assert {tensor.how for tensor in coverage.tensors} == {"copied"}
    assert torch.equal(teacher(X), student(X))


@pytest.mark.parametrize(
    ("build_teacher", "build_student"),
    [
        pytest.param(lambda: residual_net(16, 12, 1), lambda: residual_net(8, 4, 1), id="sizes that divide"),
        pytest.param(lambda: residual_net(17, 13, 1), lambda: residual_net(7, 5, 1), id="sizes that do not divide"),
        pytest.param(lambda: residual_net(16, 20, 4), lambda: residual_net(10, 12, 4), id="grouped"),
        pytest.param(lambda: residual_net(16, 20, 20), lambda: residual_net(10, 11, 11), id="depthwise"),
        pytest.param(
            lambda: ResNet(Bottleneck, [1, 1, 1, 1], num_classes=4, groups=8, width_per_group=8),
            lambda: ResNet(Bottleneck, [1, 1, 1, 1], num_classes=4, groups=8, width_per_group=4),
            id="ResNeXt",
        ),
        pytest.param(
            lambda: torchvision.models.mobilenet_v2(num_classes=4),
            lambda: torchvision.models.mobilenet_v2(num_classes=4, width_mult=0.5),
            id="MobileNetV2",
        ),
        pytest.param(
            lambda: torchvision.models.mobilenet_v3_small(num_classes=4),
            lambda: torchvision.models.mobilenet_v3_small(num_classes=4, width_mult=0.6),
            id="MobileNetV3 with squeeze and excitation",
        ),
    ],
)
def test_a_student_computes_what_the_teacher_computes_on_the_channels_it_keeps(build_teacher, build_student):
    # Where the teacher's other channels are silent, a selection that is consistent along every path loses nothing.
    teacher, student = as_trained(build_teacher()), build_student().eval()
    silence(teacher, student)
    coverage = SelectWeights(minimum=1.0)(teacher, student)
    assert "selected" in {tensor.how for tensor in coverage.tensors}
    torch.testing.assert_close(student(X), teacher(X), rtol=1e-4, atol=1e-4)
    assert teacher(X).std(0).min() > 1e-3  # the comparison is not of constants


def test_shallower_students_get_the_first_blocks():
    teacher, student = (ResNet(BasicBlock, depths, num_classes=4) for depths in ([3, 2, 2, 2], [1, 1, 1, 2]))
    assert SelectWeights()(teacher, student).share == 1.0
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, teacher.state_dict()[name])


def test_attention_keeps_heads_whole():
    # Four heads of 4 to two: heads 0 and 3. On inputs that live on the kept positions of the residual stream, and with
    # the outputs of the other heads dropped, teacher and student attend alike: the scale 1 / sqrt(4) is the same.
    teacher, student = (nn.MultiheadAttention(width, width // 4, batch_first=True) for width in (16, 8))
    nn.init.normal_(teacher.in_proj_bias)
    rows, stream = heads(16, 8, 4, 2), uniform(16, 8)
    assert rows.tolist() == [0, 1, 2, 3, 12, 13, 14, 15]
    other = [4, 5, 6, 7, 8, 9, 10, 11]
    teacher.out_proj.weight.data[:, other] = 0.0
    coverage = SelectWeights(minimum=1.0)(
        nn.Sequential(teacher, nn.Linear(16, 2)), nn.Sequential(student, nn.Linear(8, 2))
    )
    narrow = torch.randn(2, 5, 8)
    wide = torch.zeros(2, 5, 16)
    wide[..., stream] = narrow
    torch.testing.assert_close(student(narrow, narrow, narrow)[0], teacher(wide, wide, wide)[0][..., stream])
    assert coverage.share == 1.0


def test_attention_with_other_keys_and_added_biases():
    def attention(width: int, keys: int) -> nn.Module:
        module = nn.MultiheadAttention(width, width // 2, kdim=keys, vdim=keys, add_bias_kv=True)
        return nn.Sequential(module, nn.Linear(width, 2))

    teacher, student = attention(8, 6), attention(4, 3)
    assert SelectWeights(minimum=1.0)(teacher, student).share == 1.0
    rows = torch.tensor([0, 1, 6, 7])
    assert torch.equal(student[0].k_proj_weight, teacher[0].k_proj_weight[rows][:, [0, 2, 5]])
    assert torch.equal(student[0].bias_v, teacher[0].bias_v[..., rows])


def test_vision_transformers_are_covered_with_three_stacked_blocks():
    teacher, student = vit(layers=3, num_heads=4, hidden=16, mlp=40), vit(layers=2, num_heads=2, hidden=8, mlp=16)
    coverage = SelectWeights()(as_trained(teacher), student)
    assert (coverage.share, coverage.left) == (1.0, ())
    rows, stream = heads(16, 8, 4, 2), uniform(16, 8)
    for wide, narrow in zip(teacher.encoder.layers, student.encoder.layers, strict=False):
        for wide_block, narrow_block in zip(
            wide.self_attention.in_proj_weight.chunk(3), narrow.self_attention.in_proj_weight.chunk(3), strict=True
        ):
            assert torch.equal(narrow_block, wide_block[rows][:, stream])
        assert torch.equal(narrow.self_attention.out_proj.weight, wide.self_attention.out_proj.weight[stream][:, rows])
        assert torch.equal(narrow.ln_1.bias, wide.ln_1.bias[stream])
    assert torch.equal(student.class_token, teacher.class_token[..., stream])
    assert torch.equal(student.encoder.pos_embedding, teacher.encoder.pos_embedding[..., stream])


def test_heads_that_cannot_stay_whole_are_left_even_where_shapes_are_equal():
    teacher, student = vit(layers=1, num_heads=4, hidden=16, mlp=32), vit(layers=1, num_heads=2, hidden=16, mlp=32)
    coverage = SelectWeights()(teacher, student)
    left = {tensor.name.rpartition("self_attention.")[2]: tensor.reason for tensor in coverage.left}
    reason = "2 heads of 8 cannot be taken from the teacher's 4 of 4"
    assert left == dict.fromkeys(("in_proj_weight", "in_proj_bias", "out_proj.weight"), reason)


def test_a_larger_tensor_is_left_and_listed():
    teacher, student = residual_net(8, 4, 1), residual_net(8, 6, 1)
    before = student[2].reduce.weight.clone()
    coverage = SelectWeights(minimum=0.2)(teacher, student)
    left = {tensor.name: tensor for tensor in coverage.left}
    assert left["2.reduce.weight"].reason == "6 cannot be taken from the teacher's 4"
    assert left["2.reduce.weight"].source_shape == (4, 8, 1, 1)
    assert torch.equal(student[2].reduce.weight, before)
    assert torch.equal(student[2].norm3.weight, teacher[2].norm3.weight)


@pytest.mark.parametrize(("initializer", "classes"), [(SelectWeights(), 3), (SelectWeights(keep_classifier=False), 4)])
def test_the_classifier_is_left_for_other_classes_or_on_request(initializer, classes):
    teacher = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4)
    student = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=classes)
    before = student.fc.weight.clone()
    coverage = initializer(teacher, student)
    assert [tensor.name for tensor in coverage.left] == ["fc.weight", "fc.bias"]
    assert torch.equal(student.fc.weight, before)


def test_a_convolution_is_the_classifier_where_there_is_no_linear_layer():
    teacher, student = (torchvision.models.squeezenet1_1(num_classes=classes) for classes in (8, 5))
    coverage = SelectWeights()(teacher, student)
    assert [tensor.name for tensor in coverage.left] == ["classifier.1.weight", "classifier.1.bias"]


@pytest.mark.parametrize("flip", [False, True])
def test_rows_of_classes_are_never_taken_for_hidden_units(flip):
    deep = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 4))
    shallow = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4))
    coverage = SelectWeights(minimum=0.2)(*((shallow, deep) if flip else (deep, shallow)))
    reasons = {tensor.name: tensor.reason for tensor in coverage.left}
    assert reasons["1.weight"] == "the classifier of one model only"
    assert torch.equal(shallow[0].weight, deep[0].weight)


def test_rows_of_an_embedding_are_not_channels():
    teacher, student = (
        nn.ModuleDict({"words": nn.Embedding(words, width), "fc": nn.Linear(width, 2)})
        for words, width in ((9, 8), (5, 4))
    )
    coverage = SelectWeights(minimum=0.0)(teacher, student)
    assert [(tensor.name, tensor.reason) for tensor in coverage.left] == [
        ("words.weight", "the teacher's embedding has 9 rows")
    ]
    narrower = nn.ModuleDict({"words": nn.Embedding(9, 4), "fc": nn.Linear(4, 2)})
    assert SelectWeights()(teacher, narrower).share == 1.0
    assert torch.equal(narrower["words"].weight, teacher["words"].weight[:, uniform(8, 4)])


def test_the_teacher_stays_as_it_is_and_shares_nothing():
    teacher, student = residual_net(16, 12, 4), residual_net(8, 8, 4)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    SelectWeights()(teacher, student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_student_keeps_its_own_type(dtype):
    teacher, student = nn.Linear(4, 2).to(dtype), nn.Linear(3, 2)
    SelectWeights()(teacher, student)
    assert torch.equal(student.weight, teacher.weight[:, [0, 2, 3]].float())
    assert student.weight.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_student_keeps_its_own_device():
    teacher, student = residual_net(16, 12, 4).cuda(), residual_net(8, 8, 4)
    assert SelectWeights()(teacher, student).share == 1.0
    assert student[0].weight.device.type == "cpu"


def test_too_little_is_refused_before_anything_is_written():
    teacher, student = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    before = [parameter.clone() for parameter in student.parameters()]
    message = (
        "The teacher covers 6.7% of the student's parameters, below minimum=0.5. First that did not fit: "
        "0.weight (4, 4), 4 cannot be taken from the teacher's 2; "
    )
    # Only the classifier's bias of two fits, of 4 * 4 + 4 + 2 * 4 + 2 = 30.
    with pytest.raises(ValueError, match=re.escape(message)):
        SelectWeights()(teacher, student)
    assert all(torch.equal(old, new) for old, new in zip(before, student.parameters(), strict=True))


def test_a_minimum_that_is_no_share_is_refused():
    with pytest.raises(ValueError, match="minimum is a share"):
        SelectWeights(minimum=2.0)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_transformers_attention_keeps_heads_whole(kind: str) -> None:
    """Of 4 heads of 4 the student keeps 2 of 4: the first and the last, so rows 0..3 and 12..15; channels are even."""
    tiny = pytest.importorskip("tests.tiny_bert")
    make = {"bert": tiny.bert, "distilbert": tiny.distilbert}[kind]
    teacher, student = tiny.spread(make(2, 16, 4), 3), make(2, 8, 2)
    assert SelectWeights()(teacher, student).share > 0.9
    names = {
        "bert": ("bert.encoder.layer.1.attention.self.query", "bert.encoder.layer.1.attention.output.dense"),
        "distilbert": (
            "distilbert.transformer.layer.1.attention.q_lin",
            "distilbert.transformer.layer.1.attention.out_lin",
        ),
    }
    along_heads, channels = torch.tensor([0, 1, 2, 3, 12, 13, 14, 15]), torch.tensor([0, 2, 4, 6, 9, 11, 13, 15])
    query, output = (teacher.get_submodule(name) for name in names[kind])
    kept_query, kept_output = (student.get_submodule(name) for name in names[kind])
    assert torch.equal(kept_query.weight, query.weight[along_heads[:, None], channels])
    assert torch.equal(kept_query.bias, query.bias[along_heads])
    assert torch.equal(kept_output.weight, output.weight[channels[:, None], along_heads])
    assert torch.equal(kept_output.bias, output.bias[channels])
