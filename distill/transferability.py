"""How well a source model may transfer to labels, scored from its features or answers without training: pure functions.

Each takes features (N, D) or source probabilities (N, Z) and labels, and gives a float, higher for better. Labels are
class numbers, int (N,), or for `logme`, `h_score` and `regularized_h_score` also several labels, float (N, K) of 0, 1
and NaN where nobody knows: each label is scored on the examples that know it, and the scores are averaged. Scores of
one function compare sources on the same examples; those of two functions do not compare.
"""

import math
from collections.abc import Callable

import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

# Points of the first search over the ratio of both precisions, and halvings of the finest interval behind it.
_COARSE, _FINE = 120, 60
_GOLDEN = (math.sqrt(5) - 1) / 2


def logme(features: Tensor, labels: Tensor) -> float:
    """The mean over targets of the largest log evidence of a Bayesian linear model, divided by N.

    You, Liu, Wang and Long, 2021, arXiv:2102.11005, eq. 2; a target is a class against the others. The evidence is
    maximised exactly: for a given ratio of the precisions the noise has a closed form, which leaves one variable.

    Raises:
        ValueError: features and labels do not fit each other.
    """
    wide = _checked(features, labels)
    if not labels.is_floating_point():
        classes = int(labels.max()) + 1
        return _mean_evidence(wide, torch.nn.functional.one_hot(labels.long(), classes).double())
    if not labels.isnan().any():
        return _mean_evidence(wide, labels.double())
    known = ((wide[seen], labels[seen, label, None].double()) for label, seen in _known(labels))
    return _mean([_mean_evidence(of_label, target) for of_label, target in known])


def leep(probabilities: Tensor, labels: Tensor) -> float:
    """The mean log likelihood of the labels under the source's answers and the labels' empirical conditional.

    Nguyen, Hassner, Seeger and Archambeau, 2020, arXiv:2002.12462, eq. 2.

    probabilities: of the source's own classes, (N, Z), rows that sum to one. labels: int (N,).
    """
    wide = _checked(probabilities, labels)
    _one_class(labels, "leep")
    joint_CZ = wide.new_zeros(int(labels.max()) + 1, wide.shape[1]).index_add_(0, labels.long(), wide) / len(wide)
    conditional_CZ = joint_CZ / joint_CZ.sum(0).clamp_min(1e-300)
    return float((conditional_CZ[labels.long()] * wide).sum(1).log().mean())


def nce(source_labels: Tensor, labels: Tensor) -> float:
    """The negative conditional entropy of the labels given the source's, −H(Y|Z), in nats.

    Tran, Nguyen and Hassner, 2019, arXiv:1908.08142, section 3.1.

    source_labels: int (N,), or the source's probabilities (N, Z), whose largest counts. labels: int (N,).
    """
    source = source_labels.argmax(1) if source_labels.ndim == 2 else source_labels
    _one_class(labels, "nce")
    if len(source) != len(labels):
        raise ValueError(f"nce compares as many labels of the source, got {len(source)} and {len(labels)}.")
    sizes = int(labels.max()) + 1, int(source.max()) + 1
    counts = torch.bincount(labels.long() * sizes[1] + source.long(), minlength=sizes[0] * sizes[1])
    joint_CZ = counts.view(sizes).double() / len(labels)
    conditional_CZ = joint_CZ / joint_CZ.sum(0).clamp_min(1e-300)
    return float(torch.special.xlogy(joint_CZ, conditional_CZ).sum())


def h_score(features: Tensor, labels: Tensor) -> float:
    """tr(cov(f)⁺ cov(E[f|y])): how much of the features' spread lies between classes, with redundancy taken out.

    Bao et al., 2019, "An Information-Theoretic Approach to Transferability in Task Transfer Learning", eq. 4.
    """
    return _by_label(_h_score, features, labels)


def regularized_h_score(features: Tensor, labels: Tensor) -> float:
    """`h_score` with Ledoit and Wolf's shrunk covariance, for fewer examples than features.

    Ibrahim, Ponomareva and Mazumder, 2021, arXiv:2110.06893, eq. 7.
    """
    return _by_label(_regularized_h_score, features, labels)


def transrate(features: Tensor, labels: Tensor, *, epsilon: float = 1e-4) -> float:
    """R(F) − (1/C) Σ_c R(F_c), R(F) = ½ log det(I + FᵀF / (n ε)): coding rate of all, less that within classes.

    Huang, Huang, Rong, Yang and Wei, 2022, arXiv:2106.09362, eq. 7. F is centred over all examples; n counts the rows
    of the argument.

    labels: int (N,).
    """
    wide = _checked(features, labels)
    _one_class(labels, "transrate")
    centred = wide - wide.mean(0)
    present = labels.long().bincount().nonzero()[:, 0]
    within = [_coding_rate(centred[labels == label], epsilon) for label in present]
    return _coding_rate(centred, epsilon) - _mean(within)


def _checked(features: Tensor, labels: Tensor) -> Tensor:
    """The features in float64."""
    if features.ndim != 2 or len(features) != len(labels) or not len(labels):
        raise ValueError(
            "Transferability compares features (N, D) with labels of as many examples, got "
            f"{tuple(features.shape)} and {tuple(labels.shape)}."
        )
    wide = features.detach().cpu().double()
    if not wide.isfinite().all():
        raise ValueError("The source's features or probabilities hold NaN or infinity. Check its weights.")
    return wide


