import copy
import re

import pytest
import torch
import torchvision
from torch import nn

from distill.initialize import CopyWeights, Initializer


def small(classes: int = 3, width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 4, classes))


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_is_an_initializer():
    assert isinstance(CopyWeights(), Initializer)


def test_same_architecture_is_a_full_copy_and_the_teacher_stays_as_it_is():
    teacher, student = (torchvision.models.resnet18(num_classes=4) for _ in range(2))
    teacher(torch.randn(4, 3, 32, 32))  # BatchNorm's statistics are no longer those of a fresh model
    before = snapshot(teacher)
    coverage = CopyWeights(minimum=1.0)(teacher, student)
    assert equal(before, teacher.state_dict())
    assert (coverage.share, coverage.left) == (1.0, ())
    inputs = torch.randn(2, 3, 32, 32)
    assert torch.equal(teacher.eval()(inputs), student.eval()(inputs))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert equal(before, teacher.state_dict())


def test_buffers_are_copied_and_a_classifier_for_other_classes_is_left():
    # Covered: 4 * 9 + 4 of the convolution, 4 + 4 of BatchNorm; left: 5 * 16 + 5 of the classifier: 48 of 133.
    teacher, student = small(classes=3), small(classes=5)
    teacher(torch.randn(8, 1, 4, 4))
    classifier = student[3].weight.clone()
    coverage = CopyWeights(minimum=0.3)(teacher, student)
    assert coverage.share == 48 / 133
    assert [(tensor.name, tensor.reason) for tensor in coverage.left] == [
        ("3.weight", "the teacher's is (3, 16)"),
        ("3.bias", "the teacher's is (3,)"),
    ]
    assert torch.equal(student[1].running_var, teacher[1].running_var)
    assert student[1].num_batches_tracked == 1
    assert torch.equal(student[3].weight, classifier)


def test_too_little_is_refused_by_name_before_anything_is_written():
    teacher, student = small(width=8), small(width=4)
    before = snapshot(student)
    message = (
        "The teacher covers 3.0% of the student's parameters, below minimum=0.5. First that did not fit: "
        "0.weight (4, 1, 3, 3), the teacher's is (8, 1, 3, 3); 0.bias (4,), the teacher's is (8,); "
        "1.weight (4,), the teacher's is (8,). Use SelectWeights()"
    )
    # Only the bias of the classifier fits: 3 of 4 * 9 + 4 + 4 + 4 + 16 * 3 + 3 = 99.
    with pytest.raises(ValueError, match=re.escape(message)):
        CopyWeights()(teacher, student)
    assert equal(before, student.state_dict())


def test_a_tensor_that_the_teacher_lacks_is_left():
    student = nn.Sequential(*small(), nn.Linear(3, 3))
    coverage = CopyWeights()(small(), student)
    assert [(tensor.name, tensor.source) for tensor in coverage.left] == [("4.weight", None), ("4.bias", None)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_student_keeps_its_own_type(dtype):
    teacher, student = small().to(dtype), small()
    assert CopyWeights()(teacher, student).share == 1.0
    assert student[0].weight.dtype == torch.float32
    assert torch.equal(student[0].weight, teacher[0].weight.float())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_student_keeps_its_own_device():
    teacher, student = small().cuda(), small()
    assert CopyWeights()(teacher, student).share == 1.0
    assert torch.equal(student[0].weight, teacher[0].weight.cpu())


def test_tied_weights_count_once():
    def tied() -> nn.Module:
        model = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "decoder": nn.Linear(3, 5, bias=False)})
        model["decoder"].weight = model["embedding"].weight
        return model

    coverage = CopyWeights()(tied(), tied())
    assert [tensor.name for tensor in coverage.tensors] == ["embedding.weight"]
    assert coverage.parameters == 15


def test_buffers_that_are_not_saved_are_the_students_own():
    teacher, student = nn.Linear(2, 2), nn.Linear(2, 2)
    for value, model in enumerate((teacher, student)):
        model.register_buffer("mean", torch.tensor(float(value)), persistent=False)
    coverage = CopyWeights()(teacher, student)
    assert student.mean == 1.0
    assert [tensor.name for tensor in coverage.tensors] == ["weight", "bias"]


def test_requires_grad_and_gradients_are_untouched():
    teacher, student = small(), small()
    student[0].weight.requires_grad_(False)
    CopyWeights()(copy.deepcopy(teacher), student)
    assert not student[0].weight.requires_grad
    assert student[0].bias.requires_grad and student[0].bias.is_leaf and student[0].bias.grad is None


@pytest.mark.parametrize("minimum", [-0.1, 1.5, float("nan")])
def test_a_minimum_that_is_no_share_is_refused(minimum):
    with pytest.raises(ValueError, match=r"minimum is a share of the student's parameters in \[0, 1\]"):
        CopyWeights(minimum=minimum)
