"""Teacher and student of different architectures: each pair trains through the whole run, head and student both."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from distill.heads import Conv1x1, Grid, Regressor, StageClassifier
from distill.initialize import SelectWeights
from distill.losses import KD, OFA, AttentionTransfer, CrossEntropy, Hint
from distill.pair import answers_of
from distill.plan import Plan, Term, compare, connect
from distill.prepare import sample_batch
from distill.recipe import SGD, AdamW, Model, Recipe, from_json, to_json
from distill.run import Options, train
from distill.view import View
from tests.models.onnx_files import export, tensor_after
from tests.tiny import Blobs, net, pair_recipe, parts_of

RESNET = Model("distill.models.cifar:resnet8", arguments={"width": 4})
RGB = View(mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4))
VIT = Model(
    "torchvision.models:VisionTransformer",
    arguments={
        "image_size": 6, "patch_size": 2, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32
    },
    view=RGB,
)  # fmt: skip
BLOCK = "encoder.layers.encoder_layer_{}"


def pair(teacher: Model, student: Model, **terms: Term) -> Recipe:
    plan: Plan = {"task": Term(CrossEntropy(), weight=0.5), "kd": Term(KD(temperature=2.0), weight=0.5), **terms}
    optimizer = AdamW(lr=0.003) if student.source == VIT.source else SGD(lr=0.03)
    return pair_recipe(
        data=Blobs(augment=False),
        teacher=teacher,
        student=student,
        plan=plan,
        optimizer=optimizer,
        epochs=1,
        allow_chance_teacher=True,  # the teachers here are fresh
    )


def cnn_to_cnn(folder: Path) -> Recipe:
    """Other widths and strides: 8 channels of 6x6 meet 4 of 6x6, 16 of 2x2 meet 8 of 3x3 and 16 of 2x2."""
    return pair(
        Model("tests.tiny:net", arguments={"width": 8}),
        RESNET,
        same=Term(Hint(), student="layer1", teacher="layer1", head=Conv1x1()),
        smaller=Term(Hint(), student="layer2", teacher="layer2", head=Regressor()),
        any=Term(Hint(), student="layer2", teacher="layer1", head=Grid()),
    )


def cnn_to_vit(folder: Path) -> Recipe:
    return pair(
        RESNET,
        VIT,
        positions=Term(Hint(), student=BLOCK.format(0), teacher="layer1", head=Grid()),
        stage=Term(OFA(), student=BLOCK.format(0), teacher="logits", head=StageClassifier()),
        last=Term(OFA(gamma=1.2)),
    )


def vit_to_cnn(folder: Path) -> Recipe:
    return pair(
        VIT,
        RESNET,
        tokens=Term(Hint(), student="layer2", teacher=BLOCK.format(1), head=Grid()),
        stage=Term(OFA(), student="layer1", teacher="logits", head=StageClassifier()),
    )


def vit_to_finer_vit(folder: Path) -> Recipe:
    finer = replace(VIT, arguments={**VIT.arguments, "patch_size": 1, "hidden_dim": 8})
    return pair(VIT, finer, tokens=Term(Hint(), student=BLOCK.format(1), teacher=BLOCK.format(1), head=Grid()))


def other_resolution(folder: Path) -> Recipe:
    return pair(
        replace(RESNET, arguments={"width": 8}, view=View(size=16)),
        replace(RESNET, view=View(size=8)),
        larger=Term(Hint(), student="layer1", teacher="layer1", head=Regressor()),
        any=Term(Hint(), student="layer3", teacher="layer2", head=Grid()),
        attention=Term(AttentionTransfer(), student="layer2", teacher="layer3"),
    )


def onnx_to_cnn(folder: Path) -> Recipe:
    path = export(folder / "teacher.onnx", net(num_classes=3, width=8), torch.randn(2, 1, 6, 6))
    inner = tensor_after(path, "Relu")
    return pair(
        Model(f"onnx:{path}", arguments={"outputs": (inner,)}),
        RESNET,
        hint=Term(Hint(), student="layer2", teacher=f"outputs:{inner}", head=Grid()),
        stage=Term(OFA(), student="layer1", teacher="logits", head=StageClassifier()),
    )


PAIRS = (cnn_to_cnn, cnn_to_vit, vit_to_cnn, vit_to_finer_vit, other_resolution, onnx_to_cnn)
each_pair = pytest.mark.parametrize("make", PAIRS, ids=lambda make: make.__name__)


@each_pair
def test_a_run_trains_and_reports(make: Callable[[Path], Recipe], tmp_path: Path) -> None:
    recipe = make(tmp_path)
    assert from_json(to_json(recipe), allow_import=("tests",)) == recipe
    report = train(recipe, Options(root=tmp_path / "runs"), Console(quiet=True))
    assert report.teacher_cost is not None and report.teacher_cost.parameters > 0
    assert report.teacher_cost.bytes >= 4 * report.teacher_cost.parameters
    lines = (tmp_path / "runs" / "pair" / "metrics.jsonl").read_text().splitlines()
    assert lines
    assert not any(word in line for line in lines for word in ("NaN", "Infinity"))
    assert (tmp_path / "runs" / "pair" / "student" / "model.safetensors").is_file()


@each_pair
def test_every_term_falls_on_the_training_data_and_trains_student_and_head(
    make: Callable[[Path], Recipe], tmp_path: Path
) -> None:
    recipe = make(tmp_path)
    parts = parts_of(recipe, tmp_path)
    sample = sample_batch(parts.splits, 24)
    views = parts.teacher_view.module(), parts.student_view.module()
    teacher, learner = connect(
        parts.teacher, parts.student, recipe.plan, sample, teacher_view=views[0], student_view=views[1]
    )
    before = {name: parameter.detach().clone() for name, parameter in learner.named_parameters()}
    targets = answers_of(teacher, sample.inputs)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.003)
    history = []
    for _ in range(40):
        losses = compare(recipe.plan, learner(sample.inputs, targets, sample), targets, sample)
        means = {name: loss.mean() for name, loss in losses.items()}
        optimizer.zero_grad()
        torch.stack(list(means.values())).sum().backward()
        optimizer.step()
        history.append({name: mean.item() for name, mean in means.items()})
    first, last = history[0], history[-1]
    assert sum(last.values()) < 0.9 * sum(first.values())
    for name, term in recipe.plan.items():
        if term.head is not None:
            assert last[name] < first[name], name
    assert learner.unreached == ()
    assert all(not torch.equal(parameter, before[name]) for name, parameter in learner.named_parameters())
    assert teacher is not None and all(parameter.grad is None for parameter in teacher.parameters())


def test_multiply_adds_of_an_onnx_teacher_are_not_counted(tmp_path: Path) -> None:
    report = train(onnx_to_cnn(tmp_path), Options(root=tmp_path / "runs"), Console(quiet=True))
    assert report.teacher_cost is not None
    assert report.teacher_cost.multiply_adds is None
    assert report.teacher_cost.bytes == (tmp_path / "teacher.onnx").stat().st_size
    assert "not counted" in (tmp_path / "runs" / "pair" / "plan.txt").read_text()


def test_an_onnx_teacher_of_other_classes_is_refused(tmp_path: Path) -> None:
    recipe = onnx_to_cnn(tmp_path)
    export(tmp_path / "teacher.onnx", net(num_classes=5, width=8), torch.randn(2, 1, 6, 6))
    with pytest.raises(ValueError, match=r"Teacher onnx:.* answers 5 classes and the data has 3"):
        parts_of(recipe)


def test_an_onnx_file_is_refused_as_a_student_and_as_a_start(tmp_path: Path) -> None:
    recipe = onnx_to_cnn(tmp_path)
    assert recipe.teacher is not None
    with pytest.raises(ValueError, match=r"^student onnx:.* can't be trained: an ONNX file only teaches\.$"):
        replace(recipe, student=recipe.teacher)
    with pytest.raises(ValueError, match=r"^initialize has no effect with onnx:.*Leave it out\.$"):
        replace(recipe, initialize=SelectWeights())
    with pytest.raises(ValueError, match=r"^weights has no effect on source 'onnx:.*Leave it out\.$"):
        replace(recipe.teacher, weights="DEFAULT")


def test_tokens_without_a_grid_are_refused_by_the_terms_name(tmp_path: Path) -> None:
    seven = Model("tests.end_to_end.test_architectures:SevenTokens")
    recipe = pair(RESNET, seven, positions=Term(Hint(), student="tokens", teacher="layer1", head=Grid()))
    parts = parts_of(recipe)
    with pytest.raises(ValueError, match=r"^Term 'positions': Grid finds no grid in the student's 7 tokens"):
        connect(
            parts.teacher,
            parts.student,
            recipe.plan,
            sample_batch(parts.splits),
            teacher_view=parts.teacher_view.module(),
            student_view=parts.student_view.module(),
        )


class SevenTokens(torch.nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.tokens = torch.nn.Unflatten(1, (7, 4))
        self.embed, self.fc = torch.nn.Linear(36, 28), torch.nn.Linear(4, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.tokens(self.embed(x.flatten(1))).mean(1))
