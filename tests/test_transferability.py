"""Transferability scores against values by hand, and LogME against a direct search for the largest evidence."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from distill.transferability import h_score, leep, logme, nce, regularized_h_score, transrate


def evidence(features: Tensor, target: Tensor, alpha: float, beta: float) -> float:
    """The log of the marginal density of y: normal, zero mean, covariance I / beta + F Fᵀ / alpha."""
    count, f = len(features), features.numpy()
    covariance = np.eye(count) / beta + f @ f.T / alpha
    fit = target.numpy() @ np.linalg.solve(covariance, target.numpy())
    return float(-0.5 * (np.linalg.slogdet(covariance)[1] + fit + count * math.log(2 * math.pi)))


def direct(features: Tensor, target: Tensor) -> float:
    """The largest evidence by Nelder and Mead, from two starts."""
    found = [
        minimize(
            lambda logs: -evidence(features, target, math.exp(logs[0]), math.exp(logs[1])),
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-5, "fatol": 1e-7, "maxiter": 1000},
        ).fun
        for start in ([0.0, 0.0], [4.0, 1.0])
    ]
    return -min(found)


@pytest.mark.parametrize(("count", "width"), [(40, 6), (12, 30), (20, 20)], ids=["N > D", "N < D", "N = D"])
def test_logme_is_the_largest_evidence(count: int, width: int) -> None:
    generator = torch.Generator().manual_seed(count)
    features = torch.randn(count, width, generator=generator, dtype=torch.float64)
    labels = (features[:, 0] + 0.7 * torch.randn(count, generator=generator)).gt(0).long() + (features[:, 1] > 1).long()
    targets = torch.nn.functional.one_hot(labels).double()
    expected = sum(direct(features, target) for target in targets.T) / targets.shape[1] / count
    assert logme(features, labels) == pytest.approx(expected, abs=1e-3)


def test_logme_of_one_feature_by_hand() -> None:
    """F = (1, 1, 1, 1), y = (1, 1, 0, 0): σ = 4, z² = 1, the rest 1.

    With t the ratio of the precisions and s = t / (t + 4) the evidence is ½ log s − 2 log((1 + s) / 4) − 2 (1 +
    log 2π),
    and its slope ½ / s − 2 / (1 + s) is zero at s = 1/3. Of the other class it is the same.
    """
    expected = (-0.5 * math.log(3) - 2 * math.log(1 / 3) - 2 * (1 + math.log(2 * math.pi))) / 4
    assert logme(torch.ones(4, 1), torch.tensor([0, 0, 1, 1])) == pytest.approx(expected, abs=1e-9)


def test_logme_of_several_labels_is_the_mean_over_labels_of_those_that_know_them() -> None:
    features = torch.randn(30, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = (features[:, :2] > 0).float()
    labels[3, 0] = labels[7, 0] = math.nan
    known = ~labels[:, 0].isnan()
    first = direct(features[known], labels[known, 0].double()) / 28
    second = direct(features, labels[:, 1].double()) / 30
    assert logme(features, labels) == pytest.approx((first + second) / 2, abs=1e-3)
    whole = labels.nan_to_num(0.0)
    both = (direct(features, whole[:, 0].double()) + second * 30) / 60
    assert logme(features, whole) == pytest.approx(both, abs=1e-3)


def test_leep_by_hand() -> None:
    """Joint: class 0 (0.9 + 0.6, 0.1 + 0.4) / 4, class 1 (0.2 + 0.3, 0.8 + 0.7) / 4; P(0|z) = 0.75, 0.25."""
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    likelihoods = [0.75 * 0.9 + 0.25 * 0.1, 0.75 * 0.6 + 0.25 * 0.4, 0.25 * 0.2 + 0.75 * 0.8, 0.25 * 0.3 + 0.75 * 0.7]
    expected = sum(map(math.log, likelihoods)) / 4
    assert leep(probabilities, torch.tensor([0, 0, 1, 1])) == pytest.approx(expected, abs=1e-6)


def test_nce_by_hand() -> None:
    """Source 0 has classes 0, 0, 1 and source 1 class 1: −(3/4) · H(2/3, 1/3)."""
    expected = 0.75 * (2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    source, labels = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    assert nce(source, labels) == pytest.approx(expected, abs=1e-12)
    assert nce(torch.eye(2)[source], labels) == pytest.approx(expected, abs=1e-12)
    assert nce(labels, labels) == 0.0


def test_h_score_by_hand() -> None:
    """Two independent columns of variance 4/3 and 4/3; class means ±1 in the first alone: 4/3 over 4/3."""
    features = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert h_score(features, labels) == pytest.approx(1.0)
    assert h_score(torch.cat([features, features], 1), labels) == pytest.approx(1.0)  # what is redundant adds nothing
    assert h_score(features, torch.tensor([0, 1, 1, 0])) == pytest.approx(0.0, abs=1e-12)
    several = torch.tensor([[1.0, 0.0], [1.0, math.nan], [0.0, 1.0], [0.0, math.nan]])
    assert h_score(features[:, :1], several) == pytest.approx(1.0)


def test_regularized_h_score_by_hand() -> None:
    """The same features: their covariance over N is I, to which Ledoit and Wolf shrink it, so shrinkage keeps it; what
    is left of the covariance between classes, 4/3, is one part less the shrinkage."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    features = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    shrinkage = float(ledoit_wolf_shrinkage(features.numpy(), assume_centered=True))
    expected = (1 - shrinkage) * 4 / 3
    assert regularized_h_score(features, torch.tensor([0, 0, 1, 1])) == pytest.approx(expected)


def test_regularized_h_score_tells_noise_from_signal_with_fewer_examples_than_features() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 4
    noise = torch.randn(40, 200, generator=generator)
    signal = noise + 2 * torch.nn.functional.one_hot(labels, 200)
    assert regularized_h_score(signal, labels) > 1.1 * regularized_h_score(noise, labels)


def test_transrate_by_hand() -> None:
    """Features ±1, classes by sign, epsilon 1: R of all is ½ log 2, and of each class (its rows ±1, n = 2) as much."""
    features, labels = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]), torch.tensor([0, 0, 1, 1])
    assert transrate(features, labels, epsilon=1.0) == pytest.approx(0.0)
    wide = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    of_all = 0.5 * (math.log(1 + 4 / 6) + math.log(1 + 2 / 6))
    within = (0.5 * math.log(2) * 2 + 0.5 * math.log(2)) / 3
    assert transrate(wide, torch.tensor([0, 0, 1, 1, 2, 2]), epsilon=1.0) == pytest.approx(of_all - within)


@pytest.mark.parametrize("score", [logme, h_score, regularized_h_score, transrate])
def test_features_that_tell_the_classes_score_above_those_that_do_not(score) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    noise = torch.randn(120, 10, generator=generator)
    signal = noise + 3 * torch.nn.functional.one_hot(labels, 10)
    assert score(signal, labels) > score(noise, labels)


def test_what_does_not_fit_is_named() -> None:
    labels = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"features \(N, D\) with labels of as many examples, got \(3, 2\) and \(2,\)"):
        logme(torch.zeros(3, 2), labels)
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        h_score(torch.full((2, 2), math.nan), labels)
    with pytest.raises(ValueError, match="features are all zero"):
        logme(torch.zeros(2, 2), labels)
    with pytest.raises(ValueError, match=r"transrate compares class numbers"):
        transrate(torch.ones(2, 2), torch.ones(2, 1))
