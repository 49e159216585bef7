"""Cutting a set by patient, so that images of one person never stand on both sides of a cut."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from distill.data.draws import generator
from distill.data.split import check_share


def cut_patients(patient: Tensor, labels: Tensor, share: float, *, seed: int, name: str) -> tuple[Tensor, Tensor]:
    """Rows that stay and rows that are cut out, both ascending: all rows of a patient on one side.

    The side of each patient is the one that leaves the cut nearer to its share of what was seen so far: of each label's
    positives, of the images, of the patients, and of the patients with about as many images. Those with the rarest
    label come first and the others mend what they leave over; among equals the order is drawn by the seed. The rows'
    order plays no part, nor do negative and unknown labels. `name` is the setting that asks for it, and its draw does
    not depend on other settings'.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011, doi:10.1007/978-3-642-23808-6_10), with two
    departures: its examples are patients of one or more images, and a patient goes where the squared relative deviation
    of all counts ends up smaller, while the paper fills the side that needs most of the rarest label.

    patient: int64 (N,). labels: (N, K), 1 where a label holds.

    Raises:
        ValueError: `share` is not between 0 and 1, or there are too few patients for it.
    """
    check_share(name, share)
    who = _numbered(patient)
    num_images = torch.bincount(who)
    num_patients = len(num_images)
    positives = torch.zeros(num_patients, labels.shape[1], dtype=torch.int64)
    positives.index_add_(0, who, (labels == 1).long())
    # Patients of 1, of 2 and 3, of 4 to 7 images and so on: else those of many images would nearly all stay.
    sizes = one_hot(num_images.double().frexp().exponent.long())
    counts = torch.cat([positives, sizes, num_images[:, None], torch.ones_like(num_images)[:, None]], dim=1)
    taken = torch.zeros(num_patients, dtype=torch.bool)
    taken[_choose(counts, share, _order(positives, seed=seed, name=name))] = True
    if not 0 < int(taken.sum()) < num_patients:
        raise ValueError(
            f"{name}={share} of {num_patients} patients leaves one side without any. "
            "Take another share, or more patients."
        )
    return (~taken[who]).nonzero().flatten(), taken[who].nonzero().flatten()


def draw_patients(patient: Tensor, size: int, *, seed: int, name: str) -> Tensor:
    """Rows of whole patients, ascending, in an order drawn by the seed until they are `size` rows.

    The last patient comes whole, so there may be a few more; a smaller draw is a part of a larger one.

    patient: int64 (N,).

    Raises:
        ValueError: `size` is below 1, or not below N, so that nothing would be left out.
    """
    if not 0 < size < len(patient):
        raise ValueError(f"{name}={size} of {len(patient)} images has to keep at least 1 and to leave out at least 1.")
    who = _numbered(patient)
    num_images = torch.bincount(who)
    order = torch.randperm(len(num_images), generator=generator("draw patients", name, seed))
    before = torch.zeros_like(num_images)
    before[order] = num_images[order].cumsum(0) - num_images[order]
    return (before[who] < size).nonzero().flatten()


def _numbered(patient: Tensor) -> Tensor:
    """Each row's patient by its place among the patients, which are in ascending order."""
    return torch.from_numpy(np.unique(patient.numpy(), return_inverse=True)[1])


def _order(positives: Tensor, *, seed: int, name: str) -> list[int]:
    """Patients by their rarest label, rarest label first and those of no label last; drawn among equals."""
    num_patients, num_labels = positives.shape
    by_rarity = positives[:, positives.sum(0).argsort(stable=True)] > 0
    rank = torch.where(by_rarity.any(1), by_rarity.long().argmax(1), num_labels)
    drawn = torch.randperm(num_patients, generator=generator("cut patients", name, seed))
    order: list[int] = drawn[rank[drawn].argsort(stable=True)].tolist()
    return order


def _choose(counts: Tensor, share: float, order: list[int]) -> list[int]:
    """Of counts (patients, what is counted), the patients whose sums come near to `share` of all, chosen in order.

    Where d = cut - share * seen is how far the cut is off, a patient of counts c moves it to d + (1 - share) * c or to
    d - share * c. The first is nearer to zero where d.c < (share - 1/2) * c.c, each product weighted by 1 / total**2.
    """
    weights = [1 / max(total, 1) ** 2 for total in counts.sum(0).tolist()]
    off = [0.0] * len(weights)
    chosen = []
    for patient, row in zip(order, counts[order].tolist(), strict=True):
        present = [(place, count) for place, count in enumerate(row) if count]
        along = sum(weights[place] * off[place] * count for place, count in present)
        square = sum(weights[place] * count * count for place, count in present)
        move = -share
        if along < (share - 0.5) * square:
            chosen.append(patient)
            move = 1 - share
        for place, count in present:
            off[place] += move * count
    return chosen