def _one_class(labels: Tensor, name: str) -> None:
    if labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(f"{name} compares class numbers, int (N,), got {labels.dtype} {tuple(labels.shape)}.")


def _known(labels: Tensor) -> list[tuple[int, Tensor]]:
    """Each label with the examples that know it."""
    return [(label, ~labels[:, label].isnan()) for label in range(labels.shape[1])]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _by_label(score: Callable[[Tensor, Tensor], float], features: Tensor, labels: Tensor) -> float:
    wide = _checked(features, labels)
    if not labels.is_floating_point():
        return score(wide, labels.long())
    return _mean([score(wide[seen], labels[seen, label].long()) for label, seen in _known(labels)])


def _mean_evidence(features_ND: Tensor, targets_NK: Tensor) -> float:
    squares_k, parts_kK = _spectrum(features_ND, targets_NK)
    count = len(features_ND)
    whole_K = targets_NK.square().sum(0)
    beyond_K = (whole_K - parts_kK.sum(0)).clamp_min(0.0)
    # A target that the features give to the last digit leaves nothing but rounding.
    beyond_K = beyond_K.where(beyond_K > 1e-12 * whole_K, torch.zeros_like(beyond_K))

    def evidence(ratio_KG: Tensor) -> Tensor:
        """Of each target at each log ratio of the precisions (K, G); the noise at its best."""
        values = []
        for logs_G, parts_k, beyond in zip(ratio_KG, parts_kK.T, beyond_K, strict=True):
            ratios_G1 = logs_G.exp()[:, None]
            shrunk_Gk = ratios_G1 / (ratios_G1 + squares_k)
            error_G = (shrunk_Gk * parts_k).sum(1) + beyond
            values.append(0.5 * shrunk_Gk.log().sum(1) - 0.5 * count * (error_G.clamp_min(1e-300) / count).log())
        return torch.stack(values) - 0.5 * count * (1 + math.log(2 * math.pi))

    low, high = math.log(float(squares_k.min())) - 12, math.log(float(squares_k.max())) + 12
    grid = torch.linspace(low, high, _COARSE, dtype=torch.float64)
    best_K = evidence(grid.expand(targets_NK.shape[1], -1)).argmax(1)
    step = grid[1] - grid[0]
    left_K, right_K = grid[best_K] - step, grid[best_K] + step
    for _ in range(_FINE):
        inner_K2 = torch.stack([right_K - _GOLDEN * (right_K - left_K), left_K + _GOLDEN * (right_K - left_K)], dim=1)
        values_K2 = evidence(inner_K2)
        first_K = values_K2[:, 0] > values_K2[:, 1]
        left_K, right_K = torch.where(first_K, left_K, inner_K2[:, 0]), torch.where(first_K, inner_K2[:, 1], right_K)
    found_K = evidence(((left_K + right_K) / 2)[:, None])[:, 0]
    return float(found_K.mean()) / count


def _spectrum(features_ND: Tensor, targets_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values above zero (k,), and the squared part of each target along each of them (k, K)."""
    count, width = features_ND.shape
    if width <= count:
        squares, vectors = torch.linalg.eigh(features_ND.T @ features_ND)
    else:
        squares, vectors = torch.linalg.eigh(features_ND @ features_ND.T)
    real = squares > squares[-1].clamp_min(1e-300) * max(count, width) * torch.finfo(torch.float64).eps
    squares, vectors = squares[real], vectors[:, real]
    if not len(squares):
        raise ValueError("The source's features are all zero. Check its weights, or tap another layer.")
    along = vectors.T @ (features_ND.T @ targets_NK) if width <= count else vectors.T @ targets_NK
    return squares, along.square() / (squares[:, None] if width <= count else 1.0)


def _between(features_ND: Tensor, labels_N: Tensor) -> Tensor:
    """Covariance (D, D) of the class means, each counted as often as its class, over N − 1."""
    counts_C, width = labels_N.bincount(), features_ND.shape[1]
    sums_CD = features_ND.new_zeros(len(counts_C), width).index_add_(0, labels_N, features_ND)
    means_ND = (sums_CD / counts_C.clamp_min(1)[:, None])[labels_N]
    return means_ND.T.cov().view(width, width)


def _h_score(features_ND: Tensor, labels_N: Tensor) -> float:
    covariance = features_ND.T.cov().view(features_ND.shape[1], -1)
    inverse = torch.linalg.pinv(covariance, hermitian=True)
    return float((inverse * _between(features_ND, labels_N)).sum())


def _regularized_h_score(features_ND: Tensor, labels_N: Tensor) -> float:
    centred = features_ND - features_ND.mean(0)
    shrunk = LedoitWolf(store_precision=False, assume_centered=True).fit(centred.numpy())
    inverse = torch.linalg.pinv(torch.from_numpy(shrunk.covariance_), hermitian=True)
    return float((inverse * _between(centred, labels_N)).sum() * (1 - shrunk.shrinkage_))


def _coding_rate(rows_ND: Tensor, epsilon: float) -> float:
    scaled = rows_ND / math.sqrt(len(rows_ND) * epsilon)
    gram = scaled.T @ scaled if scaled.shape[1] <= len(scaled) else scaled @ scaled.T
    return 0.5 * float(torch.linalg.slogdet(torch.eye(len(gram), dtype=gram.dtype) + gram)[1])
