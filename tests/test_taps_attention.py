"""Attention scores without eager attention, and probabilities with it."""

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from distill.taps import TapError, Tapped, attend_eagerly, attention_scores
from tests.tiny_bert import answer, bert, distilbert, roberta, texts

BERT, ROBERTA = "bert.encoder.layer.1.attention.self", "roberta.encoder.layer.1.attention.self"
DISTILBERT = "distilbert.transformer.layer.1.attention"
each_kind = pytest.mark.parametrize(
    ("make", "path"),
    [(bert, BERT), (roberta, ROBERTA), (distilbert, DISTILBERT)],
    ids=["bert", "roberta", "distilbert"],
)


def test_scores_are_products_of_queries_and_keys_over_the_root_of_a_heads_width() -> None:
    # Two heads of width 1: products of the first numbers, and of the second ones. One head of width 2: their sums / √2.
    query, key = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 5.0]]])
    assert attention_scores(query, key, 2).tolist() == [[[[3.0]], [[10.0]]]]
    assert attention_scores(query, key, 1).item() == pytest.approx(13 / math.sqrt(2))


@each_kind
def test_softmax_of_tapped_scores_gives_the_probabilities_of_eager_attention(make, path: str) -> None:  # type: ignore[no-untyped-def]
    fused, eager, batch = make(), make(attn_implementation="eager"), texts()
    assert fused.config._attn_implementation == "sdpa"
    scores = Tapped(fused, [f"{path}:scores"])(batch.inputs)[f"{path}:scores"]
    assert scores.shape == (4, 2, 7, 7)
    expected = Tapped(eager, [f"{path}:1"])(batch.inputs)[f"{path}:1"]
    masked = scores.masked_fill(~batch.mask[:, None, None, :], -math.inf)
    torch.testing.assert_close(masked.softmax(3), expected, atol=1e-6, rtol=0)
    assert fused.config._attn_implementation == "sdpa"


def test_scores_and_the_projections_they_come_from_can_be_tapped_together() -> None:
    taps = [f"{BERT}:scores", f"{BERT}.query", f"{BERT}.key", f"{BERT}.value", "logits"]
    read = Tapped(bert(), taps)(texts().inputs)
    assert list(read) == taps
    torch.testing.assert_close(read[taps[0]], attention_scores(read[taps[1]], read[taps[2]], 2))


def test_a_frozen_model_stops_behind_the_key_and_reads_the_same_scores() -> None:
    model, batch = bert(layers=3), texts()
    reached: list[nn.Module] = []
    model.bert.encoder.layer[2].register_forward_hook(lambda module, args, output: reached.append(module))
    tapped = Tapped(model, [f"{BERT}:scores"], stop=True)
    first = tapped(batch.inputs)[f"{BERT}:scores"]
    reached.clear()
    torch.testing.assert_close(tapped(batch.inputs)[f"{BERT}:scores"], first)
    assert reached == []


def test_the_gradient_of_scores_reaches_query_and_key() -> None:
    model = bert()
    Tapped(model, [f"{BERT}:scores"])(texts().inputs)[f"{BERT}:scores"].square().sum().backward()
    attention = model.get_submodule(BERT)
    assert all(attention.get_parameter(f"{name}.weight").grad.any() for name in ("query", "key"))
    assert attention.get_parameter("value.weight").grad is None


@each_kind
def test_a_tap_of_probabilities_switches_to_eager_attention_and_says_so(make, path: str) -> None:  # type: ignore[no-untyped-def]
    model, batch = make(), texts()
    before = answer(model, batch)
    with pytest.warns(UserWarning, match=rf"attends eagerly now, .* tap '{path}:1' .* '{path}:scores' reads"):
        tapped = Tapped(model, [f"{path}:1"])
    probabilities = tapped(batch.inputs)[f"{path}:1"]
    torch.testing.assert_close(probabilities.sum(3), torch.ones(4, 2, 7))
    torch.testing.assert_close(answer(model, batch), before, atol=1e-5, rtol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Tapped(model, [f"{path}:1"])  # said once


def test_a_module_around_the_attention_gives_its_probabilities_too() -> None:
    model = bert()
    note = attend_eagerly(model, ["bert.encoder.layer.0.attention:1"])
    assert note is not None
    assert note.startswith("BertForSequenceClassification attends eagerly now, which is slower: tap ")
    assert Tapped(model, ["bert.encoder.layer.0.attention:1"])(texts().inputs)


@pytest.mark.parametrize("tap", [f"{BERT}:scores", BERT + ":0", f"{BERT}.query", "bert.encoder.layer.1", "logits"])
def test_no_other_tap_changes_the_kind_of_attention(tap: str) -> None:
    model = bert()
    assert attend_eagerly(model, [tap]) is None
    Tapped(model, [tap])
    assert model.config._attn_implementation == "sdpa"


def test_scores_of_a_module_that_is_no_attention_name_the_nearest_one() -> None:
    with pytest.raises(TapError) as error:
        Tapped(bert(), ["bert.encoder.layer.1.attention:scores"])
    assert str(error.value).startswith(
        "Module 'bert.encoder.layer.1.attention' has no query and key of its own, so it has no scores. "
        "Nearest: bert.encoder.layer.1.attention.self:scores"
    )


class Attention(nn.Module):
    """An attention whose heads no config tells."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.query(x) @ self.key(x).mT


def test_scores_without_a_known_number_of_heads_are_refused() -> None:
    with pytest.raises(TapError, match=r"The heads of '0' are not known: no config tells their number for widths 4 "):
        Tapped(nn.Sequential(Attention()), ["0:scores"])


def test_an_output_named_scores_is_still_an_item() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"scores": x + 1, "other": x}

    x = torch.ones(2, 3)
    model = nn.Sequential()
    model.add_module("named", Named())
    assert torch.equal(Tapped(model, ["named:scores"])(x)["named:scores"], x + 1)
