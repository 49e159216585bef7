"""Reports made by hand for the tests."""

from dataclasses import replace
from typing import Any

from distill.measure import Latency
from distill.report import Cost, Outcome, Report

TEACHER = {
    "test": {"accuracy": 0.98, "top5": 1.0, "nll": 0.1, "calibration_error": 0.01},
    "validation": {"accuracy": 0.97, "top5": 1.0, "nll": 0.2, "calibration_error": 0.02},
}


def outcome(arm: str, seed: int, accuracy: float, correct: tuple[bool, ...] | None = None) -> Outcome:
    return Outcome(
        arm=arm,
        seed=seed,
        test={"accuracy": accuracy, "top5": 0.99, "nll": 0.3, "calibration_error": 0.05},
        validation={"accuracy": accuracy + 0.01, "top5": 0.98, "nll": 0.4, "calibration_error": 0.06},
        agreement=0.875,
        divergence=0.25,
        epochs=20,
        steps=460,
        best_epoch=17,
        seconds=12.5,
        start={"accuracy": 0.1 + seed / 100, "nll": 2.5},
        correct=correct,
    )


def cost(parameters: int = 78_042, multiply_adds: int | None = 12_345_678, seconds: float = 0.002) -> Cost:
    return Cost(
        parameters=parameters,
        multiply_adds=multiply_adds,
        bytes=4 * parameters,
        latency_one=Latency(seconds, seconds / 10),
        latency_batch=Latency(seconds * 8, seconds),
        batch=32,
    )


def report(accuracies: dict[str, tuple[float, ...]], **changes: Any) -> Report:
    """A report with these test accuracies of each arm, seed by seed."""
    num_seeds = len(next(iter(accuracies.values())))
    made = Report(
        name="digits",
        recipe={"type": "Recipe", "name": "digits", "plan": {"kd": {"weight": 0.9}}},
        seeds=tuple(range(num_seeds)),
        headline="accuracy",
        has_teacher="transferred" in accuracies,
        teacher=TEACHER if "transferred" in accuracies else None,
        outcomes=tuple(outcome(arm, seed, value) for arm in accuracies for seed, value in enumerate(accuracies[arm])),
        teacher_cost=cost(1_235_000, 123_456_789, 0.008) if "transferred" in accuracies else None,
        student_cost=cost(),
        coverage=None,
        versions={"python": "3.12.1", "torch": "2.11.0"},
        machine={"cpu": "A CPU", "cores": 2, "memory_bytes": 8 * 1024**3},
        started="2025-01-01T00:00:00+00:00",
        notes=("The last linear is fresh.",),
        chosen_on="validation",
    )
    return replace(made, **changes)


HELPED = {"plain": (0.90, 0.91, 0.92), "transferred": (0.94, 0.95, 0.96)}
HURT = {"plain": (0.94, 0.95, 0.96), "transferred": (0.90, 0.91, 0.92)}
ALIKE = {"plain": (0.90, 0.91, 0.92), "transferred": (0.905, 0.915, 0.925)}


def one_seed(gained: int, lost: int, same: int) -> Report:
    """A report of one seed in which this many answers changed from plain to transferred; all others are right."""
    plain = (False,) * gained + (True,) * lost + (True,) * same
    transferred = (True,) * gained + (False,) * lost + (True,) * same
    outcomes = [
        outcome(arm, 0, sum(correct) / len(correct), correct)
        for arm, correct in (("plain", plain), ("transferred", transferred))
    ]
    return report({"plain": (0.0,), "transferred": (0.0,)}, outcomes=tuple(outcomes))
