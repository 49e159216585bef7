"""Texts with labels, cut into splits: classes by name, shares class by class, and what the splits have in common."""

from collections.abc import Callable, Sequence

import torch

from distill.data.split import check_share, cut
from distill.data.texts import UNKNOWN, TextPart
from distill.messages import nearest

# More distinct labels than this are the texts, or their numbers.
_MOST_CLASSES = 1000


def check_split(name: str, source: str | float) -> None:
    """Refuses a share that is none, where a split is named by its file or by its share of the training texts."""
    if not isinstance(source, str):
        check_share(name, source)


def class_names(found: Sequence[str], where: str) -> tuple[str, ...]:
    """The distinct labels, sorted; by their value where all are whole numbers.

    Raises:
        ValueError: one label only, or so many that they are no classes.
    """
    distinct = set(found)
    if len(distinct) == 1:
        raise ValueError(f"{where} has one label only, {min(distinct)!r}. Classes are told apart by at least two.")
    if len(distinct) > _MOST_CLASSES:
        raise ValueError(
            f"{where} has {len(distinct):,} distinct labels, such as {_short(min(distinct))}. Is it the right column?"
        )
    if all(name.isascii() and name.isdecimal() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def numbered(
    texts: Sequence[str], labels: Sequence[str], values: Sequence[str], where: Callable[[int], str]
) -> TextPart:
    """The texts with the number that each label has in `values`; `where(number)` names a text's place in its file.

    Raises:
        ValueError: a label that is not among `values`.
    """
    numbers = {value: number for number, value in enumerate(values)}
    for place, label in enumerate(labels):
        if label not in numbers:
            meant = ", ".join(values) if len(values) <= 10 else f"{nearest(label, values)}, ..."
            what = f"the label {_short(label)} was never declared" if label else "there is no label"
            raise ValueError(f"{where(place)}: {what}. Labels are {meant}.")
    return TextPart(list(texts), torch.tensor([numbers[label] for label in labels], dtype=torch.int64))


def cut_share(part: TextPart, size: int, *, seed: int, name: str) -> tuple[TextPart, TextPart]:
    """What stays, and the `size` texts that are cut out class by class; see `distill.data.split.cut`."""
    kept, taken = cut(part.labels, size, seed=seed, name=name)
    return _rows(part, kept), _rows(part, taken)


def cut_splits(
    train: TextPart, validation: TextPart | float, test: TextPart | float, *, seed: int, name: str
) -> tuple[TextPart, TextPart, TextPart]:
    """Three splits, of which validation and test may each be a share of all that lies in `train`."""
    total = len(train.labels)
    if not isinstance(test, TextPart):
        train, test = cut_share(train, round(test * total), seed=seed, name=f"{name}.test")
    if not isinstance(validation, TextPart):
        # Of all texts, whether or not the test split was cut out of them before.
        train, validation = cut_share(train, round(validation * total), seed=seed, name=f"{name}.validation")
    return train, validation, test


def with_unlabelled(part: TextPart, texts: Sequence[str]) -> TextPart:
    """The texts, followed by others that nobody labelled: a teacher's soft targets need no label."""
    unknown = torch.full((len(texts),), UNKNOWN, dtype=torch.int64)
    return TextPart([*part.texts, *texts], torch.cat([part.labels, unknown]))


def duplicates(train: TextPart, validation: TextPart, test: TextPart) -> tuple[str, ...]:
    """How many texts stand in two splits, a sentence for each pair of splits that share some.

    Two texts are the same where they are so after runs of white space became one blank; empty ones do not count.
    """
    named = {"training": train, "validation": validation, "test": test}
    plain = {name: [" ".join(text.split()) for text in part.texts] for name, part in named.items()}
    found = []
    for name, other in (("validation", "training"), ("test", "training"), ("test", "validation")):
        known = set(plain[other]) - {""}
        count = sum(text in known for text in plain[name])
        if count:
            texts = f"1 {name} text stands" if count == 1 else f"{count:,} {name} texts stand"
            found.append(f"{texts} in the {other} split too.")
    return tuple(found)


def _rows(part: TextPart, which: torch.Tensor) -> TextPart:
    return TextPart([part.texts[row] for row in which.tolist()], part.labels[which])


def _short(label: str) -> str:
    return repr(label if len(label) <= 40 else f"{label[:40]}...")
