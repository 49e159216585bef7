"""Data sets of texts from the Hugging Face hub, by name."""

import re
from dataclasses import dataclass
from typing import Any

from distill.data.mix import Mix
from distill.data.split import check_share
from distill.data.text_cut import check_split, class_names, cut_splits, duplicates, numbered
from distill.data.text_files import check_length
from distill.data.texts import TextPart, TextSettings, TextSplits
from distill.messages import nearest, one_line

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def fetch(name: str, subset: str | None, split: str, revision: str | None) -> Any:
    """A split as `datasets` loads it, from its cache where it has it; no code of the data set's is run.

    Raises:
        ValueError: `datasets` is not installed, the hub cannot be reached, or it has no such set, subset or split.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise ValueError(f"HubText({name!r}) needs datasets. Install it: pip install 'distill[text]'.") from None
    try:
        return load_dataset(name, subset, split=split, revision=revision, trust_remote_code=False)
    # The hub's client, the network and the file formats each bring errors of their own.
    except Exception as error:
        asked = ", ".join(part for part in (name, subset, f"split {split!r}") if part)
        raise ValueError(
            f"Cannot load {asked} from the Hugging Face hub: {one_line(error) or type(error).__name__}. "
            f"Check the name and the network, or read files with TextTable."
        ) from error


@dataclass(frozen=True)
class HubText(TextSettings):
    """A set of texts with labels from the Hugging Face hub, or from its cache on this machine.

    name: as the hub has it, such as "stanfordnlp/imdb".
    subset: the set's configuration, where it has several.
    revision: a commit or tag of the set; None takes the latest.
    train: the split to train on, as the set names it.
    validation, test: a split of the set, or the share of the training texts that is cut out, drawn by `split_seed`.
    text, label: the names of the columns.
    """

    name: str
    subset: str | None = None
    revision: str | None = None
    train: str = "train"
    validation: str | float = 0.1
    test: str | float = "test"
    text: str = "text"
    label: str = "label"

    def __post_init__(self) -> None:
        super().__post_init__()
        if _NAME.fullmatch(self.name) is None or ".." in self.name:
            raise ValueError(f"HubText.name is 'set' or 'owner/set', got {self.name!r}. Files are for TextTable.")
        check_split("HubText.validation", self.validation)
        check_split("HubText.test", self.test)
        if not isinstance(self.validation, str) and not isinstance(self.test, str):
            check_share("HubText.validation + test", self.validation + self.test)

    def load(self, seed: int, mix: Mix | None) -> TextSplits:
        """The splits; classes are named by the set, and else by its labels."""
        self.check_no_mix(mix)
        names, texts, labels = self._columns(self.train)
        values = names or class_names([label for label in labels if label], f"{self.name}, column {self.label!r},")

        def part(split: str) -> TextPart:
            known, of_split, its_labels = (names, texts, labels) if split == self.train else self._columns(split)
            if known != names:
                raise ValueError(f"{self.name}, split {split}: its classes are not those of {self.train}.")
            return numbered(of_split, its_labels, values, lambda row: f"{self.name}, split {split}, row {row + 1}")

        train, validation, test = cut_splits(
            part(self.train),
            part(self.validation) if isinstance(self.validation, str) else self.validation,
            part(self.test) if isinstance(self.test, str) else self.test,
            seed=self.split_seed,
            name="HubText",
        )
        notes = duplicates(train, validation, test)
        return self.splits(train=train, validation=validation, test=test, classes=values, notes=notes)

    def _columns(self, split: str) -> tuple[tuple[str, ...], list[str], list[str]]:
        """The names of the classes, where the set has them, and texts and labels as names; no label is ""."""
        read = fetch(self.name, self.subset, split, self.revision)
        for column in (self.text, self.label):
            if column not in read.column_names:
                like = nearest(column, read.column_names)
                raise ValueError(f"{self.name}, split {split}, has no column {column!r}. Nearest: {like}.")
        from datasets import ClassLabel

        kind = read.features[self.label]
        names = tuple(kind.names) if isinstance(kind, ClassLabel) else ()
        texts = ["" if text is None else str(text).strip() for text in read[self.text]]
        for row, text in enumerate(texts):
            check_length(text, f"{self.name}, split {split}, row {row + 1}")
        if not names:
            return names, texts, ["" if label is None else str(label) for label in read[self.label]]
        # Hidden labels are -1.
        return names, texts, [names[label] if label is not None and label >= 0 else "" for label in read[self.label]]
