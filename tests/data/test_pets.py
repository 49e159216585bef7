import pytest
import torch
from torchvision.datasets import OxfordIIITPet

from distill.data import Pets

# Name of the breed, its number, and its species: 1 cat, 2 dog. Dogs are written in lower case.
BREEDS = [("Abyssinian", 1, 1), ("american_bulldog", 2, 2), ("Bengal", 3, 1), ("great_pyrenees", 4, 2)]


@pytest.fixture
def pets(tmp_path, write_image):
    folder = tmp_path / "oxford-iiit-pet"
    for split, numbers in (("trainval", range(1, 6)), ("test", range(6, 8))):
        lines = []
        for name, breed, species in BREEDS:
            for number in numbers:
                write_image(folder / "images" / f"{name}_{number}.jpg", seed=100 * breed + number)
                lines.append(f"{name}_{number} {breed} {species} 1")
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(("by", "target"), [("breed", "category"), ("species", "binary-category")])
def test_labels_and_names_are_torchvision_s(pets, by, target):
    splits = Pets(folder=str(pets), by=by, size=16, validation=0.2).load(0, None)
    theirs = OxfordIIITPet(pets.parent, split="test", target_types=target)
    assert list(splits.classes) == (theirs.classes if by == "breed" else theirs.bin_classes)
    assert splits.test.labels.tolist() == [theirs[row][1] for row in range(len(theirs))]
    for row in range(len(theirs)):
        expected = torch.tensor(list(theirs[row][0].getdata()), dtype=torch.uint8).view(30, 40, 3).permute(2, 0, 1)
        assert torch.equal(splits.test.images[row], expected)


def test_validation_is_cut_out_of_trainval_class_by_class(pets):
    splits = Pets(folder=str(pets), size=16, validation=0.2).load(0, None)
    assert [len(examples) for examples in (splits.train, splits.validation, splits.test)] == [16, 4, 8]
    assert torch.bincount(splits.validation.labels).tolist() == [1, 1, 1, 1]
    assert splits.train[0, 0].image.shape == (3, 16, 16)


def test_comments_and_blank_lines_are_passed_over(pets):
    path = pets / "annotations" / "test.txt"
    path.write_text("#Image CLASS-ID SPECIES BREED ID\n\n" + path.read_text())
    assert len(Pets(folder=str(pets), size=16, validation=0.2).load(0, None).test) == 8


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Abyssinian_1 1 1", r"test\.txt, line 1: expected"),
        ("Abyssinian_1 one 1 1", r"test\.txt, line 1: expected"),
        ("Abyssinian_1 0 1 1", r"test\.txt, line 1: expected"),
        ("Abyssinian_1 1 3 1", r"test\.txt, line 1: expected"),
        ("Abyssinian_99 1 1 1", r"line 1: there is no image .*Abyssinian_99\.jpg"),
        ("../../secret 1 1 1", "leads out"),
        ("", "lists no images"),
        ("Abyssinian_1 5 1 1", "labels from 4 to 4"),
    ],
)
def test_wrong_lists_are_refused(pets, line, words):
    (pets / "annotations" / "test.txt").write_text(line + "\n")
    with pytest.raises(ValueError, match=words):
        Pets(folder=str(pets), size=16, validation=0.2).load(0, None)


def test_a_list_that_misses_a_breed_is_refused(pets):
    path = pets / "annotations" / "trainval.txt"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "Bengal" not in line))
    with pytest.raises(ValueError, match="no image of breed 3"):
        Pets(folder=str(pets), size=16).load(0, None)


def test_an_unreadable_image_is_named_or_counted(pets):
    (pets / "images" / "Bengal_7.jpg").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"Bengal_7\.jpg"):
        Pets(folder=str(pets), size=16, validation=0.2).load(0, None)
    with pytest.warns(UserWarning, match="1 of 8 images of the test split"):
        splits = Pets(folder=str(pets), size=16, validation=0.2, skip_unreadable=True).load(0, None)
    assert len(splits.test) == 7


def test_settings_and_folders_without_sense_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Pets\.by"):
        Pets(by="colour")
    with pytest.raises(ValueError, match=r"Pets\.validation"):
        Pets(validation=1.0)
    with pytest.raises(ValueError, match=r"trainval\.txt is missing"):
        Pets(folder=str(tmp_path)).load(0, None)
