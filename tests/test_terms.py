"""The terms of the text methods: layer maps by hand, and each set on a tiny pair."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.data.masking import mask_tokens
from distill.heads import Linear
from distill.losses import AttentionRelation, CrossEntropy, MaskedLanguageModel
from distill.plan import Term, compare, connect
from distill.recipe import from_json, to_json
from distill.terms import (
    distilbert_terms,
    last_layers,
    minilm_terms,
    minilmv2_terms,
    pkd_terms,
    tinybert_prediction_terms,
    tinybert_terms,
    uniform_layers,
)
from tests.every_loss import recipe
from tests.tiny_bert import LENGTH, VOCABULARY, bert, distilbert, roberta, spread, texts, transformers


def taps(layers: tuple[int, ...]) -> tuple[str, ...]:
    """Counted from 1."""
    return tuple(f"bert.encoder.layer.{layer - 1}" for layer in layers)


@pytest.mark.parametrize(
    ("teacher", "student", "uniform", "last"),
    [
        (12, 4, (3, 6, 9, 12), (9, 10, 11, 12)),
        (12, 6, (2, 4, 6, 8, 10, 12), (7, 8, 9, 10, 11, 12)),
        (6, 3, (2, 4, 6), (4, 5, 6)),
        (4, 4, (1, 2, 3, 4), (1, 2, 3, 4)),
        (12, 1, (12,), (12,)),
    ],
)
def test_layer_maps_by_hand(teacher: int, student: int, uniform: tuple[int, ...], last: tuple[int, ...]) -> None:
    assert uniform_layers(teacher, student) == uniform
    assert last_layers(teacher, student) == last


@pytest.mark.parametrize(
    ("teacher", "student", "skip", "last"),
    [(12, 6, (2, 4, 6, 8, 10), (7, 8, 9, 10, 11)), (12, 4, (3, 6, 9), (9, 10, 11)), (6, 3, (2, 4), (4, 5))],
)
def test_pkd_leaves_out_the_last_layer(
    teacher: int, student: int, skip: tuple[int, ...], last: tuple[int, ...]
) -> None:
    ours = taps(tuple(range(1, student)))
    for strategy, expected in (("skip", skip), ("last", last)):
        term = pkd_terms(teacher, student, strategy=strategy)["patient"]  # type: ignore[arg-type]
        assert (term.student, term.teacher) == (ours, taps(expected))
    assert pkd_terms(teacher, student)["patient"].teacher == taps(skip)
    assert pkd_terms(teacher, student)["patient"].weight == 0.026


def test_tinybert_hints_at_every_layer_and_the_embeddings() -> None:
    plan = tinybert_terms(12, 4)
    names = [f"{kind}_{number}" for number in (1, 2, 3, 4) for kind in ("hidden", "scores")]
    assert list(plan) == ["embeddings", *names]
    assert (plan["embeddings"].student, plan["embeddings"].teacher) == ("bert.embeddings", "bert.embeddings")
    assert (plan["hidden_2"].student, plan["hidden_2"].teacher) == ("bert.encoder.layer.1", "bert.encoder.layer.5")
    scores = plan["scores_4"]
    assert scores.student == "bert.encoder.layer.3.attention.self:scores"
    assert scores.teacher == "bert.encoder.layer.11.attention.self:scores"
    assert {term.weight for term in plan.values()} == {1.0}
    assert scores.head is None
    assert plan["hidden_2"].head == Linear()


def test_minilm_meets_at_the_last_layers() -> None:
    term = minilm_terms(12, 6)["relations"]
    assert term.loss == AttentionRelation(relations=("qk", "vv"), heads=12)
    assert term.weight == 1
    assert term.student == tuple(f"bert.encoder.layer.5.attention.self.{name}" for name in ("query", "key", "value"))
    assert term.teacher == tuple(f"bert.encoder.layer.11.attention.self.{name}" for name in ("query", "key", "value"))


@pytest.mark.parametrize(
    ("layers", "kind", "chosen"),
    [
        (12, "bert", 12),
        (6, "bert", 6),
        (6, "distilbert", 6),
        (24, "bert", 21),
        (24, "roberta", 19),
        (12, "roberta", 12),
    ],
)
def test_minilmv2_takes_an_upper_middle_layer_of_a_large_teacher(layers: int, kind: Any, chosen: int) -> None:
    term = minilmv2_terms(layers, 6, teacher=kind, student="distilbert")["relations"]
    parents = {
        "bert": "bert.encoder.layer.{}.attention.self.query",
        "roberta": "roberta.encoder.layer.{}.attention.self.query",
        "distilbert": "distilbert.transformer.layer.{}.attention.q_lin",
    }
    assert term.teacher is not None
    assert term.teacher[0] == parents[kind].format(chosen - 1)
    assert term.student[2] == "distilbert.transformer.layer.5.attention.v_lin"
    assert term.loss == AttentionRelation(relations=("qq", "kk", "vv"), heads=48)
    assert term.weight == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tinybert_terms(12, 5), "12 layers of the teacher do not divide into 5 of the student. Choose "),
        (lambda: pkd_terms(12, 5), "12 layers of the teacher do not divide into 5 of the student. Choose "),
        (lambda: pkd_terms(12, 1), "PKD leaves out the student's last layer, and it has 1. Use distilbert_terms()."),
        (lambda: pkd_terms(12, 6, strategy="first"), "pkd_terms.strategy is 'skip' or 'last', got 'first'."),
        (lambda: minilm_terms(3, 6), "The student needs at least one layer and at most the teacher's, got 6 and 3."),
        (
            lambda: distilbert_terms(3, 0),
            "The student needs at least one layer and at most the teacher's, got 0 and 3.",
        ),
        (lambda: tinybert_terms(12, 2, layers=(6, 13)), "Choose 2 of the teacher's layers 1 to 12, one for each of"),
        (lambda: tinybert_terms(12, 2, layers=(6,)), "Choose 2 of the teacher's layers 1 to 12, one for each of"),
        (lambda: minilmv2_terms(16, 4), "MiniLMv2 names no layer of a bert teacher with 16. Choose an upper middle"),
        (lambda: minilmv2_terms(12, 6, teacher_layer=13), "Choose 1 of the teacher's layers 1 to 12"),
        (lambda: minilm_terms(12, 6, teacher="brt"), "There are no terms for models of the kind 'brt'. Nearest: bert"),
    ],
)
def test_a_map_that_does_not_fit_is_refused_in_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=r"\.") as error:
        make()
    assert message in str(error.value)


def test_layers_that_do_not_divide_can_be_chosen() -> None:
    assert pkd_terms(12, 5, layers=(3, 5, 8, 10))["patient"].teacher == taps((3, 5, 8, 10))
    assert pkd_terms(12, 5, strategy="last")["patient"].teacher == taps((8, 9, 10, 11))
    assert tinybert_terms(12, 5, layers=(2, 5, 7, 10, 12))["hidden_3"].teacher == "bert.encoder.layer.6"


SETS: Mapping[str, tuple[Mapping[str, Term], int]] = {
    # And the last of the student's layers that its terms reach.
    "distilbert": (distilbert_terms(4, 2), 2),
    "pkd": (pkd_terms(4, 2), 2),
    "tinybert": (tinybert_terms(4, 2), 2),
    "tinybert prediction": (tinybert_prediction_terms(), 2),
    "minilm": (minilm_terms(4, 2, heads=2), 2),
    "minilmv2": (minilmv2_terms(4, 2, heads=4), 2),
}
every_set = pytest.mark.parametrize("name", SETS)


def run(
    plan: Mapping[str, Term], teacher: nn.Module, student: nn.Module, batch: Batch
) -> tuple[Any, dict[str, Tensor]]:
    """The learner, in evaluation, and the losses of each term, (B,)."""
    guide, learner = connect(teacher, student, plan, batch)
    learner.eval()
    assert guide is not None
    targets = guide(batch.inputs)
    return learner, compare(plan, learner(batch.inputs, targets, batch), targets, batch)


@every_set
def test_a_set_trains_every_layer_that_it_is_about(name: str) -> None:
    plan, deepest = SETS[name]
    student = spread(bert(layers=2, width=16), 1)
    learner, losses = run(plan, spread(bert(layers=4, width=16), 2), student, texts())
    assert set(losses) == set(plan)
    for term, loss in losses.items():
        assert loss.isfinite().all(), term
        assert (loss > 0).all(), term
    torch.stack([plan[term].weight * loss.mean() for term, loss in losses.items()]).sum().backward()
    for number in range(deepest):
        layer = student.get_submodule(f"bert.encoder.layer.{number}")
        reached = {key for key, p in layer.named_parameters() if p.grad is not None and p.grad.any()}
        assert "attention.self.query.weight" in reached, number
        assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())
    assert all(parameter.grad.any() for parameter in learner.heads.parameters())


@every_set
def test_a_set_costs_nothing_where_student_and_teacher_are_the_same_model(name: str) -> None:
    same: Mapping[str, Mapping[str, Term]] = {
        "distilbert": distilbert_terms(2, 2),
        "pkd": pkd_terms(2, 2),
        "tinybert": tinybert_terms(2, 2, head=None),
        "tinybert prediction": tinybert_prediction_terms(),
        "minilm": minilm_terms(2, 2, heads=2),
        "minilmv2": minilmv2_terms(2, 2, heads=4),
    }
    _, losses = run(same[name], spread(bert(), 1), spread(bert(), 1), texts())
    for term, loss in losses.items():
        torch.testing.assert_close(
            loss, torch.zeros(4), atol=1e-5, rtol=0, msg=lambda text, term=term: f"{term}: {text}"
        )


@pytest.mark.parametrize("student", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("teacher", ["bert", "roberta", "distilbert"])
def test_every_kind_of_teacher_guides_every_kind_of_student(teacher: Any, student: Any) -> None:
    make = {"bert": bert, "roberta": roberta, "distilbert": distilbert}
    kinds = {"teacher": teacher, "student": student}
    plan = {
        "task": Term(CrossEntropy()),
        **tinybert_terms(4, 2, **kinds),
        **minilmv2_terms(4, 2, heads=4, **kinds),
        **pkd_terms(4, 2, head=Linear(), **kinds),
        **distilbert_terms(4, 2, head=Linear(), **kinds),
    }
    _, losses = run(plan, make[teacher](4, 16, 4), make[student](2, 8, 4), texts())
    assert set(losses) == set(plan)
    assert all(loss.isfinite().all() for loss in losses.values())


@every_set
def test_a_set_is_the_same_after_the_round_trip_of_a_recipe(name: str) -> None:
    plan = {"task": Term(CrossEntropy()), **SETS[name][0]}
    one = recipe("KD", together=True)
    whole = replace(one, plan=plan)
    assert from_json(to_json(whole), allow_import=("tests",)) == whole


def test_the_general_stage_learns_masked_words_beside_relations() -> None:
    config: dict[str, Any] = {"vocab_size": VOCABULARY, "num_attention_heads": 2, "max_position_embeddings": 16}
    torch.manual_seed(0)
    models = [
        transformers.BertForMaskedLM(
            transformers.BertConfig(hidden_size=width, intermediate_size=32, num_hidden_layers=layers, **config)
        )
        for width, layers in ((16, 4), (8, 2))
    ]
    plain = texts()
    assert not isinstance(plain.inputs, Tensor)
    settings: dict[str, Any] = {"mask_id": 3, "vocabulary": VOCABULARY, "special": (0, 1, 2, 3), "share": 0.4}
    hidden = [
        mask_tokens(ids, seed=0, epoch=0, index=index, **settings)
        for index, ids in enumerate(plain.inputs["input_ids"])
    ]
    ids, labels = (torch.stack(column) for column in zip(*hidden, strict=True))
    batch = Batch({**plain.inputs, "input_ids": ids}, labels, plain.index, plain.mask)
    assert labels.shape == (4, LENGTH)
    plan = {"words": Term(MaskedLanguageModel(), 2.0), **minilmv2_terms(4, 2, heads=4)}
    learner, losses = run(plan, models[0], models[1], batch)
    # A word out of 40 by chance costs ln 40 = 3.7.
    assert losses["words"].mean().item() == pytest.approx(3.7, abs=0.2)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        compare({"words": plan["words"]}, learner(batch.inputs), {}, batch)["words"].mean().backward()
        optimizer.step()
    assert compare({"words": plan["words"]}, learner(batch.inputs), {}, batch)["words"].mean() < 0.5
