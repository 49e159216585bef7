"""ImageNet (ILSVRC 2012) and subsets of it, as torchvision lays them out."""

import re
from dataclasses import dataclass, field

from torchvision.models import ResNet18_Weights

from distill.data.examples import Splits
from distill.data.folders import find_folder
from distill.data.image_folder import class_names, read_split
from distill.data.mix import Mix
from distill.data.photos import Photos
from distill.data.split import check_share


@dataclass(frozen=True)
class ImageNet(Photos):
    """ImageNet's photographs in train/SYNSET/ and val/SYNSET/ (Russakovsky et al. 2015, arXiv:1409.0575).

    val is the test split, on which results are reported; the validation split is cut out of train. With all 1,000
    synsets the classes bear the names that torchvision's pretrained models give them; with fewer, the synsets' numbers.
    Files are not verified unless asked for: decoding them all once takes a core a quarter of an hour and more.

    folder: relative ones under $DISTILL_DATA, ./data, ../shared/data.
    validation: the share of train that is cut out class by class.
    """

    folder: str = "imagenet"
    validation: float = 0.01
    verify: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("ImageNet.validation", self.validation)

    def load(self, seed: int, mix: Mix | None) -> Splits:
        """The splits; images are uint8 (3, size, size)."""
        root = find_folder(self.folder)
        synsets = class_names(root, "train")
        strangers = [name for name in synsets if not re.fullmatch(r"n\d{8}", name)]
        if strangers:
            raise ValueError(f"{root / 'train' / strangers[0]} is not named by a synset as n01440764. Use ImageFolder.")
        train = self.checked(read_split(root, "train", synsets), synsets, "train")
        test = self.checked(read_split(root, "val", synsets), synsets, "test")
        size = round(self.validation * len(train.labels))
        train, validation = train.cut(size, seed=self.split_seed, name="ImageNet.validation")
        # torchvision numbers ImageNet's classes by their sorted synsets.
        categories: list[str] = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
        classes = categories if len(synsets) == len(categories) else synsets
        return self.splits(train=train, validation=validation, test=test, classes=classes, seed=seed, mix=mix)
