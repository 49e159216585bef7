"""What a run measured, as plain data: each student it trained, its teacher, what both cost, and where it ran."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from distill.measure import Latency as Latency
from distill.report.by_label import ByLabel
from distill.report.statistics import Flips, flips

ARMS = ("plain", "initialized", "transferred")
LOWER_IS_BETTER = ("nll", "perplexity", "calibration_error")


@dataclass(frozen=True)
class Outcome:
    """One trained student: one arm under one seed.

    arm: "transferred", or the control "plain" (without a teacher) or "initialized" (the teacher's weights alone).
    test, validation: the names and values of `metrics.quality`; shares are in [0, 1].
    agreement, divergence: with the teacher, on the test examples; None where the teacher cannot be compared.
    start: as validation, of the student before any training; None where it was not measured.
    best_epoch: the one that was chosen, counted from 1. seconds: of training.
    spent: the same by the parts of `distill.clock`; empty where it is not known.
    correct: whether each test example was answered right, in the order of the data set; not kept in report.json.
    """

    arm: str
    seed: int
    test: Mapping[str, float]
    validation: Mapping[str, float]
    agreement: float | None
    divergence: float | None
    epochs: int
    steps: int
    best_epoch: int
    seconds: float
    start: Mapping[str, float] | None = None
    spent: Mapping[str, float] = field(default_factory=dict)
    correct: tuple[bool, ...] | None = None


@dataclass(frozen=True)
class Cost:
    """What one model costs: for one example, and for `batch` of them at once.

    multiply_adds: of one example; None where they cannot be counted. bytes: of its file.
    """

    parameters: int
    multiply_adds: int | None
    bytes: int
    latency_one: Latency
    latency_batch: Latency
    batch: int


@dataclass(frozen=True)
class Report:
    """A run's result: every number that was measured, and what is needed to judge and to repeat it.

    recipe: as in recipe.json. headline: the test metric that the verdict is about; higher is better.
    has_teacher: whether the run learned from one; then its outcomes are of the arm "transferred" and its controls, and
        else of "plain" alone.
    teacher: {"test": ..., "validation": ...}; None where it was not judged on the student's classes.
    coverage: as from `Coverage.to_json`. started: ISO 8601.
    flips: {control: Flips}, what the answers in `outcomes` came to, for a report read back without them.
    origin: what the examples are, where every page must say so, such as that they are synthetic; empty else.
    by_label: where an example may have several labels; the headline is then "auroc", its mean over the labels.
    pictures: captions with files in the run's folder.

    Raises:
        ValueError: outcomes that do not belong together.
    """

    name: str
    recipe: Mapping[str, Any]
    seeds: tuple[int, ...]
    headline: str
    has_teacher: bool
    teacher: Mapping[str, Mapping[str, float]] | None
    outcomes: tuple[Outcome, ...]
    teacher_cost: Cost | None
    student_cost: Cost
    coverage: Mapping[str, Any] | None
    versions: Mapping[str, str]
    machine: Mapping[str, str | int]
    started: str
    notes: tuple[str, ...]
    chosen_on: Literal["validation"] = "validation"
    flips: Mapping[str, Flips] = field(default_factory=dict)
    origin: str = ""
    by_label: ByLabel | None = None
    pictures: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.outcomes:
            raise ValueError("A report needs at least one outcome, got none.")
        if self.headline in LOWER_IS_BETTER:
            raise ValueError(f"headline is a metric that is better when higher, got {self.headline!r}. Take accuracy.")
        for outcome in self.outcomes:
            if outcome.arm not in ARMS:
                raise ValueError(f"There is no arm {outcome.arm!r}. An outcome's arm is one of {', '.join(ARMS)}.")
        if not ("transferred" in self.arms if self.has_teacher else self.arms == ("plain",)):
            raise ValueError(f"has_teacher={self.has_teacher} does not go with arms {', '.join(self.arms)}.")
        for arm in self.arms:
            seeds = tuple(outcome.seed for outcome in self.of(arm))
            if seeds != tuple(sorted(self.seeds)):
                raise ValueError(f"Each arm has one outcome a seed of {self.seeds}, got {seeds} in {arm}.")
        self._check_metrics()

    def _check_metrics(self) -> None:
        """Every model is judged by the same test metrics; the headline is one of them and of the validation metrics."""
        judged = []
        if self.teacher is not None:
            if not {"test", "validation"} <= set(self.teacher):
                raise ValueError(f"teacher has metrics of test and validation, got {', '.join(self.teacher)}.")
            judged = [("teacher", self.teacher["test"], self.teacher["validation"])]
        judged += [(outcome.arm, outcome.test, outcome.validation) for outcome in self.outcomes]
        names = list(self.outcomes[0].test)
        for model, test, validation in judged:
            if self.headline not in test or self.headline not in validation:
                raise ValueError(f"headline {self.headline!r} is not measured in {model}. Measured: {', '.join(test)}.")
            if set(test) != set(names):
                raise ValueError(f"Test metrics are the same in all, got {', '.join(test)} in {model}, not {names}.")

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that were trained, controls first."""
        return tuple(arm for arm in ARMS if self.of(arm))

    def of(self, arm: str) -> tuple[Outcome, ...]:
        """The outcomes of one arm, in the order of their seeds; none where it was not trained."""
        return tuple(sorted((one for one in self.outcomes if one.arm == arm), key=lambda one: one.seed))

    def values(self, arm: str) -> tuple[float, ...]:
        """The headline's test value of each seed."""
        return tuple(outcome.test[self.headline] for outcome in self.of(arm))

    def flips_against(self, control: str) -> Flips | None:
        """How the transferred student's answers differ from a control's; None with several seeds or without answers."""
        arms = (*self.of(control), *self.of("transferred"))
        if len(self.seeds) > 1 or len(arms) < 2:
            return None
        before, after = (outcome.correct for outcome in arms)
        if before is None or after is None:
            return self.flips.get(control)
        return flips(before, after)
