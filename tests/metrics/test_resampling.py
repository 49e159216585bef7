import math
import time

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from distill.metrics import (
    Bounds,
    auroc,
    average_precision,
    delong,
    interval,
    labels_above_chance,
    mean_over_labels,
    resample,
)
from distill.metrics.resampling import _draws

NAN = math.nan


def sample(examples: int, labels: int, patients: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Two models of which many scores are tied, labels of which some are unknown, and patients with gaps in numbers."""
    truth = (torch.rand(examples, labels) < 0.3).float()
    scores = [(2 * torch.randn(examples, labels) + truth).round() / 2 for _ in range(2)]
    patient = 7 * torch.randint(patients, (examples,)) - 20
    return scores, truth.masked_fill(torch.rand(examples, labels) < 0.2, NAN), patient


def test_a_resample_is_that_of_scikit_learn_with_weights() -> None:
    torch.manual_seed(0)
    scores, labels, patient = sample(80, 3, 25)
    found = resample(scores, labels, patient, resamples=60, seed=3)
    place = np.unique(patient, return_inverse=True)[1]
    drawn = np.concatenate([drawn for _, drawn in _draws(place.max() + 1, 60, 3)], axis=1)
    assert drawn.shape == (place.max() + 1, 60)
    for r in (0, 1, 49, 50, 59):  # fifty are made at once
        weight = drawn[place, r]
        for model, logits in enumerate(scores):
            for label in range(3):
                rows = (~labels[:, label].isnan()).numpy() & (weight > 0)
                given = labels[rows, label], logits[rows, label]
                expected = [of(*given, sample_weight=weight[rows]) for of in (roc_auc_score, average_precision_score)]
                values = found.auroc[model, r, label].item(), found.average_precision[model, r, label].item()
                assert values == pytest.approx(expected, abs=1e-9)


def test_each_patient_drawn_once_gives_the_measures_themselves() -> None:
    # With one patient all of it is drawn every time.
    torch.manual_seed(0)
    scores, labels, _ = sample(50, 4, 5)
    found = resample(scores, labels, torch.full((50,), 9), resamples=3)
    for model, logits in enumerate(scores):
        torch.testing.assert_close(found.auroc[model], auroc(logits, labels).expand(3, 4), atol=1e-6, rtol=0)
        precision = average_precision(logits, labels).expand(3, 4)
        torch.testing.assert_close(found.average_precision[model], precision, atol=1e-6, rtol=0)


def test_shapes_and_kinds() -> None:
    torch.manual_seed(0)
    scores, labels, patient = sample(30, 3, 8)
    found = resample(scores, labels, patient, resamples=70)
    for areas in (found.auroc, found.average_precision):
        assert areas.shape == (2, 70, 3) and areas.dtype == torch.float64


def test_draws_are_of_patients_as_many_as_there_are_and_depend_on_the_seed_alone() -> None:
    one, again, other = (np.concatenate([x for _, x in _draws(12, 130, seed)], axis=1) for seed in (0, 0, 1))
    assert (one.sum(0) == 12).all()
    assert (one == again).all() and not (one == other).all()
    assert one.std() == pytest.approx(1.0, abs=0.1)  # a binomial of 12 draws at 1/12: √(11/12)


def test_models_and_labels_share_their_patients() -> None:
    torch.manual_seed(0)
    (logits, _), labels, patient = sample(60, 1, 20)
    twice = torch.cat([logits, logits], 1)
    found = resample([twice, 3 * twice + 1], torch.cat([labels, labels], 1), patient, resamples=40)
    assert torch.equal(found.auroc[0], found.auroc[1])
    assert torch.equal(found.auroc[0, :, 0], found.auroc[0, :, 1])
    alone = resample([logits], labels, patient, resamples=40)
    assert torch.equal(alone.auroc[0], found.auroc[0, :, :1])


def test_a_resample_of_one_class_is_nan_for_all_models_alike() -> None:
    # One patient of four has the only positive; (3/4)^4 = 32 % of the resamples go without.
    scores, labels = [torch.randn(4, 1), torch.randn(4, 1)], torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    found = resample(scores, labels, torch.arange(4), resamples=400)
    missing = found.auroc.isnan()
    assert torch.equal(missing[0], missing[1]) and torch.equal(missing, found.average_precision.isnan())
    assert 0.2 < missing[0].double().mean() < 0.45
    none = resample(scores, torch.zeros(4, 1), torch.arange(4), resamples=3)
    assert none.auroc.isnan().all() and none.average_precision.isnan().all()


def test_the_standard_error_of_independent_examples_is_that_of_delong() -> None:
    torch.manual_seed(0)
    truth = (torch.rand(400, 1) < 0.3).float()
    first = torch.randn(400, 1) + truth
    second = first + torch.randn(400, 1)
    drawn = resample([first, second], truth, torch.arange(400), resamples=2000).auroc
    expected = delong(first[:, 0], second[:, 0], truth[:, 0])
    assert interval(drawn[1, :, 0] - drawn[0, :, 0]).standard_error == pytest.approx(expected.standard_error, rel=0.1)


def test_images_of_one_patient_make_the_interval_wider() -> None:
    # Ten copies of each example are worth no more than one; taken for independent they make the error √10 smaller.
    torch.manual_seed(0)
    truth = (torch.rand(100, 1) < 0.4).float()
    logits, labels = (x.repeat(10, 1) for x in (torch.randn(100, 1) + truth, truth))
    of_patients = interval(resample([logits], labels, torch.arange(1000) % 100, resamples=400).auroc[0, :, 0])
    of_images = interval(resample([logits], labels, torch.arange(1000), resamples=400).auroc[0, :, 0])
    assert of_patients.standard_error / of_images.standard_error == pytest.approx(math.sqrt(10), rel=0.2)


def test_interval_by_hand() -> None:
    # 0 to 100 in steps of 1: 2.5 % of the way is 2.5. Standard deviation of 1..101 with n − 1: √(101 · 102 / 12).
    values = torch.arange(101, dtype=torch.float64)
    assert interval(values) == Bounds(2.5, 97.5, pytest.approx(math.sqrt(101 * 102 / 12)))
    assert interval(torch.cat([values, torch.full((101,), NAN)])) == interval(values)


def test_interval_of_too_few_resamples_is_nan() -> None:
    for values in ([0.5, 0.6, NAN, NAN, NAN], [NAN, NAN], [0.5]):
        assert all(math.isnan(value) for value in vars(interval(torch.tensor(values))).values())


def test_mean_over_labels_leaves_out_what_is_nan() -> None:
    values = torch.tensor([[1.0, NAN], [1.0, 2.0], [NAN, NAN]], dtype=torch.float64)
    assert mean_over_labels(values).tolist() == pytest.approx([1.0, 1.5, NAN], nan_ok=True)


def test_above_chance() -> None:
    torch.manual_seed(0)
    labels = (torch.rand(200, 3) < 0.3).float()
    assert labels_above_chance(torch.randn(200, 3) + 2 * labels, labels, torch.arange(200))
    assert not labels_above_chance(torch.randn(200, 3), labels, torch.arange(200))
    assert not labels_above_chance(labels, torch.zeros(200, 3), torch.arange(200))


def test_two_patients_are_too_few_to_be_above_chance_however_many_their_images() -> None:
    # Each has 25 images with the label and 25 without, of one ranked rightly (3 above 0) and of the other wrongly (1
    # below 2). Together 3/4 of the pairs are right, but a quarter of the draws have the other patient alone.
    labels = (torch.arange(100) % 2).float()[:, None]
    patient = torch.arange(100) // 50
    logits = torch.where(patient[:, None] == 0, 3 * labels, 2 - labels)
    assert labels_above_chance(logits, labels, torch.arange(100))
    assert not labels_above_chance(logits, labels, patient)


def test_fourteen_labels_of_thousands_of_examples_take_a_moment() -> None:
    torch.manual_seed(0)
    labels = (torch.rand(5000, 14) < 0.06).float()
    start = time.perf_counter()
    resample([torch.randn(5000, 14), torch.randn(5000, 14)], labels, torch.arange(5000) // 9, resamples=200)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("scores", "patient", "resamples", "message"),
    [
        ([], torch.arange(2), 10, "got 0 models, resamples=10"),
        ([torch.zeros(2, 1)], torch.arange(2), 0, "got 1 models, resamples=0"),
        ([torch.zeros(3, 1)], torch.arange(2), 10, r"got \(3, 1\) and \(2, 1\)"),
        ([torch.full((2, 1), NAN)], torch.arange(2), 10, "The logits must be finite numbers, got nan"),
        ([torch.zeros(2, 1)], torch.arange(3), 10, r"each of 2 examples, got torch.int64 \(3,\)"),
        ([torch.zeros(2, 1)], torch.arange(2).float(), 10, r"got torch.float32 \(2,\)"),
    ],
)
def test_what_cannot_be_drawn_is_said(scores: list[Tensor], patient: Tensor, resamples: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resample(scores, torch.tensor([[0.0], [1.0]]), patient, resamples=resamples)


def test_an_interval_of_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 3\)"):
        interval(torch.zeros(2, 3))
