import pytest
import torch
from torchvision.models import ResNet18_Weights

from distill.data import ImageNet


@pytest.fixture
def folder(tmp_path, write_image):
    def make(synsets: list[str]):
        for seed, synset in enumerate(synsets):
            for number in range(4):
                write_image(tmp_path / "train" / synset / f"{synset}_{number}.JPEG", width=8, height=8, seed=seed)
            write_image(tmp_path / "val" / synset / f"ILSVRC2012_val_{seed:08d}.JPEG", width=8, height=8)
        return str(tmp_path)

    return make


def test_val_is_the_test_and_synsets_name_the_classes_of_a_subset(folder):
    splits = ImageNet(folder(["n02085620", "n01440764", "n02123045"]), size=16, validation=0.25).load(0, None)
    assert splits.classes == ("n01440764", "n02085620", "n02123045")
    assert [len(examples) for examples in (splits.train, splits.validation, splits.test)] == [9, 3, 3]
    assert torch.bincount(splits.validation.labels).tolist() == [1, 1, 1]
    assert splits.train[0, 0].image.shape == (3, 16, 16)


def test_all_synsets_bear_the_names_of_pretrained_models(tmp_path):
    for split in ("train", "val"):
        for number in range(1000):
            path = tmp_path / split / f"n{number:08d}" / "0.JPEG"
            path.parent.mkdir(parents=True)
            path.touch()
            if split == "train":
                (path.parent / "1.JPEG").touch()
    splits = ImageNet(str(tmp_path), validation=0.1).load(0, None)
    assert list(splits.classes) == ResNet18_Weights.IMAGENET1K_V1.meta["categories"]


def test_folders_that_are_no_synsets_are_refused(folder):
    with pytest.raises(ValueError, match="Use ImageFolder"):
        ImageNet(folder(["n01440764", "cat"])).load(0, None)
    with pytest.raises(ValueError, match=r"ImageNet\.validation"):
        ImageNet(validation=0.0)


def test_val_needs_its_class_folders(folder, tmp_path, write_image):
    root = folder(["n01440764"])
    (tmp_path / "val" / "n01440764").rename(tmp_path / "elsewhere")
    write_image(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(ValueError, match="val has no class folders"):
        ImageNet(root).load(0, None)
