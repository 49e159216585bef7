import math

import pytest

from distill.recipe import Constant, Cosine, LinearDecay, Schedule, Steps

EVERY = (Constant(), Cosine(), LinearDecay(), Steps(milestones=(2,)))


@pytest.mark.parametrize("schedule", EVERY)
def test_without_warm_up_the_rate_starts_at_its_value(schedule: Schedule) -> None:
    assert schedule.factor(0.0, 10) == 1.0


def test_a_constant_rate_stays() -> None:
    assert [Constant().factor(epoch, 4) for epoch in (0.0, 1.7, 4.0)] == [1.0, 1.0, 1.0]


def test_cosine_follows_half_a_cosine_to_its_final_share() -> None:
    # Half way cos is 0, so the middle of 1 and 0.2; a third of the way cos(60 degrees) = 1/2: 0.2 + 0.8 * 3/4.
    schedule = Cosine(final=0.2)
    assert schedule.factor(3.0, 6) == pytest.approx(0.6)
    assert schedule.factor(2.0, 6) == pytest.approx(0.8)
    assert schedule.factor(6.0, 6) == pytest.approx(0.2)


def test_linear_follows_a_straight_line_to_its_final_share() -> None:
    # A quarter of the way from 1 to 0.2 is 0.8.
    schedule = LinearDecay(final=0.2)
    assert schedule.factor(2.0, 8) == pytest.approx(0.8)
    assert schedule.factor(8.0, 8) == pytest.approx(0.2)
    assert LinearDecay().factor(8.0, 8) == 0.0


def test_steps_multiply_the_rate_from_each_milestone_on() -> None:
    # The literature's CIFAR-100 setting: 0.05 of 240 epochs, a tenth at 150, 180 and 210.
    schedule = Steps(milestones=(150, 180, 210))
    rates = [schedule.factor(epoch, 240) for epoch in (0.0, 149.99, 150.0, 179.0, 180.0, 210.0, 240.0)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.001, 0.001])


@pytest.mark.parametrize(
    "schedule",
    [Constant(warmup_epochs=2), Cosine(warmup_epochs=2), LinearDecay(warmup_epochs=2), Steps((5,), warmup_epochs=2)],
)
def test_the_warm_up_rises_linearly_from_a_hundredth(schedule: Schedule) -> None:
    # Half way between 0.01 and 1 is 0.505.
    assert [schedule.factor(epoch, 10) for epoch in (0.0, 1.0, 2.0)] == pytest.approx([0.01, 0.505, 1.0])


def test_the_decay_runs_over_what_the_warm_up_leaves() -> None:
    # Two of ten epochs are warm-up, so the decay is half way at epoch 6.
    assert Cosine(warmup_epochs=2).factor(6.0, 10) == pytest.approx(0.5)
    assert LinearDecay(warmup_epochs=2).factor(6.0, 10) == pytest.approx(0.5)


@pytest.mark.parametrize("schedule", [Constant(3), Cosine(3), LinearDecay(3), Steps((1,), warmup_epochs=3)])
def test_a_warm_up_that_does_not_end_in_time_is_refused(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match="a warm-up of 3 epochs does not end within 3 epochs"):
        schedule.factor(0.0, 3)


def test_a_milestone_without_effect_is_refused() -> None:
    with pytest.raises(ValueError, match="the milestone at epoch 210 has no effect in 100 epochs"):
        Steps(milestones=(50, 210)).factor(0.0, 100)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(warmup_epochs=-1), "warmup_epochs must not be negative, got -1"),
        (lambda: Cosine(final=1.0), r"final .* in \[0, 1\), got 1.0"),
        (lambda: LinearDecay(final=-0.1), r"final .* in \[0, 1\), got -0.1"),
        (lambda: Steps(()), "at least one milestone"),
        (lambda: Steps((10, 10)), "increase"),
        (lambda: Steps((0, 10)), "above zero"),
        (lambda: Steps((10,), gamma=1.0), r"gamma lies in \(0, 1\), got 1.0"),
        (lambda: Steps([10]), r"milestones: expected a tuple \(a number, ...\), got \[10\]. Write a tuple: \(10,\)."),
        (lambda: Cosine(warmup_epochs="1"), "warmup_epochs: expected a number, got '1'"),
        (lambda: Cosine(warmup_epochs=math.nan), "warmup_epochs: expected a number, got nan"),
    ],
)
def test_wrong_settings_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
