import math

import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import Asymmetric, BinaryCrossEntropy, Loss

NAN = math.nan
# σ(ln 3) = 3/4, σ(0) = 1/2 and σ(−ln 4) = 1/5.
LOGITS = torch.tensor([[math.log(3), 0.0, -math.log(4)]], dtype=torch.float64)


def loss_of(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    return loss(logits, None, Batch(logits, labels, torch.arange(len(logits))))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # (1 − p)^1 · −ln p.
        ([1.0, NAN, NAN], math.log(4 / 3) / 4),
        ([NAN, 1.0, NAN], math.log(2) / 2),
        # p_m = p − 1/4, to the second power, times −ln(1 − p_m); nothing below the margin.
        ([0.0, NAN, NAN], math.log(2) / 4),
        ([NAN, 0.0, NAN], math.log(4 / 3) / 16),
        ([NAN, NAN, 0.0], 0.0),
        ([NAN, NAN, 1.0], math.log(5) * 4 / 5),
        # The mean over what is known.
        ([1.0, 0.0, NAN], (math.log(4 / 3) / 4 + math.log(4 / 3) / 16) / 2),
        ([0.0, 1.0, 0.0], (math.log(2) / 4 + math.log(2) / 2) / 3),
        # A label of 1/4 is a quarter of a positive and three quarters of a negative.
        ([0.25, NAN, NAN], math.log(4 / 3) / 16 + 3 * math.log(2) / 16),
        ([NAN, NAN, NAN], 0.0),
    ],
)
def test_value_is_the_mean_over_the_known_labels(labels: list[float], expected: float) -> None:
    loss = Asymmetric(focus_negative=2.0, focus_positive=1.0, margin=0.25)
    assert loss_of(loss, LOGITS, torch.tensor([labels])).item() == pytest.approx(expected)


def test_value_with_the_settings_of_the_paper() -> None:
    # 0.7^4 · −ln 0.3 of the negative at 3/4, −ln 1/2 of the positive.
    value = loss_of(Asymmetric(), LOGITS, torch.tensor([[0.0, 1.0, NAN]])).item()
    assert value == pytest.approx((0.7**4 * math.log(1 / 0.3) + math.log(2)) / 2)


def test_without_focus_and_margin_it_is_binary_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, labels = 5 * torch.randn(8, 6, dtype=torch.float64), torch.rand(8, 6, dtype=torch.float64)
    labels[torch.rand(8, 6) < 0.4] = NAN
    loss = Asymmetric(focus_negative=0.0, focus_positive=0.0, margin=0.0)
    torch.testing.assert_close(loss_of(loss, logits, labels), loss_of(BinaryCrossEntropy(), logits, labels))


def test_it_equals_the_plain_formula() -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(8, 6, dtype=torch.float64), torch.rand(8, 6, dtype=torch.float64)
    labels[torch.rand(8, 6) < 0.4] = NAN
    p = logits.sigmoid()
    shifted = (p - 0.1).clamp(min=0)
    positive, negative = (1 - p) ** 1.5 * p.log(), shifted**3 * (1 - shifted).log()
    expected = (-labels * positive - (1 - labels) * negative).nanmean(1)
    loss = Asymmetric(focus_negative=3.0, focus_positive=1.5, margin=0.1)
    torch.testing.assert_close(loss_of(loss, logits, labels), expected)


def test_the_gradient_is_that_of_the_whole_loss_with_its_weight() -> None:
    # One negative at p = 3/4 with m = 1/4, γ− = 2: d/dp of −(p − m)² ln(1 − p + m) is
    # −2 · 1/2 · ln 1/2 + (1/2)² / (1/2) = ln 2 + 1/2; and dp/dz = p (1 − p) = 3/16.
    logits = LOGITS.clone().requires_grad_()
    loss = Asymmetric(focus_negative=2.0, margin=0.25)
    loss_of(loss, logits, torch.tensor([[0.0, NAN, NAN]])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist()[0] == pytest.approx([3 / 16 * (math.log(2) + 0.5), 0.0, 0.0])


@pytest.mark.parametrize("focus", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("margin", [0.0, 0.05])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_and_unknown_labels_give_no_nan(focus: float, margin: float, dtype: torch.dtype) -> None:
    extreme = [-1e4, -200.0, -80.0, 0.0, 80.0, 200.0, 1e4]
    loss = Asymmetric(focus_negative=focus, focus_positive=focus, margin=margin)
    for label in (0.0, 1.0, NAN):
        logits = torch.tensor([extreme]).to(dtype).requires_grad_()
        value = loss_of(loss, logits, torch.full((1, len(extreme)), label))
        value.sum().backward()
        assert value.isfinite().all() and logits.grad is not None and logits.grad.isfinite().all()
        assert not math.isnan(label) or (value.item() == 0 and not logits.grad.any())


def test_a_positive_that_is_surely_missed_costs_its_logit_and_keeps_its_gradient() -> None:
    logits = torch.tensor([[-80.0]], requires_grad=True)
    value = loss_of(Asymmetric(), logits, torch.ones(1, 1))
    value.sum().backward()
    assert value.item() == pytest.approx(80)
    assert logits.grad is not None and logits.grad.item() == pytest.approx(-1)


def test_easy_negatives_count_less_than_in_binary_cross_entropy_and_the_easiest_nothing() -> None:
    logits, labels = torch.tensor([[-4.0], [-2.0], [0.0], [2.0]]), torch.zeros(4, 1)
    share = loss_of(Asymmetric(), logits, labels) / loss_of(BinaryCrossEntropy(), logits, labels)
    assert share[0] == 0 and (share.diff() > 0).all() and share[-1] < 1


def test_a_cut_batch_gives_each_example_the_same() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 4, dtype=torch.float64), torch.rand(7, 4).round()
    labels[torch.rand(7, 4) < 0.6] = NAN
    rows = [loss_of(Asymmetric(), logits[i : i + 1], labels[i : i + 1]) for i in range(7)]
    torch.testing.assert_close(torch.cat(rows), loss_of(Asymmetric(), logits, labels))


@pytest.mark.parametrize("labels", [torch.tensor([1]), torch.tensor([[1, 0, 0]]), torch.zeros(1), torch.zeros(1, 2)])
def test_labels_that_do_not_meet_the_logits_are_refused(labels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^Asymmetric takes logits \(B, K\) .* got logits \(1, 3\) and labels torch"):
        loss_of(Asymmetric(), LOGITS, labels)
