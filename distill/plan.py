"""Which student tensor meets which teacher tensor, through which head, under which loss; and its dry run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.heads import Head, Joint, Meeting, ReadsTeacher
from distill.losses.kinds import Coupled, HonoursMask, Loss, Task
from distill.matching import Matching, Rule
from distill.measure import evaluating
from distill.pair import Learner, Met, Taps, Teacher, Value, answers_of, gather_taps
from distill.taps import Tapped
from distill.weighting import WeightSchedule


@dataclass(frozen=True)
class Term:
    """One arrow of a plan: a weighted loss between a tap of the student and a tap of the teacher.

    student, teacher: names of taps (see `distill.taps`), or tuples of them for a relation between layers.
    head: maps the student's tensor to the teacher's shape; it is learned with the student. With several taps each gets
    its own, unless the head joins them.
    schedule: how the weight moves over the epochs; None for constant.
    match: how student, teacher and head are chosen instead, for one arrow or more that share the weight: "auto", the
        name of another rule, or Matching(...); None takes them as they stand here.
    """

    loss: Loss
    weight: float = 1.0
    student: Taps = "logits"
    teacher: Taps | None = "logits"
    head: Head | None = None
    schedule: WeightSchedule | None = None
    match: Matching | Rule | None = None

    @property
    def matching(self) -> Matching | None:
        """How the taps are chosen; None where the term names them."""
        return self.match if isinstance(self.match, Matching | None) else Matching(self.match)

    def weight_at(self, epoch: float) -> float:
        """The weight after `epoch` epochs of its stage, which may be a fraction."""
        return self.weight * (1.0 if self.schedule is None else self.schedule.share(epoch))

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss reads the teacher; a loss against the labels alone does not."""
        return not isinstance(self.loss, Task)

    @property
    def couples(self) -> bool:
        """Whether the loss relates the examples of the whole batch, over micro-batches and processes."""
        return isinstance(self.loss, Coupled) and self.loss.scope == "global"


Plan = Mapping[str, Term]


@dataclass(frozen=True)
class Arrow:
    """What the dry run found out about one term; shapes without the batch dimension."""

    term: str
    loss: str
    weight: float
    student: str
    student_shape: str
    teacher: str
    teacher_shape: str
    head: str
    head_parameters: int


def teacher_taps(plan: Plan) -> tuple[str, ...]:
    """The taps that the plan needs of the teacher, each once."""
    terms = (term for term in plan.values() if term.needs_teacher and term.teacher is not None and term.match is None)
    return tuple(dict.fromkeys(tap for term in terms if term.teacher is not None for tap in _as_tuple(term.teacher)))


def student_taps(plan: Plan) -> tuple[str, ...]:
    """The taps that the plan needs of the student, each once."""
    terms = (term for term in plan.values() if term.match is None)
    return tuple(dict.fromkeys(tap for term in terms for tap in _as_tuple(term.student)))


