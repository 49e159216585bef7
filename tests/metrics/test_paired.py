import math
import time

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from torch import Tensor

from distill.metrics import DeLong, delong

NAN = math.nan


def direct(first: Tensor, second: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """Difference, standard error and p by the definition: kernel of each pair, share of each example, covariance."""
    areas, of_positives, of_negatives = [], [], []
    for logits in (first.double().numpy(), second.double().numpy()):
        positive, negative = logits[labels == 1][:, None], logits[labels == 0][None, :]
        kernel = (positive > negative) + (positive == negative) / 2
        areas.append(kernel.mean())
        of_positives.append(kernel.mean(1))
        of_negatives.append(kernel.mean(0))
    covariance = np.cov(of_positives) / len(of_positives[0]) + np.cov(of_negatives) / len(of_negatives[0])
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    difference = areas[1] - areas[0]
    return difference, error, 2 * norm.sf(abs(difference / error))


def test_difference_and_its_error_by_hand() -> None:
    # Positives 2 and 1, negatives 1 and 0 under the first model: 2 is above both, 1 above 0 and tied: 3.5 of 4. Under
    # the second, positives 0 and 3: 0 is above none and tied with none of 1 and 2: 2 of 4. Shares of the positives are
    # (1, 3/4) and (0, 1), of the negatives (3/4, 1) and (1/2, 1/2). Their differences (−1, 1/4) and (−1/4, −1/2) have
    # variances 25/32 and 1/32 with n − 1, so the error is √((25/32 + 1/32) / 2).
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0])
    found = delong(torch.tensor([2.0, 1.0, 1.0, 0.0]), torch.tensor([0.0, 3.0, 1.0, 2.0]), labels)
    error = math.sqrt(26 / 64)
    assert (found.first, found.second, found.difference) == (0.875, 0.5, -0.375)
    assert found.standard_error == pytest.approx(error)
    assert found.z == pytest.approx(-0.375 / error)
    assert found.p == pytest.approx(math.erfc(0.375 / error / math.sqrt(2)))


@pytest.mark.parametrize("step", [0.0, 0.5], ids=["without ties", "with ties"])
def test_it_equals_the_direct_computation(step: float) -> None:
    torch.manual_seed(0)
    for _ in range(5):
        labels = (torch.rand(60) < 0.3).float().masked_fill(torch.rand(60) < 0.2, NAN)
        first = torch.randn(60) + labels.nan_to_num()
        second = first + torch.randn(60)
        if step:
            first, second = ((logits / step).round() * step for logits in (first, second))
        found, known = delong(first, second, labels), ~labels.isnan()
        assert found.first == pytest.approx(roc_auc_score(labels[known], first[known]), abs=1e-9)
        assert found.second == pytest.approx(roc_auc_score(labels[known], second[known]), abs=1e-9)
        expected = direct(first[known], second[known], labels[known])
        assert (found.difference, found.standard_error, found.p) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("change", [lambda x: x, lambda x: 3 * x + 1, torch.zeros_like])
def test_equal_orders_do_not_differ(change) -> None:
    torch.manual_seed(0)
    first, labels = torch.randn(33), (torch.arange(33) % 3 == 0).float()
    of_both = torch.zeros(33) if change is torch.zeros_like else first
    found = delong(of_both, change(of_both), labels)
    assert (found.difference, found.standard_error, found.z, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_constant_scores_are_a_model_that_knows_nothing() -> None:
    torch.manual_seed(0)
    labels, second = (torch.arange(40) % 4 == 0).float(), torch.randn(40)
    found = delong(torch.full((40,), 0.3), second, labels)
    assert found.first == 0.5
    assert (found.difference, found.standard_error, found.p) == pytest.approx(
        direct(torch.zeros(40), second, labels), abs=1e-9
    )


def test_exchanging_the_models_turns_the_sign() -> None:
    torch.manual_seed(0)
    first, second, labels = torch.randn(30), torch.randn(30), torch.rand(30).round()
    there, back = delong(first, second, labels), delong(second, first, labels)
    assert (back.difference, back.z) == (-there.difference, -there.z)
    assert (back.standard_error, back.p) == (there.standard_error, there.p)


def test_one_class_gives_nan() -> None:
    assert all(math.isnan(value) for value in vars(delong(torch.rand(3), torch.rand(3), torch.ones(3))).values())


def test_what_no_example_varies_is_not_taken_for_sure() -> None:
    # Always right against always wrong: every example's share moves by 1, so there is no variance to judge by.
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0])
    found = delong(labels, -labels, labels)
    assert (found.difference, found.standard_error) == (-1.0, 0.0)
    assert math.isnan(found.z) and math.isnan(found.p)
    single = delong(torch.tensor([1.0, 0.0, 2.0]), torch.tensor([1.0, 0.0, 0.5]), torch.tensor([1.0, 0.0, 0.0]))
    assert single.difference == 0.5 and math.isnan(single.p)


def test_under_no_difference_p_is_spread_evenly() -> None:
    # 400 pairs of models of the same worth: one in ten has p below 0.1, within four standard errors of 0.015.
    torch.manual_seed(0)
    labels = (torch.arange(100) < 40).float()
    p = torch.tensor([delong(torch.randn(100) + labels, torch.randn(100) + labels, labels).p for _ in range(400)])
    assert (p < 0.1).double().mean().item() == pytest.approx(0.1, abs=0.06)
    assert p.mean().item() == pytest.approx(0.5, abs=0.06)


def test_a_hundred_thousand_examples_take_a_moment() -> None:
    torch.manual_seed(0)
    labels = (torch.rand(100_000) < 0.3).float()
    start = time.perf_counter()
    found = delong(torch.randn(100_000), torch.randn(100_000), labels)
    assert time.perf_counter() - start < 5
    assert isinstance(found, DeLong) and found.first == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (torch.zeros(2), torch.zeros(3), r"got \(3,\) and \(2,\)"),
        (torch.zeros(2, 1), torch.zeros(2), r"DeLong compares logits \(N,\) of one label, got \(2, 1\)"),
        (torch.tensor([1.0, NAN]), torch.zeros(2), "The first model's logits must be finite"),
        (torch.zeros(2), torch.tensor([1.0, math.inf]), "The second model's logits must be finite"),
    ],
)
def test_what_cannot_be_compared_is_said(first: Tensor, second: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        delong(first, second, torch.tensor([0.0, 1.0]))
