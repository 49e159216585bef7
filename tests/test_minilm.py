"""The real MiniLM on real sentences: relations and scores equal those computed with transformers and plain torch."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.plan import Term, compare, connect
from distill.taps import Tapped
from distill.terms import minilm_terms, minilmv2_terms
from tests.tiny_bert import pretrained, transformers

SENTENCES = (
    "A quiet film that earns its tears.",
    "The plot is thin, the jokes are thinner, and the ending never comes.",
    "Wonderful!",
    "I did not expect to like it, but the second half won me over completely.",
    "Two hours of my life that nobody will give back to me, and I want them back.",
    "The camera loves her, and so will you.",
    "It's not bad.",
    "An honest, unhurried portrait of a town where everyone knows what everyone else has done.",
    "Loud, long and hollow.",
    "Even the dog looked bored.",
)
HEADS, WIDTH = 12, 384


@pytest.fixture(scope="module")
def encoder() -> Any:
    return transformers.BertForSequenceClassification.from_pretrained(pretrained(), attn_implementation="sdpa").eval()


@pytest.fixture(scope="module")
def batch() -> Batch:
    folder: Path = pretrained()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(list(SENTENCES), padding=True, return_tensors="pt")
    mask = tokens["attention_mask"].bool()
    assert not mask.all()
    return Batch(dict(tokens), torch.zeros(len(SENTENCES)).long(), torch.arange(len(SENTENCES)), mask)


def projections(model: Any, layer: int, batch: Batch) -> tuple[Tensor, ...]:
    """Queries, keys and values of a layer, out of the hidden states that transformers itself hands out."""
    assert not isinstance(batch.inputs, Tensor)
    with torch.no_grad():
        hidden = model(**batch.inputs, output_hidden_states=True).hidden_states[layer - 1]
        attention = model.bert.encoder.layer[layer - 1].attention.self
        return tuple(
            hidden @ linear.weight.T + linear.bias for linear in (attention.query, attention.key, attention.value)
        )


def relation_loss(
    student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], pairs: Any, heads: int, length: int
) -> float:
    """Of one sentence without padding: Σ over pairs, mean over heads and rows, of KL(teacher ‖ student)."""
    total = 0.0
    for first, second in pairs:
        relations = []
        for parts in (teacher, student):
            width = parts[0].shape[-1] // heads
            one, other = (parts[i].view(length, heads, width).transpose(0, 1) for i in (first, second))
            relations.append((one @ other.transpose(1, 2) / math.sqrt(width)).softmax(-1))
        total += (relations[0] * (relations[0] / relations[1]).log()).sum().item() / (heads * length)
    return total


@pytest.mark.parametrize(
    ("terms", "pairs", "heads"),
    [
        (minilm_terms(6, 3, heads=HEADS), [(0, 1), (2, 2)], HEADS),
        (minilmv2_terms(6, 3, heads=48), [(0, 0), (1, 1), (2, 2)], 48),
    ],
    ids=["minilm", "minilmv2"],
)
def test_relations_of_ten_sentences_equal_plain_torch(
    terms: dict[str, Term], pairs: Any, heads: int, encoder: Any, batch: Batch
) -> None:
    student = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=encoder.config.vocab_size,
            hidden_size=96,
            num_hidden_layers=3,
            num_attention_heads=HEADS,
            intermediate_size=192,
        )
    ).eval()
    guide, learner = connect(encoder, student, terms, batch)
    learner.eval()
    assert guide is not None
    assert batch.mask is not None
    ours = compare(terms, learner(batch.inputs), guide(batch.inputs), batch)["relations"]
    of_student, of_teacher = projections(student, 3, batch), projections(encoder, 6, batch)
    for number, length in enumerate(batch.mask.sum(1).tolist()):
        cut = [tuple(x[number, :length] for x in parts) for parts in (of_student, of_teacher)]
        expected = relation_loss(cut[0], cut[1], pairs, heads, length)
        assert expected > 1e-3
        assert ours[number].item() == pytest.approx(expected, abs=1e-5)


def test_scores_of_ten_sentences_equal_those_of_eager_attention(encoder: Any, batch: Batch) -> None:
    path = "bert.encoder.layer.4.attention.self"
    scores = Tapped(encoder, [f"{path}:scores"])(batch.inputs)[f"{path}:scores"]
    eager = transformers.BertForSequenceClassification.from_pretrained(pretrained(), attn_implementation="eager").eval()
    assert not isinstance(batch.inputs, Tensor)
    assert batch.mask is not None
    with torch.no_grad():
        expected = eager(**batch.inputs, output_attentions=True).attentions[4]
    masked = scores.masked_fill(~batch.mask[:, None, None, :], -math.inf)
    torch.testing.assert_close(masked.softmax(3), expected, atol=1e-5, rtol=0)
    assert scores.shape == (10, HEADS, batch.mask.shape[1], batch.mask.shape[1])
