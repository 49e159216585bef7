"""A corpus: plain texts, or JSON lines such as an extract of Wikipedia, that nobody labelled."""

from dataclasses import dataclass
from pathlib import Path, PurePath

import torch
from torch import Tensor

from distill.data.folders import find_folder, inside
from distill.data.lines import index_lines
from distill.data.masked_texts import MaskedTexts
from distill.data.mix import Mix
from distill.data.split import cut
from distill.data.texts import TextSettings, TextSplits

_PLAIN, _JSON_LINES = ".txt", ".jsonl"


@dataclass(frozen=True)
class Corpus(TextSettings):
    """Texts without labels, for a masked language model: some tokens of each are hidden, and it guesses them.

    Texts stay in their files and are read when their turn comes. Of a text that is longer than max_length each epoch
    takes another part, drawn by the run's seed; in the validation and test texts parts and hidden tokens are fixed.

    folder: relative ones under $DISTILL_DATA, ./data, ../shared/data.
    train: a file in the folder, or a pattern such as "*.jsonl": .txt has a text a line, .jsonl an object a line.
    field: the name of the text in each object of .jsonl files.
    validation, test: how many texts are cut out, drawn by split_seed.
    mask_share: share of the tokens that are hidden.
    """

    folder: str
    train: str
    field: str = "text"
    validation: int = 1000
    test: int = 1000
    mask_share: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if PurePath(self.train).is_absolute() or ".." in PurePath(self.train).parts or not self.train:
            raise ValueError(f"Corpus.train is a file or a pattern in its folder, got {self.train!r}.")
        if PurePath(self.train).suffix not in (_PLAIN, _JSON_LINES):
            raise ValueError(
                f"Corpus.train ends in .txt (a text a line) or .jsonl (an object a line), got {self.train!r}. Rename "
                "the files, or put them together: cat FOLDER/*/wiki_* > wikipedia.jsonl"
            )
        if not 0 < self.mask_share < 1:
            raise ValueError(f"Corpus.mask_share is a share of the tokens between 0 and 1, got {self.mask_share}.")

    def load(self, seed: int, mix: Mix | None) -> TextSplits:
        """The splits, without classes."""
        self.check_no_mix(mix)
        files = self._files(find_folder(self.folder))
        lines, empty = index_lines(files, self.field if files[0].suffix == _JSON_LINES else None)
        if not len(lines):
            raise ValueError(f"{files[0]} has no texts: all of its lines are empty. Check data.train.")
        rows = torch.zeros(len(lines), dtype=torch.int64)
        kept, test = cut(rows, self.test, seed=self.split_seed, name="Corpus.test")
        left, taken = cut(rows[kept], self.validation, seed=self.split_seed, name="Corpus.validation")
        train, validation = kept[left], kept[taken]
        bucketed = self.padding == "buckets"

        def held_out(which: Tensor) -> MaskedTexts:
            return MaskedTexts(
                lines.rows(which), share=self.mask_share, seed=self.split_seed, fixed=True, bucketed=bucketed
            )

        notes = [
            f"The texts have no classes: {self.mask_share:.0%} of their tokens are hidden; accuracy is the share of "
            "hidden tokens that were guessed right, nll and perplexity are means over them.",
            *([f"{empty:,} empty lines are passed over."] if empty else []),
        ]
        return TextSplits(
            train=MaskedTexts(lines.rows(train), share=self.mask_share, seed=seed, fixed=False, bucketed=bucketed),
            validation=held_out(validation),
            test=held_out(test),
            classes=(),
            max_length=self.max_length,
            padding=self.padding,
            notes=tuple(notes),
        )

    def _files(self, root: Path) -> list[Path]:
        """The files that `train` means, by name; each in the folder."""
        files = [inside(root, path) for path in sorted(root.glob(self.train)) if path.is_file()]
        if not files:
            there = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))[:3]
            raise ValueError(
                f"No file in {root} fits Corpus.train={self.train!r}. It holds {', '.join(there) or 'nothing'}."
            )
        return files
