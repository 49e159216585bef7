"""Cutting a set into two so that each class keeps its share in both."""

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.data.draws import generator


def check_share(name: str, share: float) -> None:
    """Refuses a share of the examples that is not between 0 and 1."""
    if not 0 < share < 1:
        raise ValueError(f"{name} is a share of the examples between 0 and 1, got {share}.")


def check_labels(labels: Tensor, num_classes: int, where: str) -> None:
    """Refuses no labels at all, and labels that are not the number of a class."""
    if len(labels) == 0:
        raise ValueError(f"{where} has no examples.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"{where} has labels from {low} to {high}, but classes are numbered 0 to {num_classes - 1}.")


def check_classes(labels: Tensor, classes: Sequence[str]) -> None:
    """Refuses a class without training examples."""
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    empty = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if empty:
        raise ValueError(f"No training example of class {', '.join(empty)}. Add some, or leave the class out.")


def check_several(labels: Tensor, classes: Sequence[str], split: str) -> tuple[str, ...]:
    """Refuses rows of several labels, float (N, K), from which nothing could be learned or judged.

    Returns a note of the labels that have one class only in the split, if any: those have no AUROC.
    """
    if len(labels) == 0:
        raise ValueError(f"The {split} split has no examples.")
    if labels.ndim != 2 or labels.shape[1] != len(classes):
        raise ValueError(
            f"The {split} split has labels {tuple(labels.shape)} for {len(classes)} names. Give a row of them an image."
        )
    known = ~labels.isnan()
    if not bool(((labels == 0) | (labels == 1) | ~known).all()):
        raise ValueError(f"The {split} split has labels that are neither 1, 0 nor NaN (unknown).")
    one_sided = ((labels == 1).sum(0) == 0) | ((labels == 0).sum(0) == 0)
    if bool(one_sided.all()):
        raise ValueError(
            f"In the {split} split no label has both a positive and a negative example, so nothing can be judged. "
            "Take more images."
        )
    if not bool(one_sided.any()):
        return ()
    names = [f"{classes[label]} ({int((labels[:, label] == 1).sum())} positive)" for label in one_sided.nonzero()[:, 0]]
    can_not = "learned" if split == "train" else "judged"
    return (
        f"In the {split} split these labels have examples of one side only and can't be {can_not}: {', '.join(names)}.",
    )


def cut(labels: Tensor, size: int, *, seed: int, name: str) -> tuple[Tensor, Tensor]:
    """Rows that stay and `size` rows that are cut out, both ascending, drawn by the seed class by class.

    Each class gives size * count / total rows, rounded so that they sum to `size`: up where the remainder is largest,
    and at the lower class among equals. `name` is the setting that asks for it, and its draw does not depend on other
    settings'.

    labels: int64 (N,), at least 0.

    Raises:
        ValueError: `size` is below 1 or leaves no row.
    """
    total = len(labels)
    if not 0 < size < total:
        raise ValueError(f"{name} cuts {size} of {total} examples; it has to take at least 1 and to leave at least 1.")
    counts = torch.bincount(labels)
    quotas = counts * size // total
    remainders = counts * size % total
    quotas[remainders.argsort(descending=True, stable=True)[: size - int(quotas.sum())]] += 1
    taken = torch.zeros(total, dtype=torch.bool)
    for label, quota in enumerate(quotas.tolist()):
        rows = (labels == label).nonzero().flatten()
        taken[rows[torch.randperm(len(rows), generator=generator("cut", name, seed, label))[:quota]]] = True
    return (~taken).nonzero().flatten(), taken.nonzero().flatten()
