import re

import pytest
import torch
import torchvision
from torch import nn

from distill.initialize import AverageLayers, Initializer, SkipLayers
from distill.initialize.blocks import repeated
from distill.models.cifar import resnet8, resnet20, resnet56
from distill.models.cifar_resnet import Block
from tests.initialize.layouts import Bert, as_trained


def numbered(layers: int) -> nn.Module:
    """A BERT in which every parameter of block i has the value i, and everything else -1."""
    model = Bert(4, 2, 4, layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(-1.0)
        for number, layer in enumerate(model.bert["encoder"]["layer"]):
            for parameter in layer.parameters():
                parameter.fill_(number)
    return model


def blocks_of(model: nn.Module) -> list[float]:
    layers = model.bert["encoder"]["layer"]
    values = [torch.cat([parameter.detach().flatten() for parameter in layer.parameters()]) for layer in layers]
    assert all(bool((each == each[0]).all()) for each in values)
    return [float(each[0]) for each in values]


def test_are_initializers():
    assert isinstance(SkipLayers(), Initializer)
    assert isinstance(AverageLayers(), Initializer)


@pytest.mark.parametrize(
    ("keep", "layers", "kept", "expected"),
    [
        ("every", 12, 6, [0, 2, 4, 7, 9, 11]),  # as DistilBERT
        ("every", 6, 3, [0, 2, 5]),  # linspace(0, 5, 3) = 0, 2.5, 5
        ("first", 6, 3, [0, 1, 2]),
        ("last", 6, 3, [3, 4, 5]),
        ("ends", 6, 3, [0, 1, 5]),
        ("ends", 6, 4, [0, 1, 4, 5]),
        ("every", 6, 1, [0]),
        ((1, 3, 5), 6, 3, [1, 3, 5]),
        ("last", 3, 3, [0, 1, 2]),
    ],
)
def test_the_blocks_of_a_transformer_come_from_those_that_are_kept(keep, layers, kept, expected):
    student = Bert(4, 2, 4, kept)
    coverage = SkipLayers(keep=keep)(numbered(layers), student)
    assert blocks_of(student) == expected
    assert (coverage.share, coverage.left) == (1.0, ())
    assert bool((student.classifier.weight == -1.0).all())
    first = next(tensor for tensor in coverage.tensors if tensor.name == "bert.encoder.layer.0.output.dense.bias")
    assert first.source == f"bert.encoder.layer.{expected[0]}.output.dense.bias"


@pytest.mark.parametrize(
    ("keep", "rest"), [("every", (1, 8)), ("first", (1, 2)), ("last", (7, 8)), ((0, 3, 5), (3, 5))]
)
def test_a_resnets_first_blocks_meet_and_the_rest_are_chosen(keep, rest):
    # resnet56 has nine blocks a stage and resnet20 three. The first of layer2 and layer3 change the shape.
    teacher, student = as_trained(resnet56(4, width=2)), resnet20(4, width=2)
    assert repeated(teacher) == {"layer1": False, "layer2": True, "layer3": True}
    assert SkipLayers(keep=keep)(teacher, student).share == 1.0
    for stage in ("layer2", "layer3"):
        for number, source in enumerate((0, *rest)):
            wanted = teacher.get_submodule(f"{stage}.{source}").state_dict()
            for name, tensor in student.get_submodule(f"{stage}.{number}").state_dict().items():
                assert torch.equal(tensor, wanted[name]), (stage, number, name)
    assert torch.equal(student.conv1.weight, teacher.conv1.weight)


def test_a_student_with_one_block_a_stage_gets_the_first_where_it_changes_the_shape():
    teacher, student = resnet20(4, width=2), resnet8(4, width=2)
    assert SkipLayers(keep="last")(teacher, student).share == 1.0
    assert torch.equal(student.layer1[0].conv1.weight, teacher.layer1[2].conv1.weight)
    assert torch.equal(student.layer2[0].conv1.weight, teacher.layer2[0].conv1.weight)


def test_a_student_that_kept_blocks_computes_what_the_teacher_does_without_the_others():
    teacher, student = as_trained(resnet56(4, width=2)), resnet20(4, width=2).eval()
    SkipLayers(keep="ends")(teacher, student)
    for stage, dropped in (("layer1", range(2, 8)), ("layer2", range(2, 8)), ("layer3", range(2, 8))):
        for number in dropped:
            setattr(teacher.get_submodule(stage), str(number), nn.Identity())
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(student(images), teacher(images))


def test_blocks_with_names_of_their_own_are_met_by_their_order():
    teacher, student = (torchvision.models.VisionTransformer(16, 8, n, 2, 8, 8, num_classes=3) for n in (3, 1))
    assert repeated(teacher) == {"encoder.layers": False}
    SkipLayers(keep="last")(teacher, student)
    ours, theirs = student.encoder.layers.encoder_layer_0, teacher.encoder.layers.encoder_layer_2
    assert torch.equal(ours.mlp[0].weight, theirs.mlp[0].weight)


def test_layers_without_modules_and_lists_of_several_kinds_are_no_blocks():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Conv1d(2, 2, 1))
    assert repeated(model) == {}


