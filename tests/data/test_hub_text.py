import sys
from types import SimpleNamespace

import pytest
import torch

from distill.data.hub_text import HubText


def test_without_datasets_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ValueError, match=r"HubText\('imdb'\) needs datasets\. Install it: pip install 'distill\[text\]'"
    ):
        HubText(name="imdb").load(0, None)


def test_a_hub_out_of_reach_is_answered_in_one_line(monkeypatch):
    def load_dataset(*arguments, **settings):
        raise ConnectionError("Couldn't reach 'owner/set' on the Hub\n(LocalEntryNotFoundError)")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(
        ValueError, match=r"Cannot load owner/set, split 'train' from the Hugging Face hub: .*"
    ) as error:
        HubText(name="owner/set").load(0, None)
    assert "\n" not in str(error.value)
    assert "Couldn't reach 'owner/set' on the Hub (LocalEntryNotFoundError). Check the name" in str(error.value)


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "a/b/c", "", "..", "https://example.com/set"])
def test_what_is_no_name_of_a_set_is_refused(name):
    with pytest.raises(ValueError, match=r"HubText\.name is 'set' or 'owner/set'"):
        HubText(name=name)


@pytest.fixture
def datasets(monkeypatch):
    """The library, whose `load_dataset` gives a set of this test and never asks the network."""
    datasets = pytest.importorskip("datasets", reason="needs datasets, of the text extra")
    asked = []

    def load_dataset(name, subset, *, split, revision, trust_remote_code):
        assert trust_remote_code is False
        asked.append((name, subset, split, revision))
        kind = datasets.ClassLabel(names=["bad", "good"])
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": kind, "stars": datasets.Value("string")}
        )
        count = {"train": 20, "validation": 4, "test": 6, "hidden": 2}[split]
        labels = [-1 if split == "hidden" else number % 2 for number in range(count)]
        content = {
            "text": [f"{split} {number}" for number in range(count)],
            "label": labels,
            "stars": ["1", "5"] * (count // 2),
        }
        return datasets.Dataset.from_dict(content, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_splits_and_classes_are_those_of_the_set(datasets):
    splits = HubText(name="owner/set", subset="en", revision="v1", validation="validation").load(0, None)
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [20, 4, 6]
    assert splits.classes == ("bad", "good")
    assert splits.test.texts[1] == "test 1"
    assert splits.test.labels.tolist() == [0, 1] * 3
    assert datasets == [("owner/set", "en", split, "v1") for split in ("train", "validation", "test")]


def test_a_share_is_cut_out_of_training(datasets):
    splits = HubText(name="owner/set", validation=0.2, test=0.1, label="stars").load(0, None)
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [14, 4, 2]
    assert torch.bincount(splits.validation.labels).tolist() == [2, 2]
    assert splits.classes == ("1", "5")


def test_a_wrong_column_and_hidden_labels_are_named(datasets):
    with pytest.raises(ValueError, match=r"owner/set, split train, has no column 'txt'\. Nearest: text"):
        HubText(name="owner/set", text="txt").load(0, None)
    with pytest.raises(ValueError, match=r"owner/set, split hidden, row 1: there is no label\. Labels are bad, good"):
        HubText(name="owner/set", test="hidden").load(0, None)
