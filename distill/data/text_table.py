"""Tables of texts: CSV, TSV or parquet files with a column of texts and a column of labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distill.data.folders import find_folder
from distill.data.mix import Mix
from distill.data.split import check_share
from distill.data.text_cut import check_split, class_names, cut_splits, duplicates, numbered, with_unlabelled
from distill.data.text_files import Table, check_encoding, present, read_table
from distill.data.texts import TextPart, TextSettings, TextSplits


@dataclass(frozen=True)
class TextTable(TextSettings):
    """Texts and labels in named columns of .csv (with quotation marks), .tsv (without) or .parquet files.

    What has no file of its own is cut out of the training file class by class. ChnSentiCorp_htl_all.csv and
    weibo_senti_100k.csv are read as they come, with classes={"0": "negative", "1": "positive"}.

    folder: relative ones under $DISTILL_DATA, ./data, ../shared/data.
    train: the file of training texts, in the folder.
    validation, test: a file in the folder, or the share of all training texts that is cut out, drawn by `split_seed`.
    unlabelled: a file of further texts without labels, trained on by soft targets alone.
    text, label: the names of the columns.
    classes: the labels in their order, or {label as it is written: name}; None takes those of the training file.
    encoding: of .csv and .tsv: "utf-8-sig" is UTF-8 with or without a byte order mark, "gb18030" the usual other one of
        Chinese files. It is never guessed.
    """

    folder: str
    train: str
    validation: str | float = 0.1
    test: str | float = 0.1
    unlabelled: str | None = None
    text: str = "review"
    label: str = "label"
    classes: Mapping[str, str] | tuple[str, ...] | None = None
    encoding: str = "utf-8-sig"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_split("TextTable.validation", self.validation)
        check_split("TextTable.test", self.test)
        if not isinstance(self.validation, str) and not isinstance(self.test, str):
            check_share("TextTable.validation + test", self.validation + self.test)
        if self.text == self.label:
            raise ValueError(f"TextTable.text and label both name the column {self.text!r}. Each has its own.")
        if self.classes is not None:
            names = tuple(self.classes.values()) if isinstance(self.classes, Mapping) else self.classes
            if len(set(names)) < max(2, len(names)):
                raise ValueError(
                    f"TextTable.classes are two or more different names, got {', '.join(names) or 'none'}."
                )
        check_encoding("TextTable.encoding", self.encoding)

    def load(self, seed: int, mix: Mix | None) -> TextSplits:
        """The splits, of the declared classes in their order."""
        self.check_no_mix(mix)
        root = find_folder(self.folder)
        table = self._table(root, self.train)
        labels = table.columns[self.label]
        declared = self.classes
        if declared is None:
            declared = class_names([label for label in labels if label], f"{table.path}, column {self.label!r},")
        # A mapping gives its keys, which are the labels as they are written.
        values = tuple(declared)
        names = tuple(declared.values()) if isinstance(declared, Mapping) else declared

        train, validation, test = cut_splits(
            self._part(table, values),
            self._held_out(root, self.validation, values),
            self._held_out(root, self.test, values),
            seed=self.split_seed,
            name="TextTable",
        )
        if self.unlabelled is not None:
            further = read_table(present(root, self.unlabelled), (self.text,), encoding=self.encoding)
            train = with_unlabelled(train, further.columns[self.text])
        notes = duplicates(train, validation, test)
        return self.splits(train=train, validation=validation, test=test, classes=names, notes=notes)

    def _held_out(self, root: Path, source: str | float, values: tuple[str, ...]) -> TextPart | float:
        return self._part(self._table(root, source), values) if isinstance(source, str) else source

    def _table(self, root: Path, name: str) -> Table:
        return read_table(present(root, name), (self.text, self.label), encoding=self.encoding)

    def _part(self, table: Table, values: tuple[str, ...]) -> TextPart:
        return numbered(table.columns[self.text], table.columns[self.label], values, table.where)
