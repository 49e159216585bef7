"""Masked language models of transformers: fresh, pretrained, from a run, and as the encoder of a classifier."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from distill.models import Loaded, load_model, save_student
from tests.tiny_bert import transformers

SMALL = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
SIZES = {"distilbert": {"n_layers": 2, "dim": 16, "num_attention_heads": 2, "hidden_dim": 24}}
IDS = torch.tensor([[2, 5, 9, 3], [2, 7, 7, 3]])


def load(name: str = "bert", **settings: Any) -> Loaded:
    given = {"num_classes": None, "in_channels": None, "arguments": SMALL, "vocab_size": 40, "answers": "tokens"}
    return load_model(f"transformers:{name}", **{**given, **settings})


def answer(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits  # type: ignore[no-any-return]


def save(folder: Path, model: nn.Module, **changes: Any) -> Path:
    own = {"source": "transformers:bert", "arguments": SMALL, "num_classes": 0, "in_channels": None, "classes": []}
    save_student(folder, model, {**own, "view": None, **changes})
    return folder


@pytest.fixture
def general(tmp_path: Path) -> Path:
    """The student of a run that guessed tokens."""
    torch.manual_seed(0)
    return save(tmp_path / "general", load().model)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A masked language model and an encoder alone, as transformers saves them."""
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=40, **SMALL))
    model.save_pretrained(tmp_path / "whole")
    model.bert.save_pretrained(tmp_path / "encoder")
    return tmp_path


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "electra", "albert"])
def test_a_fresh_one_answers_each_token_and_its_words_are_tied(name: str) -> None:
    loaded = load(name, arguments=SIZES.get(name, SMALL))
    assert answer(loaded.model).shape == (2, 4, 40)
    words = loaded.model.get_input_embeddings().weight
    shaped = [one for one in loaded.model.parameters() if one.shape == words.shape]
    assert shaped == [words] or name == "electra"  # one parameter, so one state of the optimizer
    assert (loaded.classes, loaded.view, loaded.note, loaded.fresh) == (None, None, "", None)


def test_pretrained_weights_bring_what_guesses_tokens(folders: Path) -> None:
    loaded = load(str(folders / "whole"), weights="pretrained", arguments={})
    whole = transformers.BertForMaskedLM.from_pretrained(folders / "whole")
    assert torch.equal(answer(loaded.model), answer(whole))
    assert loaded.note.endswith("has its pretrained weights.") and loaded.fresh is None and loaded.classes is None


def test_an_encoder_alone_gets_fresh_guesses_and_says_so(folders: Path) -> None:
    loaded = load(str(folders / "encoder"), weights="pretrained", arguments={})
    assert "but what guesses its tokens is fresh" in loaded.note
    assert loaded.fresh is not None and loaded.fresh.startswith("cls.predictions")
    words = load_file(folders / "encoder" / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert torch.equal(loaded.model.get_input_embeddings().weight, words)
    assert torch.equal(loaded.model.get_output_embeddings().weight, words)


def test_a_student_comes_back_from_its_folder_to_us_and_to_transformers(general: Path) -> None:
    again = load(weights=str(general), answers="classes", vocab_size=None)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(general)
    assert torch.equal(answer(again.model), answer(theirs))
    assert again.classes is None
    assert again.model.get_output_embeddings().weight is again.model.get_input_embeddings().weight


def test_weights_of_a_file_do_not_have_to_show_classes(general: Path) -> None:
    loaded = load(weights=str(general / "model.safetensors"))
    assert torch.equal(answer(loaded.model), answer(load(weights=str(general)).model))


def test_a_classifier_takes_the_encoder_of_a_student_without_classes(general: Path) -> None:
    loaded = load(weights=str(general), num_classes=3, answers="classes")
    assert answer(loaded.model).shape == (2, 3)
    before = load_file(general / "model.safetensors")
    taken = {name for name, tensor in loaded.model.state_dict().items() if name in before}
    assert {name for name in before if name.startswith("bert.")} == taken
    assert all(torch.equal(loaded.model.state_dict()[name], before[name]) for name in taken)
    assert loaded.fresh == "classifier" and loaded.classes is None
    assert "has its encoder from" in loaded.note and "its classifier and its pooler are fresh" in loaded.note
    assert "of its tensors are not used (cls." in loaded.note


def test_a_classifier_is_not_made_of_another_student(general: Path) -> None:
    with pytest.raises(ValueError, match="Name the model as it was trained"):
        load(weights=str(general), num_classes=3, answers="classes", arguments={**SMALL, "num_hidden_layers": 1})


def test_a_damaged_encoder_is_named(general: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = load_file(general / "model.safetensors")
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, general / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"does not fit transformers:bert: bert\.encoder\.layer\.1\.output\.dense\.weight"
    ):
        load(weights=str(general), num_classes=3, answers="classes")


def test_what_can_not_guess_tokens_is_one_line() -> None:
    with pytest.raises(ValueError, match="transformers:clip can't be made as a masked language model: Unrecognized"):
        load("clip", arguments={}, vocab_size=None)
