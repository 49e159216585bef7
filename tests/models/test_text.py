"""Networks over words: filling changes nothing, short and empty texts have an answer, taps work."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from distill.models import load_model
from distill.models.text import bilstm, word_cnn
from distill.taps import Tapped

FACTORIES = [bilstm, word_cnn]
Factory = Callable[..., nn.Module]


def batch(lengths: list[int], total: int) -> tuple[Tensor, Tensor]:
    mask = torch.arange(total) < torch.tensor(lengths)[:, None]
    return torch.randint(1, 20, mask.shape).masked_fill(~mask, 0), mask.long()


@pytest.mark.parametrize("factory", [*FACTORIES, lambda *sizes: bilstm(*sizes, layers=2)])
def test_filling_changes_nothing(factory: Factory) -> None:
    torch.manual_seed(0)
    model = factory(3, 20).eval()
    ids, mask = batch([7, 4, 1], 7)
    more_ids, more_mask = (nn.functional.pad(each, (0, 9)) for each in (ids, mask))
    short = model(ids, mask)
    torch.testing.assert_close(model(more_ids, more_mask), short, atol=1e-6, rtol=0)
    torch.testing.assert_close(model(ids.masked_fill(mask == 0, 13), mask), short, atol=1e-6, rtol=0)
    torch.testing.assert_close(model(ids[1:2, :4], mask[1:2, :4]), short[1:2], atol=1e-6, rtol=0)


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_order_of_words_counts(factory: Factory) -> None:
    model = factory(3, 20).eval()
    ids, mask = batch([7], 7)
    assert not torch.allclose(model(ids, mask), model(ids.flip(1), mask))


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_text_of_filling_alone_or_of_one_token_has_a_finite_answer_and_gradient(factory: Factory) -> None:
    model = factory(3, 20)
    logits = model(*batch([0, 1], 4))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_window_sees_as_many_words_as_its_kernel() -> None:
    model = word_cnn(2, 20, width=4, kernels=(2,)).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    taps = Tapped(model, ("embedding",))
    features = taps({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["embedding"]
    weight, bias = model.convolutions[0].weight, model.convolutions[0].bias
    words = nn.functional.pad(model.words(ids)[0], (0, 0, 1, 1))
    windows = [weight[:, :, 0] @ words[at] + weight[:, :, 1] @ words[at + 1] + bias for at in range(5)]
    torch.testing.assert_close(features[0], torch.stack(windows).relu().amax(0))


def test_a_window_of_filling_alone_does_not_count() -> None:
    # Every word is 1, every weight -1, the bias 5: a window of n words gives 5 - n. The best with a word gives 4.
    model = word_cnn(2, 20, width=1, kernels=(3,), embedding=1).eval()
    for tensor, value in ((model.words.weight, 1), (model.convolutions[0].weight, -1), (model.convolutions[0].bias, 5)):
        nn.init.constant_(tensor, value)
    ids, mask = batch([6, 2, 1], 9)
    features = Tapped(model, ("embedding",))({"input_ids": ids, "attention_mask": mask})["embedding"]
    assert features.tolist() == [[4.0], [4.0], [4.0]]


def test_taps_read_words_tokens_and_the_embedding() -> None:
    ids, mask = batch([5, 2], 5)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    read = Tapped(bilstm(3, 20, width=6, embedding=8), ("words", "lstm", "hidden", "embedding", "logits"))(inputs)
    shapes = {tap: tuple(tensor.shape) for tap, tensor in read.items()}
    assert shapes == {"words": (2, 5, 8), "lstm": (2, 5, 12), "hidden": (2, 6), "embedding": (2, 6), "logits": (2, 3)}
    read = Tapped(word_cnn(3, 20, width=6), ("words", "embedding"))(inputs)
    assert read["embedding"].shape == (2, 18)


def test_the_vocabulary_of_the_tokenizer_reaches_the_factory_and_arguments_say_more() -> None:
    source = "distill.models.text:bilstm"
    loaded = load_model(source, num_classes=2, in_channels=None, vocab_size=33)
    assert loaded.model.words.num_embeddings == 33
    loaded = load_model(source, num_classes=2, in_channels=None, vocab_size=33, arguments={"vocab_size": 44})
    assert loaded.model.words.num_embeddings == 44


def test_counts_and_dropout_that_can_not_be_are_refused() -> None:
    with pytest.raises(ValueError, match="bilstm needs counts of at least 1, got 0"):
        bilstm(2, 0)
    with pytest.raises(ValueError, match="word_cnn needs counts of at least 1, got 0"):
        word_cnn(2, 9, kernels=())
    with pytest.raises(ValueError, match=r"dropout in \[0, 1\), got 1"):
        bilstm(2, 9, dropout=1.0)
