"""A tokenizer that does not fit its model is refused, and both are named."""

import pytest

from distill.models import cifar
from distill.models.text import bilstm
from distill.tokenize import Words, check_fit
from tests.tiny_bert import bert, distilbert, roberta

TOKENIZER = Words(12).train(["one two three four five six seven eight"])
POSITIONS = 16


def test_what_fits_is_taken() -> None:
    check_fit(TOKENIZER, bert(), "transformers:bert", max_length=POSITIONS)
    check_fit(TOKENIZER, distilbert(), "transformers:distilbert", max_length=POSITIONS)
    check_fit(TOKENIZER, bilstm(2, TOKENIZER.size), "bilstm", max_length=1000)
    check_fit(TOKENIZER, cifar.resnet8(2), "resnet8", max_length=1000)


def test_more_tokens_than_the_model_embeds_are_refused() -> None:
    message = r"The tokenizer Words\(size=60, .* does not fit NAME: it has tokens up to 54, and the model embeds 40"
    many = Words(60).train([" ".join(f"w{number}" for number in range(50))])
    for model in (bert(), distilbert(), bilstm(2, 40)):
        with pytest.raises(ValueError, match=message):
            check_fit(many, model, "NAME", max_length=8)


def test_longer_texts_than_the_model_has_positions_are_refused() -> None:
    for model in (bert(), distilbert()):
        with pytest.raises(ValueError, match=r"Texts of 17 tokens by Words.* do not fit NAME, which has 16 positions"):
            check_fit(TOKENIZER, model, "NAME", max_length=17)


def test_positions_that_count_from_behind_the_padding_are_fewer() -> None:
    model = roberta(pad_token_id=0)
    check_fit(TOKENIZER, model, "NAME", max_length=15)
    with pytest.raises(ValueError, match="which has 15 positions"):
        check_fit(TOKENIZER, model, "NAME", max_length=16)


def test_another_padding_than_the_model_counts_positions_by_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pads with token 0, and the model takes 1 for padding.*pad_token_id=0"):
        check_fit(TOKENIZER, roberta(), "NAME", max_length=8)
