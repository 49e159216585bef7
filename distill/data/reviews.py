"""Synthetic reviews for a first run without any download, in SST-2's own files."""

import random
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

from distill.data.draws import seed_of
from distill.data.mix import Mix
from distill.data.review_grammar import Grammar
from distill.data.sst2 import Sst2
from distill.data.texts import TextSettings, TextSplits

# A grammar of some hundred words runs out of new sentences in the end.
_MOST = 100_000


def write_reviews(*, train: int, validation: int, test: int, seed: int) -> dict[str, str]:
    """The files train.tsv, dev.tsv and test.tsv as text: half of each positive, and no sentence in them twice."""
    grammar = Grammar(random.Random(seed_of("reviews", seed)))
    known: set[str] = set()
    files = {}
    for name, size in (("train.tsv", train), ("dev.tsv", validation), ("test.tsv", test)):
        lines = ["sentence\tlabel"]
        while len(lines) <= size:
            label = len(lines) % 2
            text = grammar.review(label == 1)
            if text not in known:
                known.add(text)
                lines.append(f"{text}\t{label}")
        files[name] = "\n".join(lines)
    return files


@dataclass(frozen=True)
class Reviews(TextSettings):
    """Synthetic reviews of films, novels, hotels, restaurants and phones, drawn from a grammar: nobody wrote them.

    They show a run that works, and are no evidence for real texts. Sentiment hangs on negation, contrast and degree, so
    that counting words gets about four in five right. The files are written once, in SST-2's form, and read as `Sst2`
    reads the real set.

    train, validation, test: numbers of sentences, half of them positive, drawn by `split_seed`.
    folder: where the files are written; a relative folder is below the working directory.
    """

    train: int = 4000
    validation: int = 1000
    test: int = 2000
    folder: str = "data/reviews"

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {"train": self.train, "validation": self.validation, "test": self.test}
        for name, size in sizes.items():
            if size < 2:
                raise ValueError(f"Reviews.{name} is a number of sentences of at least 2, got {size}.")
        if sum(sizes.values()) > _MOST:
            raise ValueError(f"Reviews draws up to {_MOST:,} different sentences, got {sum(sizes.values()):,}.")

    def load(self, seed: int, mix: Mix | None) -> TextSplits:
        """The splits, of the classes negative and positive."""
        self.check_no_mix(mix)
        files = write_reviews(train=self.train, validation=self.validation, test=self.test, seed=self.split_seed)
        # The folder is named by what it holds, so that other settings, or another grammar, never meet its files.
        digest = blake2b("\n\n".join(files.values()).encode(), digest_size=6).hexdigest()
        place = (Path(self.folder).expanduser() / digest).resolve()
        try:
            place.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                _keep(place / name, text.encode())
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ValueError(f"Cannot write reviews to {place}: {reason}. Set data.folder to another folder.") from None
        return Sst2(
            folder=str(place), max_length=self.max_length, padding=self.padding, split_seed=self.split_seed
        ).load(seed, mix)


def _keep(path: Path, content: bytes) -> None:
    """Make the file hold the content; other processes see it whole or not at all, and may write the same meanwhile."""
    if path.is_file() and path.read_bytes() == content:
        return
    draft = path.with_name(f".{path.name}.{uuid4().hex}.draft")
    draft.write_bytes(content)
    draft.replace(path)
