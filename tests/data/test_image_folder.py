import pytest
import torch

from distill.data import ImageFolder, Mix


@pytest.fixture
def folder(tmp_path, write_image):
    """A data set with ten training images of each of two classes, and two images each in the other splits asked for."""

    def make(*splits: str, train: int = 10):
        for seed, split in enumerate(("train", *splits)):
            for number in range(train if split == "train" else 2):
                for class_name in ("b dog", "a_cat"):
                    write_image(tmp_path / split / class_name / f"{number}.png", seed=100 * seed + number)
        return tmp_path

    return make


def sizes(splits) -> list[int]:
    return [len(splits.train), len(splits.validation), len(splits.test)]


def sources(examples) -> set[str]:
    return {str(examples.images.path(row).relative_to(examples.images.root)) for row in range(len(examples))}


@pytest.mark.parametrize("name", ["validation", "val", "valid"])
def test_three_folders_are_three_splits(folder, name):
    splits = ImageFolder(str(folder(name, "test")), size=16).load(0, None)
    assert sizes(splits) == [20, 4, 4]
    assert splits.classes == ("a_cat", "b dog")
    assert all(source.startswith(f"{name}/") for source in sources(splits.validation))
    assert all(source.startswith("test/") for source in sources(splits.test))
    assert splits.test.labels.tolist() == [0, 0, 1, 1]


def test_without_a_test_folder_the_validation_folder_is_the_test(folder):
    splits = ImageFolder(str(folder("val")), size=16).load(0, None)
    assert sizes(splits) == [18, 2, 4]
    assert all(source.startswith("val/") for source in sources(splits.test))
    assert torch.bincount(splits.validation.labels).tolist() == [1, 1]


def test_without_a_validation_folder_a_share_of_train_is_cut_out(folder):
    splits = ImageFolder(str(folder("test")), size=16, validation=0.3).load(0, None)
    assert sizes(splits) == [14, 6, 4]


def test_train_alone_is_cut_in_three(folder):
    root = str(folder())
    splits = ImageFolder(root, size=16, validation=0.2, test=0.3).load(0, None)
    assert sizes(splits) == [10, 4, 6]
    parts = [sources(examples) for examples in (splits.train, splits.validation, splits.test)]
    assert len(set.union(*parts)) == 20
    again = ImageFolder(root, size=16, validation=0.2, test=0.3).load(9, None)
    assert sources(again.test) == parts[2]
    assert sources(ImageFolder(root, size=16, test=0.3, split_seed=1).load(0, None).test) != parts[2]


def test_images_are_cropped_to_one_size(folder):
    splits = ImageFolder(str(folder("val")), size=16).load(0, None)
    train, test = splits.train[0, 0].image, splits.test[0, 0].image
    assert train.shape == test.shape == (3, 16, 16)
    assert train.dtype == test.dtype == torch.uint8
    assert not torch.equal(splits.train[1, 0].image, train)
    plain = ImageFolder(str(folder("val")), size=16, augment=False).load(0, Mix(cutmix=1.0)).train
    assert torch.equal(plain.crop(0, 0), plain.crop(1, 0))
    assert plain[0, 0].image.shape == (3, 16, 16)


@pytest.mark.parametrize("skip", [False, True])
def test_an_unreadable_image_is_named_or_counted(folder, skip):
    root = folder("val")
    (root / "train" / "a_cat" / "3.png").write_bytes(b"broken")
    (root / "train" / "b dog" / "4.png").write_bytes(b"broken")
    data = ImageFolder(str(root), size=16, skip_unreadable=skip)
    if not skip:
        with pytest.raises(
            ValueError, match=r"a_cat/3\.png.*1 more cannot be read either.*skip_unreadable=True"
        ) as error:
            data.load(0, None)
        assert "\n" not in str(error.value)
        return
    with pytest.warns(
        UserWarning, match=r"2 of 20 images of the train split are unreadable and left out.*a_cat/3\.png"
    ):
        splits = data.load(0, None)
    assert sizes(splits) == [16, 2, 4]
    assert not {"train/a_cat/3.png", "train/b dog/4.png"} & (sources(splits.train) | sources(splits.validation))
    assert torch.bincount(splits.train.labels).sum() == 16


def test_without_the_check_an_unreadable_image_is_named_when_met(folder):
    root = folder("test")
    (root / "test" / "a_cat" / "0.png").write_bytes(b"broken")
    test = ImageFolder(str(root), size=16, verify=False).load(0, None).test
    with pytest.raises(ValueError, match=r"test/a_cat/0\.png"):
        test[0, 0]


def test_every_split_has_the_classes_of_train(folder, write_image):
    root = folder("val", "test")
    write_image(root / "test" / "fox" / "0.png")
    with pytest.raises(ValueError, match="test adds fox"):
        ImageFolder(str(root), size=16).load(0, None)
    write_image(root / "train" / "fox" / "0.png")
    with pytest.raises(ValueError, match="val lacks fox"):
        ImageFolder(str(root), size=16).load(0, None)


def test_wrong_layouts_are_refused(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="no folder 'train'"):
        ImageFolder(str(empty)).load(0, None)
    (empty / "train").mkdir()
    with pytest.raises(ValueError, match="no class folders"):
        ImageFolder(str(empty)).load(0, None)
    (empty / "train" / "a").mkdir()
    with pytest.raises(ValueError, match=r"train/a has no images"):
        ImageFolder(str(empty)).load(0, None)
    with pytest.raises(ValueError, match="validation and val"):
        ImageFolder(str(folder("val", "validation"))).load(0, None)


def test_links_out_of_the_folder_are_refused(folder, tmp_path_factory, write_image):
    root, outside = folder("val"), tmp_path_factory.mktemp("outside")
    write_image(outside / "x" / "secret.png")
    link = root / "train" / "a_cat" / "secret.png"
    link.symlink_to(outside / "x" / "secret.png")
    with pytest.raises(ValueError, match="leads out"):
        ImageFolder(str(root), size=16).load(0, None)
    link.unlink()
    for name in ("train/c", "test"):
        (root / name).symlink_to(outside)
        with pytest.raises(ValueError, match="leads out"):
            ImageFolder(str(root), size=16).load(0, None)
        (root / name).unlink()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"validation": 0.0}, "ImageFolder.validation"),
        ({"validation": -0.2}, "ImageFolder.validation"),
        ({"test": 1.0}, "ImageFolder.test"),
        ({"validation": 0.6, "test": 0.4}, "nothing to train on"),
        ({"size": 0}, "ImageFolder.size"),
        ({"size": 64, "resize": 32}, "resize=32"),
        ({"size": 64, "packed": 63}, "packed=63 is smaller than the crop"),
        ({"skip_unreadable": True, "verify": False}, "verify=True"),
    ],
)
def test_settings_without_sense_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        ImageFolder("x", **settings)


@pytest.mark.parametrize(
    ("splits", "settings", "words"),
    [
        (("val", "test"), {"validation": 0.2}, "'val' is the validation split"),
        (("test",), {"test": 0.2}, "'test' is the test split"),
        (("val",), {"test": 0.2}, "'val' is the test split"),
        (("val",), {"validation": 0.01}, "cuts 0 of 20"),
    ],
)
def test_a_share_without_effect_or_examples_is_refused(folder, splits, settings, words):
    with pytest.raises(ValueError, match=words):
        ImageFolder(str(folder(*splits)), size=16, **settings).load(0, None)
