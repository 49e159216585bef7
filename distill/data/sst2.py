"""SST-2: sentences of film reviews, as GLUE hands them out."""

from dataclasses import dataclass
from pathlib import Path

from distill.data.folders import find_folder
from distill.data.mix import Mix
from distill.data.split import check_share
from distill.data.text_cut import cut_share, duplicates, numbered
from distill.data.text_files import check_length, present, read_text
from distill.data.texts import TextPart, TextSettings, TextSplits

CLASSES = ("negative", "positive")


def read_sst2(path: Path) -> TextPart | None:
    """The sentences of a file, and 0 or 1 for each; None where GLUE keeps the labels for itself.

    Lines are `sentence<TAB>label`, below a header of these words or without one. Quotation marks are text. Only "\\n"
    ends a line: a sentence may hold what Unicode calls a line separator.

    Raises:
        ValueError: another form of line, a label that is neither 0 nor 1, or no sentences.
    """
    lines = read_text(path).split("\n")
    header = [name.strip() for name in lines[0].split("\t")]
    if header == ["index", "sentence"]:
        return None
    first = 1 if header == ["sentence", "label"] else 0
    texts, labels, numbers = [], [], []
    for number, line in enumerate(lines[first:], start=first + 1):
        if not line:
            continue
        check_length(line, f"{path}, line {number}")
        fields = line.split("\t")
        if len(fields) != 2:
            raise ValueError(f"{path}, line {number}: expected 'sentence<TAB>label', got {line[:60]!r}.")
        texts.append(fields[0].strip())
        labels.append(fields[1].strip())
        numbers.append(number)
    if not texts:
        raise ValueError(f"{path} has no sentences.")
    return numbered(texts, labels, ("0", "1"), lambda place: f"{path}, line {numbers[place]}")


@dataclass(frozen=True)
class Sst2(TextSettings):
    """Stanford Sentiment Treebank (Socher et al. 2013) with two classes: train.tsv, dev.tsv and test.tsv as in GLUE.

    dev is the validation split. Where test.tsv has no labels, as GLUE publishes it, results are reported on dev: it is
    the test split then, and a share of train is the validation split.

    folder: relative ones under $DISTILL_DATA, ./data, ../shared/data.
    validation: the share of train that is cut out class by class where test.tsv has no labels; None is 0.1.
    """

    folder: str = "sst2"
    validation: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validation is not None:
            check_share("Sst2.validation", self.validation)

    def load(self, seed: int, mix: Mix | None) -> TextSplits:
        """The splits, of the classes negative and positive."""
        self.check_no_mix(mix)
        root = find_folder(self.folder)
        train, dev = (self._labelled(present(root, name)) for name in ("train.tsv", "dev.tsv"))
        test, notes = read_sst2(present(root, "test.tsv")), []
        if test is None:
            size = round(len(train.labels) * (0.1 if self.validation is None else self.validation))
            train, validation = cut_share(train, size, seed=self.split_seed, name="Sst2.validation")
            test = dev
            notes.append(f"test.tsv has no labels: dev is the test split, {size:,} texts of train are validation.")
        elif self.validation is not None:
            raise ValueError(
                f"Sst2.validation={self.validation} has no effect: test.tsv has labels, dev is validation."
            )
        else:
            validation = dev
        notes += duplicates(train, validation, test)
        return self.splits(train=train, validation=validation, test=test, classes=CLASSES, notes=notes)

    def _labelled(self, path: Path) -> TextPart:
        part = read_sst2(path)
        if part is None:
            raise ValueError(f"{path} has no labels: its header is that of GLUE's test.tsv. Put the right file there.")
        return part
