"""Contract rows of the losses between relations of samples."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from distill.losses import (
    CRD,
    PKT,
    CorrelationCongruence,
    LabelEmbedding,
    RKDAngle,
    RKDDistance,
    SimilarityPreserving,
)
from tests.losses.contract import CLASSES, NO_SCOPE, Inputs, Row, Value, embeddings, maps, normal, some_labels

MEMORY = 12  # rows of CRD's memories, and their width


def label_embeddings(size: int) -> Inputs:
    """Label-wise embeddings with two in three labels positive and one in ten unknown."""
    labels = (torch.rand(size, CLASSES) < 2 / 3).double()
    labels[torch.rand(size, CLASSES) < 0.1] = math.nan
    return Inputs(normal(size, CLASSES, 3), normal(size, CLASSES, 4), labels)


def memories(size: int) -> Inputs:
    """Orthonormal rows; example i is row i, among four others."""
    banks = (torch.linalg.qr(normal(MEMORY, MEMORY)).Q for _ in range(2))
    own = torch.arange(size)[:, None]
    chosen = torch.cat([own, (own + torch.randint(1, MEMORY, (size, 4))) % MEMORY], 1)
    embedded = normal(size, MEMORY) / 4, normal(size, MEMORY) / 4
    return Inputs(embedded, (*banks, chosen), some_labels(size), shared=(0, 1))


def pairs_of_the_batch(size: int) -> Inputs:
    """As of a queue: the pair itself is the positive one, and the second of its others is left out."""
    inputs = memories(size)
    bank, _, chosen = inputs.teacher
    chosen[:, [0, 2]] = -1
    return replace(inputs, teacher=(bank, bank, chosen))


# Far along 2 M[i] − Σ_k M[k] the own row has the product 10 and all others −10, and far along −Σ_k M[k] all have; the
# logarithms are then 0 but for ε: −log(a / (a + ε)) for each of K others in each direction, a = K / n.
def apart(inputs: Inputs) -> Value:
    first, second, chosen = inputs.teacher
    return 10 * (2 * second[chosen[:, 0]] - second.sum(0)), 10 * (2 * first[chosen[:, 0]] - first.sum(0))


def together(inputs: Inputs) -> Value:
    bank, _, chosen = inputs.teacher
    both = (-10 * bank.sum(0)).expand(len(chosen), -1)
    return both, both


def of_epsilon(inputs: Inputs) -> Tensor:
    others = (inputs.teacher[2][:, 1:] >= 0).sum(1)
    return 2 * others.double() * math.log1p(1e-7 * MEMORY / 4)


NO_TEMPERATURE = {"temperature": (0.0, -1.0, math.nan, math.inf)}

ROWS = (
    Row(RKDDistance(), embeddings, NO_SCOPE),
    Row(RKDAngle(), embeddings, NO_SCOPE),
    Row(SimilarityPreserving(), maps, NO_SCOPE),
    Row(CorrelationCongruence(), embeddings, {"gamma": (0.0, -1.0, math.nan, math.inf), "order": (0, 1.5)} | NO_SCOPE),
    Row(PKT(), embeddings, NO_SCOPE),
    Row(LabelEmbedding(), label_embeddings, NO_SCOPE, own_part=True),
    Row(CRD(), memories, NO_TEMPERATURE, apart, of_epsilon),
    Row(CRD(temperature=0.5), pairs_of_the_batch, NO_TEMPERATURE, together, of_epsilon),
)
