"""A stage of a recipe: one plan, trained for its epochs by its own optimizer."""

import math
import re
from dataclasses import dataclass, field

from torch import nn

from distill.plan import Plan, Term
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
        if name in dir(nn.ModuleDict):
            raise ValueError(f"A term can't be named {name!r}, which means something to PyTorch. Choose another name.")
        if not (term.weight >= 0 and math.isfinite(term.weight)):
            raise ValueError(f"plan.{name}.weight must be zero or more, got {term.weight}.")
        if term.needs_teacher and term.teacher is None:
            raise ValueError(
                f"plan.{name} compares with a teacher and its teacher tap is None. Name a tap, such as 'logits'."
            )
        if term.match is not None:
            _check_match(name, plan)
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


def check_decays(layer_decay: float | None, decay_to_start: float | None) -> None:
    """Refuse factors that are none.

    Raises:
        ValueError: names the setting.
    """
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay lies in (0, 1], got {layer_decay}. For one rate at all depths leave it out.")
    if decay_to_start is not None and decay_to_start <= 0:
        raise ValueError(f"decay_to_start must be above zero, got {decay_to_start}. For no pull leave it out.")


def _check_match(name: str, plan: Plan) -> None:
    """Refuse a term that both names its taps and leaves them to be chosen, or whose arrows have no name free."""
    term = plan[name]
    blank = Term(term.loss)
    if not term.needs_teacher:
        raise ValueError(f"plan.{name} compares with the labels, so no layers match for it. Leave out match=.")
    sides = (
        ("student", term.student, blank.student),
        ("teacher", term.teacher, blank.teacher),
        ("head", term.head, blank.head),
    )
    for setting, value, default in sides:
        if value != default:
            raise ValueError(f"plan.{name}.{setting} has no effect beside match=, which chooses it. Leave one out.")
    taken = [other for other in plan if re.fullmatch(rf"{name}_\d+", other)]
    if taken:
        raise ValueError(f"plan.{taken[0]} is named like an arrow of plan.{name}, which match= chooses. Rename one.")


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
    layer_decay: factor on the learning rate from each of the student's blocks to the one before it; none for one rate.
    decay_to_start: weight decay towards the values at the stage's start, of parameters that came from weights (L2-SP);
        the rest keep the optimizer's.
    """

    name: str
    plan: Plan
    epochs: int
    optimizer: Optimizer
    schedule: Schedule = field(default_factory=Constant)
    freeze: tuple[str, ...] = ()
    layer_decay: float | None = None
    decay_to_start: float | None = None

    def __post_init__(self) -> None:
        check(self)
        if not re.fullmatch(r"[^\W\d][\w-]*", self.name):
            raise ValueError(
                f"A stage is named in letters, digits, '-' and '_', beginning with a letter, got {self.name!r}."
            )
        try:
            check_training(self.plan, self.epochs, self.optimizer, self.schedule)
            check_decays(self.layer_decay, self.decay_to_start)
        except ValueError as error:
            raise ValueError(f"Stage '{self.name}': {error}") from error
        if "" in self.freeze or len(set(self.freeze)) < len(self.freeze):
            raise ValueError(
                f"Stage '{self.name}': freeze holds different patterns such as 'layer1.*', got {self.freeze}."
            )