def connect(
    teacher: nn.Module | None,
    student: nn.Module,
    plan: Plan,
    sample: Batch,
    *,
    teacher_view: nn.Module | None = None,
    student_view: nn.Module | None = None,
    balance: nn.Module | None = None,
    aligned: bool = True,
) -> tuple[Teacher | None, Learner]:
    """The teacher and the learner of a plan, with heads sized by one dry run on a few examples.

    balance: what weighs the terms against each other, if anything; it becomes part of the learner.
    aligned: whether both models cut an example into the same positions. Where they do not, as texts under two
        tokenizers, only what is one vector an example can be compared.

    The dry run checks every tap and every shape, and freezes the student's parameters that no loss reaches (DDP would
    stop at them): `Learner.unreached` names them. Neither model changes otherwise.

    Raises:
        ValueError: a tap is wrong, shapes do not meet, or a loss needs a teacher and there is none; each names the
        term.
    """
    open_terms = [name for name, term in plan.items() if term.match is not None]
    if open_terms:
        raise ValueError(
            f"Term '{open_terms[0]}' leaves its taps open with match=. Choose them first: distill.match.match(...)."
        )
    lonely = [name for name, term in plan.items() if term.needs_teacher and (teacher is None or term.teacher is None)]
    if lonely:
        raise ValueError(
            f"Term '{lonely[0]}' compares with a teacher and there is none. Give one, or leave the term out."
        )
    guide = None if teacher is None else Teacher(teacher, teacher_taps(plan), view=teacher_view)
    tapped = Tapped(student, student_taps(plan), view=student_view)
    with evaluating(student):
        with torch.no_grad():
            targets = answers_of(guide, sample.inputs)
            outputs = tapped(sample.inputs)
        if not aligned:
            _refuse_positions(plan, outputs, targets)
        heads = {
            name: _head(name, term, gather_taps(outputs, term.student), targets)
            for name, term in plan.items()
            if term.head is not None
        }
        for name, head in heads.items():
            for module in head.modules():
                if isinstance(module, ReadsTeacher):
                    assert teacher is not None
                    with _naming(name):
                        module.read_teacher(teacher)
        meetings = {
            name: term.teacher
            for name, term in plan.items()
            if term.teacher is not None and isinstance(term.head, Meeting)
        }
        learner = Learner(tapped, {name: term.student for name, term in plan.items()}, heads, meetings, balance)
        learner.eval()
        _freeze_unreached(learner, plan, targets, sample)
        learner.train()  # the heads; the student's modules are put back as they were
    return guide, learner


def compare(
    plan: Plan, student: Mapping[str, Value | Met], teacher: Mapping[str, Tensor], batch: Batch
) -> dict[str, Tensor]:
    """{term: loss of each example (B,)}, unweighted; `teacher` is {tap: tensor}, `student` {term: value}.

    Raises:
        ValueError: a loss refuses its tensors, would count padding, or does not give one number for each example; the
        message names the term.
    """
    losses = {}
    for name, term in plan.items():
        value = student[name]
        if not isinstance(value, Met):
            value = Met(value, _target(term, teacher))
        with _naming(name):
            if batch.mask is not None and not isinstance(term.loss, HonoursMask):
                _check_no_padding(term.loss, value, batch.mask)
            loss = term.loss(value.student, value.teacher, batch)
        if loss.shape != (len(batch),):
            raise ValueError(
                f"Term '{name}': a loss gives one number for each of the {len(batch)} examples, "
                f"{type(term.loss).__name__} gave shape {tuple(loss.shape)}. Leave out the mean over the batch."
            )
        losses[name] = loss
    return losses


def arrows(teacher: Teacher | None, learner: Learner, plan: Plan, sample: Batch) -> tuple[Arrow, ...]:
    """What meets what, with shapes and heads, for a table; runs both models once, in evaluation mode."""
    with evaluating(learner), torch.no_grad():
        targets = answers_of(teacher, sample.inputs)
        outputs = learner.student(sample.inputs)
    rows = []
    for name, term in plan.items():
        target = _target(term, targets)
        heads = learner.heads[name].parameters() if name in learner.heads else ()
        rows.append(
            Arrow(
                term=name,
                loss=str(term.loss),
                weight=term.weight,
                student=" + ".join(_as_tuple(term.student)),
                student_shape=_shape(gather_taps(outputs, term.student)),
                teacher="labels" if target is None else " + ".join(_as_tuple(term.teacher or ())),
                teacher_shape="" if target is None else _shape(target),
                head="" if term.head is None else str(term.head),
                head_parameters=sum(parameter.numel() for parameter in heads),
            )
        )
    return tuple(rows)


def _target(term: Term, teacher: Mapping[str, Tensor]) -> Value | None:
    return gather_taps(teacher, term.teacher) if term.needs_teacher and term.teacher is not None else None


