"""`transformers:` models: by configuration, pretrained, saved so that transformers alone loads them; and its errors."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distill.models import Loaded, load_model, save_student
from distill.models.weights import read_config
from distill.tokenize import WordPiece, load_tokenizer
from tests.tiny_bert import pretrained, transformers
from tests.tokenize.test_load import SENTENCES

SMALL = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
SIZES = {"distilbert": {"n_layers": 2, "dim": 16, "num_attention_heads": 2, "hidden_dim": 24}}


def load(name: str = "bert", **settings: Any) -> Loaded:
    settings = {"num_classes": 3, "in_channels": None, "arguments": SMALL, "vocab_size": 40, **settings}
    return load_model(f"transformers:{name}", **settings)


def answer(model: nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits  # type: ignore[no-any-return]


def own_config(**changes: Any) -> dict[str, Any]:
    config = {
        "source": "transformers:bert",
        "arguments": SMALL,
        "num_classes": 3,
        "in_channels": None,
        "classes": ["bad", "so-so", "好"],
        "view": None,
    }
    return {**config, **changes}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny BERT of three named classes, as transformers saves it."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40, **SMALL, id2label={0: "bad", 1: "so-so", 2: "good"}, label2id={"bad": 0, "so-so": 1, "good": 2}
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# Fresh ones


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "electra", "albert"])
def test_a_type_of_model_is_made_by_its_configuration(name: str) -> None:
    loaded = load(name, arguments=SIZES.get(name, SMALL))
    config = loaded.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size, config.num_labels) == (2, 16, 40, 3)
    assert answer(loaded.model, torch.randint(2, 40, (2, 5))).shape == (2, 3)
    assert {tensor.dtype for tensor in loaded.model.parameters()} == {torch.float32}
    assert (loaded.classes, loaded.view, loaded.note) == (None, None, "")


def test_settings_that_follow_from_others_follow_the_arguments() -> None:
    arguments = {**SMALL, "num_hidden_layers": 3, "pad_token_id": 0}
    model = load("modernbert", arguments=arguments).model
    assert len(model.config.layer_types) == len(model.model.layers) == 3


def test_arguments_say_more_than_tokenizer_and_data() -> None:
    model = load(arguments={**SMALL, "vocab_size": 60, "num_labels": 5}).model
    assert (model.config.vocab_size, model.config.num_labels) == (60, 5)


def test_a_folder_gives_its_configuration_without_its_weights(folder: Path) -> None:
    loaded = load(str(folder), num_classes=2, arguments={"num_hidden_layers": 1}, vocab_size=50)
    config = loaded.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size, config.num_labels) == (1, 16, 50, 2)
    words = load_file(folder / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    assert not torch.equal(loaded.model.get_input_embeddings().weight[:40], words)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("bert", {"num_hiden_layers": 2}, r"no setting 'num_hiden_layers'. Nearest: num_hidden_layers"),
        ("bert", {"num_hidden_layers": "2"}, r"can't have the arguments .*'num_hidden_layers' expected int, got str"),
        ("bert", {"hidden_size": 10, "num_attention_heads": 4}, r"can't be made .*\(10\) is not a multiple of .*\(4\)"),
        ("bert", {"num_classes": 2}, r"no setting 'num_classes'. Nearest: num_labels"),
        ("clip", {}, r"transformers:clip can't be made as a classifier of texts: Unrecognized configuration"),
        ("./bert", {}, r"There is no folder ./bert for transformers:./bert"),
    ],
)
def test_what_can_not_be_made_is_one_line(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(name, arguments=arguments, vocab_size=None)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("weights", [None, "pretrained"])
def test_a_hub_that_can_not_be_reached_is_one_line(weights: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = (
        r"transformers:bertt can't be read: there is no folder bertt, and the hub can't be reached .*Nearest: bert"
    )
    with pytest.raises(ValueError, match=message) as caught:
        load("bertt", weights=weights, arguments={})
    assert "\n" not in str(caught.value)


def test_a_model_of_images_is_refused_for_texts() -> None:
    for source in ("torchvision:resnet18", "timm:resnet18"):
        with pytest.raises(ValueError, match=f"{source} is a model of images, and the data are texts. Take a model of"):
            load_model(source, num_classes=2, in_channels=None)


# Pretrained ones


def test_real_sentences_get_the_logits_that_transformers_gives_them() -> None:
    place, tokenizer = str(pretrained()), transformers.AutoTokenizer.from_pretrained(pretrained())
    torch.manual_seed(3)
    own = load(place, weights="pretrained", num_classes=2, arguments={}).model.eval()
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(place, num_labels=2).eval()
    theirs.classifier.load_state_dict(own.classifier.state_dict())
    encoded = load_tokenizer(place).encode(SENTENCES, 32)
    batch = tokenizer(SENTENCES, truncation=True, max_length=32, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**batch).logits
    for number in range(len(SENTENCES)):
        logits = answer(own, encoded.text(number)[None])
        torch.testing.assert_close(logits[0], expected[number], atol=1e-5, rtol=0)


def test_the_note_says_that_the_classifier_is_fresh_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    before = transformers.utils.logging.get_verbosity()
    loaded = load(str(pretrained()), weights="pretrained", num_classes=2, arguments={})
    assert loaded.note == f"transformers:{pretrained()} has its pretrained weights, but its classifier is fresh."
    assert (loaded.classes, loaded.fresh) == (None, "classifier")
    assert loaded.model.training
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.get_verbosity() == before
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_a_classifier_of_as_many_classes_is_kept_with_their_names(folder: Path) -> None:
    for num_classes in (3, None):
        loaded = load(str(folder), weights="pretrained", num_classes=num_classes, arguments={})
        saved = load_file(folder / "model.safetensors")
        assert torch.equal(loaded.model.classifier.weight, saved["classifier.weight"])
        assert (loaded.classes, loaded.fresh) == (("bad", "so-so", "good"), None)
        assert loaded.note.endswith("has its pretrained weights.")


def test_a_classifier_of_another_number_of_classes_is_fresh(folder: Path) -> None:
    loaded = load(str(folder), weights="pretrained", num_classes=2, arguments={})
    assert loaded.model.classifier.weight.shape == (2, 16)
    assert (loaded.classes, loaded.fresh) == (None, "classifier")
    assert "its classifier is fresh" in loaded.note
    assert len(loaded.model.config.id2label) == 2


def test_fewer_layers_take_the_first_and_the_note_names_the_rest(folder: Path) -> None:
    loaded = load(str(folder), weights="pretrained", arguments={"num_hidden_layers": 1})
    assert len(loaded.model.bert.encoder.layer) == 1
    assert "; 16 of its tensors are not used (bert.encoder.layer.1.attention.output.LayerNorm.bias, " in loaded.note
    assert loaded.note.endswith("and 13 more).")


def test_weights_of_a_language_model_leave_its_head_out(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "pooler" not in name and "classifier" not in name}
    head = {"cls.predictions.bias": torch.zeros(40)}
    save_file({**kept, **head}, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load(str(folder), weights="pretrained", arguments={})
    assert "but its classifier and its pooler are fresh; 1 of its tensors are not used (cls.predic" in loaded.note


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"hidden_size": 8},
            r"of another shape bert\.embeddings\.LayerNorm\.bias \(\(16,\) in the weights, \(8,\) here",
        ),
        ({"num_hidden_layers": 3}, r"missing bert\.encoder\.layer\.2\..* and 13 more"),
        (
            {"vocab_size": 30},
            r"bert\.embeddings\.word_embeddings\.weight \(\(40, 16\) in the weights, \(30, 16\) here\)",
        ),
    ],
)
def test_weights_that_do_not_fit_the_arguments_are_named(folder: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"do not fit its configuration with arguments .*{message}"):
        load(str(folder), weights="pretrained", arguments=arguments)


def test_half_precision_weights_become_single(folder: Path) -> None:
    tensors = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    change_config(folder, dtype="float16")
    model = load(str(folder), weights="pretrained", arguments={}).model
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    save_student(folder.parent / "student", model, own_config())
    assert json.loads((folder.parent / "student" / "config.json").read_text(encoding="utf-8"))["dtype"] == "float32"


def test_pickled_missing_and_damaged_weights_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"can't be loaded: .*header.* safetensors alone"):
        load(str(folder), weights="pretrained", arguments={})
    file.unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors, so there are no weights"):
        load(str(folder), weights="pretrained", arguments={})
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"has only pickled weights \(pytorch_model\.bin\), which could run code"):
        load(str(folder), weights="pretrained", arguments={})
    with pytest.raises(ValueError, match=r"has the weights 'pretrained', got 'DEFAULT'"):
        load(str(folder), weights="DEFAULT", arguments={})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a valid JSON file"),
        ("{}", "model_type None, which transformers .* does not know; code from a folder is never run"),
        ('{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}', "model_type 'mine'"),
        ('{"model_type": "bert", "vocab_size": "x"}', "can't have the arguments .*'vocab_size' expected int"),
        (None, "has no config.json, so it is no model of transformers"),
    ],
)
def test_a_folder_without_a_good_configuration_is_refused(folder: Path, text: str | None, message: str) -> None:
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load(str(folder), arguments={}, vocab_size=None)
    assert "\n" not in str(caught.value)


# A run's student


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
def test_transformers_alone_loads_a_student_and_its_tokenizer(name: str, tmp_path: Path) -> None:
    tokenizer = WordPiece(60).train(SENTENCES)
    arguments = {**SIZES.get(name, SMALL), "pad_token_id": 0}
    model = load(name, vocab_size=tokenizer.size, arguments=arguments).model
    save_student(tmp_path, model, own_config(source=f"transformers:{name}", arguments=arguments))
    tokenizer.save(tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    batch = transformers.AutoTokenizer.from_pretrained(tmp_path)(SENTENCES, padding=True, return_tensors="pt")
    encoded = tokenizer.encode(SENTENCES, 512)
    with torch.no_grad():
        expected = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    for number in range(len(SENTENCES)):
        logits = answer(model, encoded.text(number)[None])
        torch.testing.assert_close(logits[0], expected[number], atol=1e-5, rtol=0)
    assert theirs.config.id2label == {0: "bad", 1: "so-so", 2: "好"}
    assert theirs.config.label2id == {"bad": 0, "so-so": 1, "好": 2}
    assert theirs.config.architectures == [type(model).__name__]


def test_a_student_is_loaded_as_it_was_trained_whatever_became_of_its_source(folder: Path, tmp_path: Path) -> None:
    source = f"transformers:{folder}"
    model = load(str(folder), arguments={"num_hidden_layers": 1}, vocab_size=50).model
    config = own_config(source=source, arguments={"num_hidden_layers": 1})
    save_student(tmp_path / "run" / "student", model, config)
    assert read_config(tmp_path / "run" / "student") == config
    shutil.rmtree(folder)
    again = load(
        str(folder),
        weights=str(tmp_path / "run"),
        num_classes=None,
        arguments={"num_hidden_layers": 1},
        vocab_size=None,
    )
    assert again.classes == ("bad", "so-so", "好")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)
    with pytest.raises(ValueError, match="was trained for 3 classes, not for 2"):
        load(
            str(folder), weights=str(tmp_path / "run"), num_classes=2, arguments={"num_hidden_layers": 1}, vocab_size=50
        )


def test_a_students_folder_is_a_source_of_pretrained_weights(tmp_path: Path) -> None:
    model = load().model
    save_student(tmp_path, model, own_config())
    loaded = load(str(tmp_path), weights="pretrained", num_classes=None, arguments={})
    assert loaded.classes == ("bad", "so-so", "好")
    save_student(tmp_path / "next", loaded.model, own_config(source=f"transformers:{tmp_path}", arguments={}))
    assert read_config(tmp_path / "next")["source"] == f"transformers:{tmp_path}"


def test_weights_from_a_file_tell_their_number_of_classes(tmp_path: Path) -> None:
    model = load().model
    save_student(tmp_path, model, own_config())
    loaded = load(weights=str(tmp_path / "model.safetensors"), num_classes=None)
    ids = torch.randint(2, 40, (2, 5))
    assert torch.equal(answer(loaded.model, ids), answer(model, ids))


def test_a_folder_of_transformers_as_weights_says_where_it_goes(folder: Path) -> None:
    with pytest.raises(ValueError, match="named in the source, as in 'transformers:FOLDER' with weights='pretrained'"):
        load(weights=str(folder))


def test_a_run_on_texts_is_refused_for_images(tmp_path: Path) -> None:
    save_student(tmp_path, load().model, own_config())
    with pytest.raises(ValueError, match="was trained on texts, and these are images of 3 channels"):
        load(weights=str(tmp_path), in_channels=3)
