"""A stage's optimizer, with a rate for each depth, and what draws parameters back to their start."""

from typing import Any

import torch

from distill.pair import Learner
from distill.recipe import Stage
from distill.trainer import Start, parameter_groups


def optimizer_of(learner: Learner, stage: Stage, started: frozenset[str]) -> torch.optim.Optimizer:
    """The stage's optimizer, with a rate of its own for each depth where the stage says so.

    started: names of the student's parameters that came from weights; where those are drawn to their start, the
        optimizer does not draw them to zero.

    Raises:
        ValueError: rates go by depth and the student has no repeated blocks.
    """
    undecayed = started if stage.decay_to_start is not None else frozenset[str]()
    groups = parameter_groups(learner, layer_decay=stage.layer_decay, undecayed=undecayed)
    given: list[dict[str, Any]] = [
        {"params": group.parameters, **({} if group.decays else {"weight_decay": 0.0})} for group in groups
    ]
    optimizer = stage.optimizer.build(given)
    for built, group in zip(optimizer.param_groups, groups, strict=True):
        built["lr"] *= group.rate
    return optimizer


def start_of(learner: Learner, stage: Stage, started: frozenset[str]) -> Start | None:
    """What draws the trained parameters that came from weights back to their values now; None where nothing does.

    Raises:
        ValueError: all of them are frozen.
    """
    if stage.decay_to_start is None:
        return None
    named = learner.student.model.named_parameters()
    parameters = {name: parameter for name, parameter in named if name in started and parameter.requires_grad}
    if not parameters:
        raise ValueError(
            f"Stage '{stage.name}': decay_to_start has no effect, since nothing that came from weights is trained. "
            "Leave it out, or freeze less."
        )
    return Start(parameters, stage.decay_to_start)
