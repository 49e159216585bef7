"""Oxford-IIIT Pet: photographs of 37 breeds of cats and dogs, as torchvision lays them out."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from distill.data.examples import Splits
from distill.data.folders import find_folder, inside
from distill.data.images import Files
from distill.data.mix import Mix
from distill.data.photos import Listing, Photos
from distill.data.split import check_share
from distill.data.text_files import read_text

_BREED = re.compile(r"0*[1-9][0-9]{0,2}")


@dataclass(frozen=True)
class Line:
    """One image of an official list: its name, and its breed and species numbered from 0."""

    name: str
    breed: int
    species: int


def read_list(root: Path, split: str) -> list[Line]:
    """The images of annotations/SPLIT.txt, whose lines are `NAME_number breed species number`, counted from 1.

    Raises:
        ValueError: no such list, another form of line, or an image that is missing or lies elsewhere.
    """
    path = inside(root, root / "annotations" / f"{split}.txt")
    if not path.is_file():
        raise ValueError(f"{path} is missing. Pets reads images/ and annotations/ as torchvision downloads them.")
    lines = []
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        if not text.strip() or text.startswith("#"):
            continue
        match text.split():
            case [name, breed, species, _] if _BREED.fullmatch(breed) and species in ("1", "2"):
                lines.append(Line(name, int(breed) - 1, int(species) - 1))
            case _:
                raise ValueError(f"{path}, line {number}: expected 'NAME_1 breed species number', got {text[:80]!r}.")
        image = inside(root, root / "images" / f"{lines[-1].name}.jpg")
        if not image.is_file():
            raise ValueError(f"{path}, line {number}: there is no image {image}.")
    if not lines:
        raise ValueError(f"{path} lists no images.")
    return lines


@dataclass(frozen=True)
class Pets(Photos):
    """Oxford-IIIT Pet (Parkhi et al. 2012): images/NAME_number.jpg, and annotations/trainval.txt and test.txt.

    The validation split is cut out of trainval class by class. What `torchvision.datasets.OxfordIIITPet` downloads
    fits.

    folder: relative ones under $DISTILL_DATA, ./data, ../shared/data.
    by: "breed", 37 classes, or "species", cat and dog.
    validation: the share of trainval that is cut out.
    """

    folder: str = "oxford-iiit-pet"
    by: Literal["breed", "species"] = "breed"
    validation: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.by not in ("breed", "species"):
            raise ValueError(f"Pets.by is 'breed' or 'species', got {self.by!r}.")
        check_share("Pets.validation", self.validation)

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits; images are uint8 (3, size, size)."""
        root = find_folder(self.folder)
        lines = read_list(root, "trainval")
        breeds = {line.breed: line.name.rsplit("_", 1)[0].replace("_", " ").title() for line in lines}
        gaps = sorted(set(range(max(breeds) + 1)) - set(breeds))
        if gaps:
            raise ValueError(
                f"{root}/annotations/trainval.txt has no image of breed {gaps[0] + 1}. Is the list complete?"
            )
        classes = ("Cat", "Dog") if self.by == "species" else tuple(breeds[number] for number in sorted(breeds))
        trainval = self.checked(self._listing(root, lines), classes, "trainval")
        test = self.checked(self._listing(root, read_list(root, "test")), classes, "test")
        size = round(self.validation * len(trainval.labels))
        train, validation = trainval.cut(size, seed=self.split_seed, name="Pets.validation")
        return self.splits(train=train, validation=validation, test=test, classes=classes, seed=seed, mix=mix)

    def _listing(self, root: Path, lines: list[Line]) -> Listing:
        labels = [line.species if self.by == "species" else line.breed for line in lines]
        return Listing(
            Files(root, [f"images/{line.name}.jpg" for line in lines]), torch.tensor(labels, dtype=torch.int64)
        )
