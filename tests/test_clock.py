"""Each second is of one part, and a reading starts anew; the time is told by hand here, that of a GPU too."""

from collections.abc import Iterator

import pytest
import torch

from distill import clock
from distill.clock import OTHER, Stopwatch, added, shares


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
    with watch.part("wait"):
        time.now += 2
    with watch.part("teacher"):
        time.now += 4
    time.now += 1
    with watch.part("wait"):
        time.now += 3
    assert watch.read() == {"wait": 5.0, "teacher": 4.0, OTHER: 1.0}


def test_a_reading_starts_anew_and_all_that_was_spent_stays(time: Time) -> None:
    watch = Stopwatch(torch.device("cpu"))
    with watch.part("wait"):
        time.now += 2
    watch.read()
    assert watch.read() == {"wait": 0.0, OTHER: 0.0}
    time.now += 1
    with watch.part("wait"):
        time.now += 0.5
    assert watch.spent() == {"wait": 2.5, OTHER: 1.0}
    assert watch.read() == {"wait": 0.5, OTHER: 1.0}
    assert watch.spent() == {"wait": 2.5, OTHER: 1.0}


def test_a_part_within_a_part_is_taken_off_the_outer_one(time: Time) -> None:
    watch = Stopwatch(torch.device("cpu"))
    with watch.part("step"):
        time.now += 1
        with watch.part("teacher"):
            time.now += 2
        time.now += 4
    assert watch.read() == {"step": 5.0, "teacher": 2.0, OTHER: 0.0}


def test_a_part_that_is_under_way_is_read_so_far(time: Time) -> None:
    watch = Stopwatch(torch.device("cpu"))
    with watch.part("wait"):
        time.now += 2
        assert watch.read() == {"wait": 2.0, OTHER: 0.0}
        time.now += 3
    assert watch.read() == {"wait": 3.0, OTHER: 0.0}


def test_a_clock_that_is_set_back_gives_no_negative_seconds(time: Time) -> None:
    """By hand: 2 seconds of waiting; then the clock falls by 1000 while waiting, and by 9 amid a step of 1 + 3."""
    watch = Stopwatch(torch.device("cpu"))
    with watch.part("wait"):
        time.now += 2
    with watch.part("wait"):
        time.now -= 1000
    with watch.part("step"):
        time.now += 1
        with watch.part("wait"):
            time.now -= 9
        time.now += 3
    assert watch.read() == {"wait": 2.0, "step": 4.0, OTHER: 0.0}


def test_real_work_takes_real_time() -> None:
    watch = Stopwatch(torch.device("cpu"))
    with watch.part("work"):
        torch.ones(100, 100) @ torch.ones(100, 100)
    assert 0 < watch.read()["work"] < 60


def test_shares_are_of_the_whole_and_seconds_add_up_part_by_part() -> None:
    assert shares({"teacher": 3.0, OTHER: 1.0}) == {"teacher": 0.75, OTHER: 0.25}
    assert shares({"teacher": 0.0}) == {"teacher": 0.0} and shares({}) == {}
    assert added({"teacher": 1.0, "wait": 2.0}, {"wait": 3.0, OTHER: 4.0}) == {"teacher": 1.0, "wait": 5.0, OTHER: 4.0}


class Gpu:
    """A device that works off its queue by itself: `work` queues seconds of it, `passed` is how far it has come."""

    def __init__(self) -> None:
        self.queued = self.passed = 0.0
        self.made = self.waits = 0

    def work(self, seconds: float) -> None:
        self.queued += seconds


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    device = Gpu()

    class Event:
        def __init__(self, kind: str, *, enable_timing: bool) -> None:
            assert kind == "cuda" and enable_timing
            device.made += 1

        def record(self) -> None:
            self.at = device.queued

        def query(self) -> bool:
            return self.at <= device.passed

        def synchronize(self) -> None:
            device.waits += 1
            device.passed = max(device.passed, self.at)

        def elapsed_time(self, end: "Event") -> float:
            assert self.query() and end.query(), "an event that the device has not passed has no time"
            return (end.at - self.at) * 1000

    monkeypatch.setattr(clock.torch, "Event", Event)
    return device


def test_on_a_gpu_the_time_is_the_devices_own_and_is_waited_for_only_when_it_is_asked_for(gpu: Gpu) -> None:
    watch = Stopwatch(torch.device("cuda"))
    with watch.part("step"):
        gpu.work(1)
        with watch.part("teacher"):
            gpu.work(2)
        gpu.work(4)
    gpu.work(8)
    assert gpu.waits == 0
    assert watch.read() == pytest.approx({"step": 5.0, "teacher": 2.0, OTHER: 8.0})
    assert gpu.waits == 1
    with watch.part("teacher"):
        gpu.work(16)
    assert watch.read() == pytest.approx({"step": 0.0, "teacher": 16.0, OTHER: 0.0})
    assert watch.spent() == pytest.approx({"step": 5.0, "teacher": 18.0, OTHER: 8.0})


def test_events_that_the_device_has_passed_are_used_again_so_that_they_do_not_pile_up(gpu: Gpu) -> None:
    """A device that stays 3 seconds behind: 20,000 events are asked for before anyone reads, few are made."""
    watch = Stopwatch(torch.device("cuda"))
    for _ in range(10_000):
        with watch.part("teacher"):
            gpu.work(0.5)
        gpu.work(0.25)
        gpu.passed = gpu.queued - 3
    assert gpu.waits == 0 and gpu.made < 1100
    assert watch.read() == pytest.approx({"teacher": 5000.0, OTHER: 2500.0})
