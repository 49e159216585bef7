"""Weights that move over the epochs, and terms weighed against each other."""

import math

import pytest
import torch

from distill.losses import KD
from distill.plan import Term
from distill.weighting import Balance, Between, Fade, GradNorm, NormFactors, Ramp, Uncertainty, WeightSchedule


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        (Ramp(4), {0: 0.0, 1: 0.25, 4: 1.0, 9: 1.0}),
        (Fade(stop=6, start=2), {0: 1.0, 2: 1.0, 3: 0.75, 6: 0.0, 9: 0.0}),
        (Fade(stop=4, final=0.2), {0: 1.0, 2: 0.6, 4: 0.2, 9: 0.2}),
        # Half a cosine: (1 + cos(pi / 4)) / 2 after a quarter.
        (Fade(stop=4, shape="cosine"), {0: 1.0, 1: (1 + math.sqrt(0.5)) / 2, 2: 0.5, 4: 0.0}),
        (Between(start=2), {0: 0.0, 1.99: 0.0, 2: 1.0, 9: 1.0}),
        (Between(stop=3), {0: 1.0, 2.99: 1.0, 3: 0.0}),
        (Between(start=1, stop=3), {0.5: 0.0, 1: 1.0, 3: 0.0}),
    ],
)
def test_a_weight_moves_as_its_schedule_says(schedule: WeightSchedule, shares: dict[float, float]) -> None:
    assert isinstance(schedule, WeightSchedule)
    term = Term(KD(), weight=3.0, schedule=schedule)
    for epoch, share in shares.items():
        assert schedule.share(epoch) == pytest.approx(share)
        assert term.weight_at(epoch) == pytest.approx(3 * share)
    last = schedule.last_change()
    assert schedule.share(last) == schedule.share(last + 100)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ramp(0), "Ramp.epochs must be above zero, got 0"),
        (lambda: Ramp(math.inf), "Ramp.epochs must be above zero, got inf"),
        (lambda: Fade(stop=2, start=2), "before Fade.stop, got 2"),
        (lambda: Fade(stop=2, final=1.0), "Fade.final must be a share of the weight"),
        (lambda: Fade(stop=2, shape="square"), "Fade.shape must be 'linear' or 'cosine', got 'square'"),
        (lambda: Between(), "got neither: always on"),
        (lambda: Between(start=3, stop=3), "Between.stop must be above Between.start 3, got 3"),
        (lambda: GradNorm(alpha=-1), "GradNorm.alpha must be zero or more, got -1"),
        (lambda: GradNorm(lr=0.0), "GradNorm.lr must be in"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_uncertainty_starts_at_equal_weights_and_its_best_point_is_the_loss_itself() -> None:
    """exp(−s) L + s has its minimum at s = ln L, with the value 1 + ln L."""
    assert isinstance(Uncertainty(), Balance)
    module = Uncertainty().build(("a", "b"))
    factors, penalties = module()
    assert factors.tolist() == [1.0, 1.0] and penalties.tolist() == [0.0, 0.0]
    losses = torch.tensor([0.5, 8.0])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(500):
        factors, penalties = module()
        total = (factors * losses + penalties).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    torch.testing.assert_close(module()[1].detach(), losses.log(), atol=1e-4, rtol=0)
    assert float(total.detach()) == pytest.approx(2 + math.log(0.5) + math.log(8), abs=1e-4)


def grad_norm(alpha: float, lr: float = 0.1) -> NormFactors:
    module = GradNorm(alpha=alpha, lr=lr).build(("a", "b"))
    assert isinstance(module, NormFactors)
    return module


def test_gradnorm_takes_the_step_worked_out_by_hand() -> None:
    """First step: ratios 1, so both targets are the mean norm (3 + 1) / 2 = 2; slopes +3 / 2 and −1 / 2 (over the mean
    norm); factors exp(−0.15) = 0.860708 and exp(0.05) = 1.051271, over their mean 0.955990."""
    module = grad_norm(alpha=1.5)
    module.follow(torch.tensor([2.0, 4.0]), torch.tensor([3.0, 1.0]))
    torch.testing.assert_close(module.factors, torch.tensor([0.860708, 1.051271]) / 0.955990)
    assert module.first.tolist() == [2.0, 4.0]


def test_gradnorm_gives_more_to_the_term_that_lags_behind() -> None:
    """Equal norms 1; a has halved and b has not moved: ratios 0.5 and 1 over their mean 0.75, so b's target is above
    its norm and a's below."""
    module = grad_norm(alpha=1.0)
    module.first.copy_(torch.tensor([2.0, 2.0]))
    module.follow(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]))
    assert module.factors[0] < 1 < module.factors[1]


def test_gradnorm_makes_the_norms_equal_where_alpha_is_zero() -> None:
    module, own = grad_norm(alpha=0.0, lr=0.02), torch.tensor([10.0, 0.5])
    for _ in range(2000):
        module.follow(torch.ones(2), own * module.factors)
    norms = own * module.factors
    assert float(norms.max() / norms.min()) < 1.2
    assert float(module.factors.mean()) == pytest.approx(1.0)


def test_a_term_that_is_off_keeps_its_factor_and_is_met_first_when_it_is_on() -> None:
    module = grad_norm(alpha=1.5)
    module.follow(torch.tensor([2.0, 4.0]), torch.tensor([3.0, 0.0]))
    assert module.factors.tolist() == [1.0, 1.0]
    assert module.first[0] == 2.0 and module.first[1].isnan()
    module.follow(torch.tensor([2.0, 8.0]), torch.tensor([3.0, 1.0]))
    assert module.first.tolist() == [2.0, 8.0]
    assert module.factors.isfinite().all()