def _check_no_padding(loss: Loss, met: Met, mask: Tensor) -> None:
    """Refuse tensors over positions to a loss that would count those that the mask leaves out."""
    sides = [side for side in met if side is not None]
    tensors = [tensor for side in sides for tensor in ((side,) if isinstance(side, Tensor) else side)]
    shape = next((tuple(tensor.shape) for tensor in tensors if tensor.ndim > 2), None)
    if shape is not None:
        raise ValueError(
            f"{type(loss).__name__} would count the padding of texts, got {shape} with a mask {tuple(mask.shape)}. Use "
            "HiddenState() or TokenCosine(), tap one vector a text ('embedding'), or derive a loss of your own that "
            "reads batch.mask from distill.losses.HonoursMask."
        )


@contextmanager
def _naming(term: str) -> Iterator[None]:
    """Lets what is refused inside name its term."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Term '{term}': {error}") from error


def _refuse_positions(plan: Plan, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> None:
    for name, term in plan.items():
        if not term.needs_teacher or term.teacher is None:
            continue
        sides = (student, _as_tuple(term.student)), (teacher, _as_tuple(term.teacher))
        found = [tap for outputs, taps in sides for tap in taps if outputs[tap].ndim > 2]
        if found:
            raise ValueError(
                f"Term '{name}' compares token by token ('{found[0]}'), and teacher and student have different "
                "tokenizers. Compare what is one vector a text, such as 'logits' or 'embedding', or give the student "
                "the teacher's tokenizer."
            )


def _head(name: str, term: Term, student: Value, targets: Mapping[str, Tensor]) -> nn.Module:
    assert term.head is not None
    if not term.needs_teacher or term.teacher is None:
        raise ValueError(
            f"Term '{name}' maps to the teacher's shape, but {type(term.loss).__name__} reads no teacher. Drop head=."
        )
    teacher = gather_taps(targets, term.teacher)
    with _naming(name):
        return _sized(term, student, teacher)


def _sized(term: Term, student: Value, teacher: Value) -> nn.Module:
    head, kind = term.head, type(term.head).__name__
    assert head is not None
    if isinstance(student, Tensor) and isinstance(teacher, Tensor) and not isinstance(head, Joint):
        return head(student.shape, teacher.shape)
    if isinstance(student, Tensor) or isinstance(teacher, Tensor) or len(student) != len(teacher):
        needs = f"{kind} joins several taps" if isinstance(head, Joint) else "a head needs as many taps"
        raise ValueError(f"{needs} of the student as of the teacher, got {term.student} and {term.teacher}.")
    if isinstance(head, Joint):
        return head(tuple(x.shape for x in student), tuple(x.shape for x in teacher))
    if isinstance(head, Meeting):
        raise ValueError(f"{kind} maps one tap of each side, got {term.student} and {term.teacher}.")
    return nn.ModuleList([head(a.shape, b.shape) for a, b in zip(student, teacher, strict=True)])


def _freeze_unreached(learner: Learner, plan: Plan, targets: Mapping[str, Tensor], sample: Batch) -> None:
    with torch.enable_grad():
        losses = compare(plan, learner(sample.inputs, targets, sample), targets, sample)
        total = torch.stack([loss.sum() for name, loss in losses.items() if plan[name].weight > 0]).sum()
    balance = () if learner.balance is None else learner.balance.parameters()
    balancing = {id(parameter) for parameter in balance}  # reached by every term, outside the losses
    trained = [p for p in learner.parameters() if p.requires_grad and id(p) not in balancing]
    if not trained or not total.requires_grad:
        raise ValueError(
            "No loss of the plan reaches a parameter that may be trained. Give a term a weight, or freeze less."
        )
    gradients = torch.autograd.grad(total, trained, allow_unused=True)
    missed = {id(parameter) for parameter, gradient in zip(trained, gradients, strict=True) if gradient is None}
    for name, parameter in learner.named_parameters():
        if id(parameter) in missed:
            parameter.requires_grad_(False)
            learner.unreached += (name.removeprefix("student.model."),)


def _as_tuple(taps: Taps) -> tuple[str, ...]:
    return (taps,) if isinstance(taps, str) else taps


def _shape(value: Value) -> str:
    tensors = (value,) if isinstance(value, Tensor) else value
    return " + ".join("x".join(str(size) for size in tensor.shape[1:]) or "scalar" for tensor in tensors)
