"""Test examples on which models differ, those that tell most first."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from distill.answers import TEACHER, Answers
from distill.compare.comparison import Answer, Differing

_EACH = 8


def differing(models: Mapping[str, Sequence[Answers]], classes: Sequence[str], arm: str) -> tuple[Differing, ...]:
    """Up to 24 examples under the first seed: the run's student is right and another model wrong, or the reverse.

    arm: the run itself. Each group is sorted by how sure the one that is wrong was; a model without any is left out.
    With several labels they are those of which teacher and student, or control and student, think most differently.
    """
    first = {name: of_model[0] for name, of_model in models.items()}
    others = [name for name in (TEACHER, "plain", "initialized") if name in first and name != arm]
    if not others or arm not in first:
        return ()
    if first[arm].test.several:
        return tuple(_labels(first, classes, arm, others[0]))
    logits = {name: answers.test.logits for name, answers in first.items()}
    labels = first[arm].test.labels
    said = {name: each.argmax(1) for name, each in logits.items()}
    sure = {name: each.double().softmax(1).amax(1) for name, each in logits.items()}
    chosen: list[int] = []
    for other in others:
        for wrong, good in ((arm, other), (other, arm)):
            which = (said[wrong] != labels) & (said[good] == labels)
            order = torch.where(which, sure[wrong], -1).argsort(descending=True, stable=True)
            chosen += [place for place in order[: int(which.sum())].tolist() if place not in chosen][: _EACH // 2]
    return tuple(
        Differing(
            place,
            classes[int(labels[place])],
            tuple(Answer(name, classes[int(said[name][place])], float(sure[name][place])) for name in first),
        )
        for place in chosen
    )


def _labels(first: Mapping[str, Answers], classes: Sequence[str], arm: str, other: str) -> Iterator[Differing]:
    chance = {name: answers.test.logits.double().sigmoid() for name, answers in first.items()}
    truth = first[arm].test.labels
    # Who is right about a label that is not known nobody can say.
    apart = (chance[arm] - chance[other]).abs().masked_fill(truth.isnan(), -1)
    most = apart.amax(1)
    for place in most.argsort(descending=True)[: min(2 * _EACH, int((most >= 0).sum()))].tolist():
        label = int(apart[place].argmax())
        yield Differing(
            place,
            _named(truth[place], classes),
            tuple(Answer(name, classes[label], float(each[place, label])) for name, each in chance.items()),
        )


def _named(labels_K: Tensor, classes: Sequence[str]) -> str:
    found = [name for name, value in zip(classes, labels_K.tolist(), strict=True) if value == 1]
    return ", ".join(found) or "none of them"
