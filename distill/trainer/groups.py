"""Which of a learner's parameters share a learning rate and a weight decay."""

from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from distill.initialize import depths
from distill.pair import Learner

_STUDENT = "student.model."


@dataclass(frozen=True)
class Group:
    """Parameters for an optimizer.

    rate: factor on the learning rate. decays: whether the optimizer's weight decay holds for them.
    """

    parameters: tuple[nn.Parameter, ...]
    rate: float = 1.0
    decays: bool = True


def parameter_groups(
    learner: Learner, *, layer_decay: float | None = None, undecayed: Collection[str] = ()
) -> list[Group]:
    """What is trained of a learner, the highest rates first; a balance last, which weight decay would draw to equal.

    layer_decay: factor on the learning rate from each block of the student to the one before it. A parameter at depth d
        of D has rate layer_decay ** (D - d), as in ELECTRA's fine-tuning (Clark et al., 2020, arXiv:2003.10555,
        appendix B), whose depths `depths` gives but for one: there the classifier is a step further from the last
        block. Heads have the full rate.
    undecayed: names of the student's parameters that weight decay leaves out.

    Raises:
        ValueError: layer_decay is given and the student has no repeated blocks.
    """
    rates: dict[str, float] = {}
    if layer_decay is not None:
        found, deepest = depths(learner.student.model)
        rates = {name: layer_decay ** (deepest - depth) for name, depth in found.items()}
    balance = () if learner.balance is None else tuple(p for p in learner.balance.parameters() if p.requires_grad)
    own = {id(parameter) for parameter in balance}
    members: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for full_name, parameter in learner.named_parameters():
        if parameter.requires_grad and id(parameter) not in own:
            name = full_name.removeprefix(_STUDENT) if full_name.startswith(_STUDENT) else ""
            members.setdefault((rates.get(name, 1.0), name not in undecayed), []).append(parameter)
    groups = [Group(tuple(members[kind]), *kind) for kind in sorted(members, reverse=True)]
    return [*groups, *([Group(balance, decays=False)] if balance else [])]