def test_blocks_in_stages_are_found_and_the_stages_are_no_blocks():
    class Stage(nn.Module):
        def __init__(self, given: int, width: int, depth: int) -> None:
            super().__init__()
            self.blocks = nn.Sequential(*(Block(width if number else given, width, 1) for number in range(depth)))

    assert repeated(nn.Sequential(Stage(2, 4, 3), Stage(4, 8, 2))) == {"0.blocks": True, "1.blocks": True}
    plain = nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(2)))
    assert repeated(plain) == {}


@pytest.mark.parametrize("initializer", [SkipLayers(), AverageLayers()])
def test_another_classifier_is_left(initializer):
    coverage = initializer(Bert(4, 2, 4, 4, classes=3), Bert(4, 2, 4, 2, classes=5))
    assert [tensor.name for tensor in coverage.left] == ["classifier.weight", "classifier.bias"]


@pytest.mark.parametrize("initializer", [SkipLayers(keep_classifier=False), AverageLayers(keep_classifier=False)])
def test_the_classifier_is_left_on_request(initializer):
    coverage = initializer(Bert(4, 2, 4, 4), Bert(4, 2, 4, 2))
    assert [tensor.reason for tensor in coverage.left] == ["keep_classifier=False"] * 2


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ((0, 6), "keep=(0, 6) names block 6 and 'bert.encoder.layer' of the teacher has 4, 0 to 3."),
        ((0, 1, 2), "keep=(0, 1, 2) lists 3 blocks and 'bert.encoder.layer' of the student has 2."),
    ],
)
def test_a_list_past_the_end_or_of_another_length_is_refused_by_name(keep, message):
    student = Bert(4, 2, 4, 2)
    with pytest.raises(ValueError, match=re.escape(message)):
        SkipLayers(keep=keep)(Bert(4, 2, 4, 4), student)


@pytest.mark.parametrize("keep", [(1, 0), (0, 0), (-1, 2), ()])
def test_a_list_that_is_no_list_of_blocks_is_refused(keep):
    with pytest.raises(ValueError, match="keep lists the teacher's blocks"):
        SkipLayers(keep=keep)


def test_a_first_block_that_changes_the_shape_cannot_be_skipped():
    # layer1 is taken as listed; layer2 begins with a block of its own.
    with pytest.raises(ValueError, match=r"keep=\(1, 2, 3\): block 0 of 'layer2' changes the shape"):
        SkipLayers(keep=(1, 2, 3))(resnet56(4, width=2), resnet20(4, width=2))


@pytest.mark.parametrize("initializer", [SkipLayers(), AverageLayers()])
def test_a_deeper_student_or_one_without_blocks_is_refused(initializer):
    with pytest.raises(ValueError, match=r"'layer1' has 9 blocks in the student and 3 in the teacher. Use Grow\(\)"):
        initializer(resnet20(4, width=2), resnet56(4, width=2))
    plain = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="share no list of repeated blocks; the teacher's: none"):
        initializer(plain, plain)


def test_a_list_without_effect_is_refused():
    with pytest.raises(ValueError, match="has no effect: every list is as long in the student"):
        SkipLayers(keep=(0, 1))(Bert(4, 2, 4, 2), Bert(4, 2, 4, 2))


@pytest.mark.parametrize(
    ("layers", "kept", "expected"),
    [
        (6, 3, [0.5, 2.5, 4.5]),
        (12, 6, [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]),
        (5, 2, [1.0, 3.5]),
        (4, 1, [1.5]),
        (2, 2, [0, 1]),
    ],
)
def test_a_block_is_the_mean_of_its_group(layers, kept, expected):
    # Five in two: edges round(2.5) = 3 and 5, so blocks 0, 1, 2 and 3, 4.
    student = Bert(4, 2, 4, kept)
    coverage = AverageLayers()(numbered(layers), student)
    assert blocks_of(student) == expected
    hows = {tensor.how for tensor in coverage.tensors if tensor.name.startswith("bert.encoder")}
    assert hows == ({"copied"} if layers == kept else {"averaged"})
    assert coverage.share == 1.0


def test_statistics_are_averaged_and_the_first_block_that_changes_the_shape_is_copied():
    teacher, student = as_trained(resnet56(4, width=2)), resnet20(4, width=2)
    coverage = AverageLayers()(teacher, student)
    variances = [teacher.layer2[number].bn1.running_var for number in range(5, 9)]
    torch.testing.assert_close(student.layer2[2].bn1.running_var, torch.stack(variances).mean(0))
    assert torch.equal(student.layer2[0].conv1.weight, teacher.layer2[0].conv1.weight)
    entry = next(tensor for tensor in coverage.tensors if tensor.name == "layer2.2.bn1.running_var")
    assert (entry.source, entry.how) == ("layer2.5.bn1.running_var", "averaged")
    assert entry.reason == "with layer2.6.bn1.running_var, layer2.7.bn1.running_var, layer2.8.bn1.running_var"
    assert "averaged" in str(coverage)
