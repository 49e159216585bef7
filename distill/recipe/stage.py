"""A stage of a recipe: one plan, trained for its epochs by its own optimizer."""

import math
import re
from dataclasses import dataclass, field

from distill.plan import Plan
from distill.recipe.optimizers import Optimizer
from distill.recipe.schedules import Constant, Schedule
from distill.recipe.values import check
from distill.weighting import Between, WeightSchedule


def check_training(plan: Plan, epochs: int, optimizer: Optimizer, schedule: Schedule) -> None:
    """Refuse a plan, epochs and schedule that cannot train together.

    Raises:
        ValueError: what is wrong with them, or has no effect.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}.")
    if not plan:
        raise ValueError("plan has no terms. Add one, such as 'task': Term(CrossEntropy()).")
    for name, term in plan.items():
        if not name.isidentifier():
            raise ValueError(f"A term is named like a variable, in letters, digits and underscores, got {name!r}.")
        if not (term.weight >= 0 and math.isfinite(term.weight)):
            raise ValueError(f"plan.{name}.weight must be zero or more, got {term.weight}.")
        if term.needs_teacher and term.teacher is None:
            raise ValueError(
                f"plan.{name} compares with a teacher and its teacher tap is None. Name a tap, such as 'logits'."
            )
        if term.schedule is not None and _too_late(term.schedule, epochs):
            late = f"plan.{name}.schedule still changes at epoch {term.schedule.last_change():g} of {epochs}"
            raise ValueError(f"{late}. Shorten it, or train longer.")
    if all(term.weight == 0 for term in plan.values()):
        raise ValueError("All terms of the plan have weight 0, so nothing would be learned. Give one a weight.")
    for epoch in range(epochs):
        if all(term.weight_at(epoch + 0.5) == 0 for term in plan.values()):
            raise ValueError(f"All terms of the plan are off in epoch {epoch + 1}. Let one of their schedules overlap.")
    for epoch in (0, epochs):
        try:
            factor = schedule.factor(float(epoch), epochs)
        except ValueError as error:
            raise ValueError(f"schedule: {error}") from error
        if not (factor >= 0 and math.isfinite(factor)):
            raise ValueError(
                f"schedule: the learning rate's multiplier at epoch {epoch} must be zero or more, got {factor}."
            )


def _too_late(schedule: WeightSchedule, epochs: int) -> bool:
    """Whether the stage ends before the weight has moved as the schedule says."""
    return schedule.last_change() > epochs or (isinstance(schedule, Between) and schedule.last_change() == epochs)


@dataclass(frozen=True)
class Stage:
    """A plan with its own epochs, optimizer and frozen parameters; stages train the same student in turn.

    name: heads the log and the report.
    plan: {term's name: Term}.
    epochs: passes over the training split.
    optimizer: built anew for the stage.
    schedule: multiplier of the learning rate, over the stage's own epochs.
    freeze: patterns (as of a shell) of the names of the student's parameters that stay as they are.
    """

    name: str
    plan: Plan
    epochs: int
    optimizer: Optimizer
    schedule: Schedule = field(default_factory=Constant)
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self)
        if not re.fullmatch(r"[^\W\d][\w-]*", self.name):
            raise ValueError(
                f"A stage is named in letters, digits, '-' and '_', beginning with a letter, got {self.name!r}."
            )
        try:
            check_training(self.plan, self.epochs, self.optimizer, self.schedule)
        except ValueError as error:
            raise ValueError(f"Stage '{self.name}': {error}") from error
        if "" in self.freeze or len(set(self.freeze)) < len(self.freeze):
            raise ValueError(
                f"Stage '{self.name}': freeze holds different patterns such as 'layer1.*', got {self.freeze}."
            )
