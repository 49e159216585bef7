"""The dry run: heads are sized, shapes are checked, and what no loss reaches is named and frozen."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.heads import Conv1x1, Joint, Linear, Meeting
from distill.losses import FSP, KD, CrossEntropy, Hint, RKDDistance
from distill.pair import Met, Teacher
from distill.plan import Term, arrows, compare, connect
from distill.taps import Tapped
from distill.weighting import Ramp


class Convs(nn.Module):
    def __init__(self, width: int, classes: int = 3) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(1, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(width)
        self.layer2 = nn.Conv2d(width, width, 3, padding=1)
        self.aside = nn.Linear(2, 2)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.bn(self.layer1(x))).mean((2, 3)))


BATCH = Batch(torch.randn(4, 1, 6, 6), torch.tensor([0, 1, 2, 0]), torch.arange(4))
FULL = {
    "task": Term(CrossEntropy(), weight=0.1),
    "kd": Term(KD(), weight=0.9),
    "hint": Term(Hint(), student="layer1", teacher="layer1", head=Conv1x1()),
    "samples": Term(RKDDistance(), student="embedding", teacher="embedding"),
    "layers": Term(FSP(), student=("layer1", "layer2"), teacher=("layer1", "layer2"), head=Conv1x1()),
}


@pytest.mark.filterwarnings("default")
def test_connect_sizes_heads_and_compare_gives_one_number_an_example() -> None:
    teacher, learner = connect(Convs(8), Convs(4), FULL, BATCH)
    assert teacher is not None
    losses = compare(FULL, learner(BATCH.inputs), teacher(BATCH.inputs), BATCH)
    assert {name: tuple(loss.shape) for name, loss in losses.items()} == dict.fromkeys(FULL, (4,))
    assert set(learner.heads) == {"hint", "layers"}


def test_unreached_parameters_are_named_and_frozen() -> None:
    _, learner = connect(None, Convs(4), {"task": Term(CrossEntropy())}, BATCH)
    assert learner.unreached == ("aside.weight", "aside.bias")
    assert [name for name, p in learner.named_parameters() if not p.requires_grad] == [
        "student.model.aside.weight",
        "student.model.aside.bias",
    ]


def test_the_dry_run_leaves_both_models_as_they_were() -> None:
    teacher, student = Convs(8), Convs(4)
    before = {name: tensor.clone() for name, tensor in [*teacher.state_dict().items(), *student.state_dict().items()]}
    student.layer2.eval()
    connect(teacher, student, FULL, BATCH)
    after = dict([*teacher.state_dict().items(), *student.state_dict().items()])
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert student.training and student.bn.training and not student.layer2.training


def test_the_teacher_never_trains() -> None:
    teacher = Teacher(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), ["1"])
    teacher.train()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    answer = teacher(torch.randn(4, 1, 6, 6))["1"]
    assert not answer.requires_grad and not any(module.training for module in teacher.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (
            Term(Hint(), student="layer1", teacher="layer1"),
            r"Term 'x': Hint .* equal shapes.*\(4, 4, 6, 6\).*\(4, 8, 6, 6\)",
        ),
        (Term(Hint(), student="layer3", teacher="layer1"), "Convs has no module 'layer3'. Nearest: layer"),
        (Term(Hint(), student="layer1", teacher="layr1"), "Convs has no module 'layr1'"),
        (Term(CrossEntropy(), head=Linear()), "CrossEntropy reads no teacher. Drop head="),
        (Term(FSP(), student=("layer1", "layer2"), teacher="layer1", head=Conv1x1()), "as many taps of the student"),
        (Term(Hint(), student="layer1", teacher="layer1", head=Linear()), "Term 'x': .*Conv1x1"),
    ],
)
def test_what_does_not_meet_is_refused_with_the_terms_name(term: Term, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        connect(Convs(8), Convs(4), {"x": term}, BATCH)


@dataclass(frozen=True)
class Sum(Joint):
    """One learned scale for all taps."""

    def __call__(self, student: Any, teacher: Any) -> nn.Module:
        assert all(isinstance(size, torch.Size) for size in (*student, *teacher))
        return Scaled()


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(self.scale * x for x in maps)


@dataclass(frozen=True)
class Both(Meeting):
    """Maps both sides, and takes a number from the teacher's own weights."""

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        return Meets()


