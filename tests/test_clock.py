"""The seconds of each part add up, and a reading starts anew; the time is told by hand here."""

from collections.abc import Iterator

import pytest
import torch

from distill import clock
from distill.clock import Stopwatch


class Time:
    """A clock that goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    told = Time()
    monkeypatch.setattr(clock.time, "perf_counter", told)
    yield told


def test_parts_add_up_over_their_visits(time: Time) -> None:
    """By hand: 2 + 3 seconds of waiting, 4 of the teacher, and 1 of neither; 10 in all."""
    watch = Stopwatch(torch.device("cpu"))
    with watch.host("wait"):
        time.now += 2
    with watch.device("teacher"):
        time.now += 4
    time.now += 1
    with watch.host("wait"):
        time.now += 3
    assert watch.read() == (10.0, {"wait": 5.0, "teacher": 4.0})


def test_a_reading_starts_anew(time: Time) -> None:
    watch = Stopwatch(torch.device("cpu"))
    with watch.host("wait"):
        time.now += 2
    watch.read()
    assert watch.read() == (0.0, {})
    time.now += 1
    with watch.host("wait"):
        time.now += 0.5
    assert watch.read() == (1.5, {"wait": 0.5})


def test_a_part_within_a_part_counts_in_both(time: Time) -> None:
    watch = Stopwatch(torch.device("cpu"))
    with watch.host("step"):
        time.now += 1
        with watch.device("teacher"):
            time.now += 2
    assert watch.read() == (3.0, {"teacher": 2.0, "step": 3.0})


def test_a_clock_that_is_set_back_gives_no_negative_seconds(time: Time) -> None:
    """By hand: 2 seconds of waiting; then the clock falls by 1000 while waiting, and by 9 amid a step of 1 + 3."""
    watch = Stopwatch(torch.device("cpu"))
    with watch.host("wait"):
        time.now += 2
    with watch.host("wait"):
        time.now -= 1000
    with watch.device("step"):
        time.now += 1
        with watch.host("wait"):
            time.now -= 9
        time.now += 3
    assert watch.read() == (6.0, {"wait": 2.0, "step": 4.0})


def test_real_work_takes_real_time() -> None:
    watch = Stopwatch(torch.device("cpu"))
    with watch.device("work"):
        torch.ones(100, 100) @ torch.ones(100, 100)
    total, parts = watch.read()
    assert 0 < parts["work"] <= total < 60
