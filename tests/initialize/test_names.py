import re

import pytest
import torch
from torch import nn

from distill.initialize import CopyWeights
from distill.initialize.names import map_names
from tests.initialize.layouts import Bert, DistilBert, as_trained, words


def test_a_name_stands_for_all_tensors_below_it_and_the_longest_counts():
    mapped = map_names({"a": "x", "a.b": "y", "c": ""}, ["a.w", "a.b.w", "ab.w", "c.w"], ["x.w", "y.w"])
    assert mapped == {"a.w": "x.w", "a.b.w": "y.w", "ab.w": "ab.w", "c.w": ""}


def test_a_star_stands_for_one_part_and_blocks_put_in_the_teachers_number():
    teacher = [f"t.{number}.self.q.w" for number in range(5)]
    assert map_names({"s.*.q": "t.*.self.q"}, ["s.0.q.w", "s.1.q.w"], teacher, (1, 4)) == {
        "s.0.q.w": "t.1.self.q.w",
        "s.1.q.w": "t.4.self.q.w",
    }
    assert map_names({"s.*.q": "t.*.self.q"}, ["s.1.q.w"], teacher) == {"s.1.q.w": "t.1.self.q.w"}


@pytest.mark.parametrize(
    ("teacher_name", "names"), [("bert", "bert-to-distilbert"), ("roberta", "roberta-to-distilbert")]
)
def test_distilbert_computes_what_its_teacher_does_where_it_has_all_layers(teacher_name, names):
    torch.manual_seed(0)
    teacher, student = as_trained(Bert(8, 2, 12, 2, name=teacher_name)), DistilBert(8, 2, 12, 2).eval()
    body = teacher.get_submodule(teacher_name)
    nn.init.zeros_(body["embeddings"].token_type_embeddings.weight)  # DistilBERT has none
    if teacher_name == "roberta":
        student.distilbert["embeddings"].position_embeddings.load_state_dict(
            body["embeddings"].position_embeddings.state_dict()
        )
    coverage = CopyWeights(names=names)(teacher, student)
    torch.testing.assert_close(student.body(words()), teacher.body(words()))
    left = ["pre_classifier.weight", "pre_classifier.bias"]
    positions = ["distilbert.embeddings.position_embeddings.weight"] if teacher_name == "roberta" else []
    assert [tensor.name for tensor in coverage.left] == [*positions, *left]
    assert torch.equal(student.classifier.weight, teacher.classifier.weight)


def test_distilbert_starts_from_every_second_layer():
    teacher, student = Bert(8, 2, 12, 12), DistilBert(8, 2, 12, 6)
    CopyWeights(names="bert-to-distilbert", blocks=(0, 2, 4, 7, 9, 11))(teacher, student)
    for number, source in enumerate((0, 2, 4, 7, 9, 11)):
        assert torch.equal(
            student.distilbert["transformer"]["layer"][number].ffn["lin1"].weight,
            teacher.bert["encoder"]["layer"][source].intermediate["dense"].weight,
        )


@pytest.mark.parametrize(("theirs", "ours"), [("bert", "roberta"), ("roberta", "bert")])
def test_bert_and_roberta_share_all_but_the_positions(theirs, ours):
    teacher, student = Bert(8, 2, 12, 2, name=theirs), Bert(8, 2, 12, 2, name=ours)
    coverage = CopyWeights(names=f"{theirs}-to-{ours}")(teacher, student)
    assert [tensor.name for tensor in coverage.left] == [f"{ours}.embeddings.position_embeddings.weight"]
    assert coverage.left[0].reason == "left by the map"


def test_keep_classifier_false_leaves_it():
    teacher, student = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    coverage = CopyWeights(keep_classifier=False)(teacher, student)
    assert [(tensor.name, tensor.reason) for tensor in coverage.left] == [
        ("1.weight", "keep_classifier=False"),
        ("1.bias", "keep_classifier=False"),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"names": "bert-to-distilbrt"}, "no map of names 'bert-to-distilbrt'. Nearest: bert-to-distilbert"),
        ({"names": {"a.*": "b"}}, "'a.*' and 'b' differ in their number of *"),
        ({"blocks": (0, 1)}, "blocks has no effect without a * in names"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CopyWeights(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"names": {"distilbert.transformer.layer.*.ffn.lin1": "bert.encoder.layer.*.intermediat.dense"}},
            "distilbert.transformer.layer.0.ffn.lin1.weight of the student is "
            "bert.encoder.layer.0.intermediat.dense.weight by the entry 'distilbert.transformer.layer.*.ffn.lin1', "
            "which the teacher does not have. Nearest: bert.encoder.layer.0.intermediate.dense.weight",
        ),
        ({"names": {"pre_clasifier": ""}}, "'pre_clasifier' fits no tensor of the student. Nearest: pre_classifier."),
        (
            {"names": "bert-to-distilbert", "blocks": (0,)},
            "blocks=(0,) names 1 of the teacher's blocks and the student has distilbert.transformer.layer.1.",
        ),
        (
            {"names": "bert-to-distilbert", "blocks": (0, 9)},
            "is bert.encoder.layer.9.attention.self.query.weight by the entry",
        ),
    ],
)
def test_a_map_that_fits_nothing_or_names_what_is_missing_is_refused_with_the_nearest(settings, message):
    student = DistilBert(8, 2, 12, 2)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        CopyWeights(**settings)(Bert(8, 2, 12, 3), student)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