class Meets(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.read = 0.0

    def read_teacher(self, teacher: nn.Module) -> None:
        if not isinstance(teacher, Convs):
            raise ValueError("The teacher has no layer1.")
        self.read = float(teacher.layer1.weight.sum())

    def forward(self, student: Tensor, teacher: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.scale * student, teacher + batch.index[:, None, None, None]


def test_a_joint_head_is_one_module_for_all_taps() -> None:
    taps = ("layer1", "layer2")
    plan = {"layers": Term(FSP(), student=taps, teacher=taps, head=Sum())}
    teacher, learner = connect(Convs(4), Convs(4), plan, BATCH)
    assert teacher is not None
    student = Tapped(learner.student.model, taps)(BATCH.inputs)
    value = learner(BATCH.inputs)["layers"]
    assert isinstance(value, tuple)
    for mapped, tap in zip(value, taps, strict=True):
        torch.testing.assert_close(mapped, 2 * student[tap])


def test_a_head_that_maps_both_sides_gives_the_loss_both() -> None:
    """By hand: 2 s against t + index, whose mean squared difference is the loss."""
    plan = {"hint": Term(Hint(), student="layer1", teacher="layer1", head=Both())}
    guide, student = Convs(4), Convs(4)
    teacher, learner = connect(guide, student, plan, BATCH)
    assert teacher is not None
    targets = teacher(BATCH.inputs)
    outputs = learner(BATCH.inputs, targets, BATCH)
    assert isinstance(outputs["hint"], Met)
    loss = compare(plan, outputs, targets, BATCH)["hint"]
    expected = 2 * student.layer1(BATCH.inputs) - guide.layer1(BATCH.inputs) - BATCH.index[:, None, None, None]
    torch.testing.assert_close(loss, expected.square().mean((1, 2, 3)))
    assert learner.heads["hint"].read == pytest.approx(float(guide.layer1.weight.sum()))


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Term(Hint(), student="layer1", teacher="layer1", head=Sum()), "Term 'x': Sum joins several taps of the"),
        (
            Term(FSP(), student=("layer1", "layer2"), teacher=("layer1", "layer2"), head=Both()),
            "Term 'x': Both maps one tap of each side",
        ),
    ],
)
def test_a_head_for_another_number_of_taps_is_refused(term: Term, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        connect(Convs(4), Convs(4), {"x": term}, BATCH)


def test_a_head_that_does_not_find_what_it_reads_of_the_teacher_names_its_term() -> None:
    teacher = nn.Sequential(OrderedDict(layer1=nn.Conv2d(1, 4, 3, padding=1)))
    with pytest.raises(ValueError, match="Term 'x': The teacher has no layer1"):
        connect(teacher, Convs(4), {"x": Term(Hint(), student="layer1", teacher="layer1", head=Both())}, BATCH)


def test_a_loss_that_averages_over_the_batch_is_refused() -> None:
    class Mean:
        def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
            return (student - teacher).square().mean()

    with pytest.raises(ValueError, match=r"one number for each of the 4 examples, Mean gave shape \(\)"):
        connect(Convs(8), Convs(4), {"x": Term(Mean())}, BATCH)


def test_a_term_without_its_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="'kd' compares with a teacher and there is none"):
        connect(None, Convs(4), {"kd": Term(KD())}, BATCH)


def test_arrows_say_what_meets_what() -> None:
    teacher, learner = connect(Convs(8), Convs(4), FULL, BATCH)
    rows = {row.term: row for row in arrows(teacher, learner, FULL, BATCH)}
    assert rows["task"].teacher == "labels"
    assert (rows["hint"].student_shape, rows["hint"].teacher_shape) == ("4x6x6", "8x6x6")
    assert rows["layers"].student == "layer1 + layer2"
    assert rows["hint"].head_parameters > 0 == rows["kd"].head_parameters


def test_a_ramp_rises_linearly_to_the_weight() -> None:
    term = Term(KD(), weight=0.9, schedule=Ramp(epochs=20))
    assert [round(term.weight_at(epoch), 4) for epoch in (0, 5, 20, 100)] == [0.0, 0.225, 0.9, 0.9]
