"""IMDB: whole film reviews, one file each."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from distill.data.folders import find_folder, inside
from distill.data.images import in_threads
from distill.data.mix import Mix
from distill.data.split import check_share
from distill.data.text_cut import cut_share, duplicates, with_unlabelled
from distill.data.text_files import check_length, read_text
from distill.data.texts import TextPart, TextSettings, TextSplits

CLASSES = ("negative", "positive")

_NAME = re.compile(r"(\d+)_(\d+)\.txt")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def clean(review: str) -> str:
    """The review on one line, with blanks for its `<br />`."""
    return " ".join(_BREAK.sub(" ", review).split())


def read_reviews(root: Path, folder: str) -> list[str]:
    """The reviews in `root`/`folder`, whose files are ID_RATING.txt, in the order of their ids.

    Raises:
        ValueError: no such folder, no file in it, one of another name, one that is no UTF-8, or a link that leads out.
    """
    place = inside(root, root / folder)
    if not place.is_dir():
        raise ValueError(f"{root} has no folder {folder!r}. Imdb reads train/pos, train/neg, test/pos and test/neg.")
    found = []
    for entry in place.iterdir():
        if entry.name.startswith("."):
            continue
        match = _NAME.fullmatch(entry.name)
        if match is None or not inside(root, entry).is_file():
            raise ValueError(f"{entry} is no review: expected files ID_RATING.txt. Move it elsewhere.")
        found.append((int(match[1]), entry.name))
    if not found:
        raise ValueError(f"{place} has no reviews. They lie in files ID_RATING.txt.")
    paths = [place / name for _, name in sorted(found)]

    def read(rows: range) -> list[str]:
        texts = [clean(read_text(paths[row])) for row in rows]
        for row, text in zip(rows, texts, strict=True):
            check_length(text, str(paths[row]))
        return texts

    parts = in_threads(read, len(paths), description=f"Reading {folder}")
    return [text for part in parts for text in part]


def read_split(root: Path, split: str) -> TextPart:
    """The reviews of a split, negative ones first, with 0 and 1."""
    texts = [read_reviews(root, f"{split}/{name}") for name in ("neg", "pos")]
    labels = torch.repeat_interleave(torch.tensor([len(of_class) for of_class in texts]))
    return TextPart([*texts[0], *texts[1]], labels)


@dataclass(frozen=True)
class Imdb(TextSettings):
    """Large Movie Review Dataset (Maas et al. 2011): 25,000 reviews to train on and 25,000 to test, a file for each.

    The set has no validation split: it is cut out of the training reviews class by class.

    folder: relative ones under $DISTILL_DATA, ./data, ../shared/data. It holds train and test, or aclImdb with them.
    validation: the share of the training reviews that is cut out.
    unlabelled: the 50,000 reviews of train/unsup are trained on too, by soft targets alone.
    """

    folder: str = "aclImdb"
    validation: float = 0.1
    unlabelled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("Imdb.validation", self.validation)

    def load(self, seed: int, mix: Mix | None) -> TextSplits:
        """The splits, of the classes negative and positive; `<br />` became a blank."""
        self.check_no_mix(mix)
        root = find_folder(self.folder)
        root = root / "aclImdb" if (root / "aclImdb").is_dir() else root
        train, test = read_split(root, "train"), read_split(root, "test")
        further = read_reviews(root, "train/unsup") if self.unlabelled else []
        size = round(self.validation * len(train.labels))
        train, validation = cut_share(train, size, seed=self.split_seed, name="Imdb.validation")
        train = with_unlabelled(train, further)
        notes = duplicates(train, validation, test)
        return self.splits(train=train, validation=validation, test=test, classes=CLASSES, notes=notes)
