import dataclasses

import pytest
import torch

import distill.data.images
from distill.data import CenterCrop, Flip, ImageFolder, RandomResizedCrop, Resize
from distill.data.augment import transformed
from distill.data.image_cache import CachedImages


@pytest.fixture
def folder(tmp_path, write_image, monkeypatch):
    """Photographs of several sizes, of which the shorter side is the height, the width, or neither."""
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    for split in ("train", "val", "test"):
        for number, (width, height) in enumerate([(40, 30), (25, 60), (32, 32)] * 2):
            path = tmp_path / "data" / split / "ab"[number % 2] / f"{number}.png"
            write_image(path, width=width, height=height, seed=number + ord(split[-1]))
    return tmp_path / "data"


def test_evaluation_sees_to_the_bit_what_it_sees_without_packing(folder):
    data = ImageFolder(str(folder), size=16)
    plain, kept = data.load(0, None), dataclasses.replace(data, packed=24).load(0, None)
    keys = [(0, index) for index in range(6)]
    for name in ("validation", "test"):
        one, other = getattr(plain, name).__getitems__(keys), getattr(kept, name).__getitems__(keys)
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.labels, other.labels)
    one, other = (
        dataclasses.replace(data, augment=False, packed=packed).load(0, None).train.__getitems__(keys)
        for packed in (None, 24)
    )
    assert torch.equal(one.inputs, other.inputs)


def test_training_takes_a_random_part_of_the_square_in_the_middle(folder):
    data = ImageFolder(str(folder), size=16)
    plain, kept = data.load(3, None).train, dataclasses.replace(data, packed=24).load(3, None).train
    keys = [(epoch, index) for epoch in range(3) for index in range(6)]
    squares = [CenterCrop(24)(Resize(24)(plain.images[index])) for _, index in keys]
    expected = transformed(torch.stack(squares), (RandomResizedCrop(16), Flip()), keys, seed=3)
    assert torch.equal(kept.__getitems__(keys).inputs, expected)


def test_files_are_decoded_once_for_all_runs(folder, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        distill.data.images,
        "_read",
        lambda path, _read=distill.data.images._read, **kind: decoded.append(path) or _read(path, **kind),
    )
    data = ImageFolder(str(folder), size=16, packed=24)
    data.load(0, None)
    # Besides each once, the first of a kind is looked at for its shape: of training, and of validation and test.
    assert len(decoded) == 18 + 2
    decoded.clear()
    splits = data.load(1, None)
    splits.train.__getitems__([(epoch, index) for epoch in range(2) for index in range(6)])
    assert isinstance(splits.train.images, CachedImages)
    assert decoded == []


def test_an_unreadable_image_is_named_with_the_way_out_or_left_out(folder):
    (folder / "train" / "a" / "2.png").write_bytes(b"broken")
    data = ImageFolder(str(folder), size=16, packed=24)
    with pytest.raises(ValueError, match=r"train/a/2\.png.*skip_unreadable=True"):
        data.load(0, None)
    with pytest.warns(UserWarning, match=r"1 of 6 images of the train split are unreadable"):
        assert len(dataclasses.replace(data, skip_unreadable=True).load(0, None).train) == 5
