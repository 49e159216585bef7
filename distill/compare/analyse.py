"""A complete run's comparison, out of its report and of what each of its models answered."""

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from distill import metrics
from distill.answers import TEACHER, Answers, compare, kept_answers, thresholds
from distill.compare.comparison import Against, Cka, ClassGain, Comparison, Judged, Likeness
from distill.compare.differing import differing
from distill.compare.paired import mcnemar, over_examples_and_seeds
from distill.compare.reasons import reasons
from distill.finished import Finished
from distill.metrics import Bin
from distill.models.weights import read_config
from distill.report import judge, summarise

# {model: its answers under each seed, the first seed first}; the teacher's are the same under each.
Models = Mapping[str, Sequence[Answers]]
TRANSFERRED = "transferred"
_CLASS_RESAMPLES = 500
_LEAST = 1e-7


def answers_of(run: Finished) -> dict[str, list[Answers]]:
    """What the teacher, where it answers the same classes, and each student said.

    Raises:
        ValueError: answers were not kept, or are of other examples than those of another model.
    """
    folders = {arm: [run.place(arm, seed) for seed in run.report.seeds] for arm in run.report.arms}
    if run.report.teacher is not None:
        folders = {TEACHER: [run.folder / TEACHER], **folders}
    found = {name: [kept_answers(place) for place in places] for name, places in folders.items()}
    first = next(iter(found.values()))[0].test.labels
    for name, of_model in found.items():
        for one, place in zip(of_model, folders[name], strict=True):
            if not _same(one.test.labels, first):
                raise ValueError(f"{place} holds answers to other test examples. Train the run again.")
    return found


def analyse(run: Finished, *, cka: Cka | None = None, notes: Sequence[str] = ()) -> Comparison:
    """Compare the models of a run.

    cka: where it was measured. notes: what was left out, and why.

    Raises:
        ValueError: the run has no classes, or its answers were not kept.
    """
    report = run.report
    if "perplexity" in report.outcomes[0].test:
        raise ValueError(f"{run.folder} guesses hidden words, and classes alone are compared. See its report.md.")
    models = answers_of(run)
    classes = tuple(read_config(run.student())["classes"])
    control = next((arm for arm in ("plain", "initialized") if arm in report.arms and run.arm == TRANSFERRED), None)
    against = tuple(_against(run, name, models) for name in models if name != TRANSFERRED and TRANSFERRED in models)
    likeness = tuple(_likeness(name, models) for name in models if name != TEACHER and TEACHER in models)
    verdict = judge(report)
    return Comparison(
        run=report.name,
        headline=report.headline,
        seeds=report.seeds,
        examples=len(models[run.arm][0].test.labels),
        word=None if verdict is None else verdict.word,
        sentence=summarise(report).sentence,
        reasons=reasons(report, models, likeness),
        control=control,
        models=tuple(_judged(run, name, of_model) for name, of_model in models.items()),
        against=against,
        classes=() if control is None else _class_gains(run, control, models, classes),
        likeness=likeness,
        differing=differing(models, classes, run.arm),
        cka=cka,
        notes=tuple(notes),
    )


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))


def _judged(run: Finished, name: str, of_model: Sequence[Answers]) -> Judged:
    qualities = [run.report.teacher["test"]] if name == TEACHER and run.report.teacher is not None else []
    qualities = qualities or [outcome.test for outcome in run.report.of(name)]
    values = {metric: [quality[metric] for quality in qualities] for metric in qualities[0]}
    spread = {metric: statistics.stdev(each) for metric, each in values.items() if len(each) > 1 and _finite(each)}
    return Judged(
        name=name,
        test={metric: statistics.fmean(each) if _finite(each) else math.nan for metric, each in values.items()},
        spread=spread,
        bins=_bins(of_model[0]),
        brier=statistics.fmean(_brier(answers) for answers in of_model),
    )


def _finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))


def _bins(answers: Answers) -> tuple[Bin, ...]:
    """Of the class that is said, how often it holds by how probable it is said to be; of labels, all of them pooled."""
    logits, labels = answers.test.logits, answers.test.labels
    if answers.test.several:
        return metrics.reliability(logits, labels)
    confidence, said = logits.double().softmax(1).max(1)
    odds = confidence.clamp(_LEAST, 1 - _LEAST).logit()
    return metrics.reliability(odds, (said == labels).double())


def _brier(answers: Answers) -> float:
    logits, labels = answers.test.logits.double(), answers.test.labels
    if answers.test.several:
        return float((logits.sigmoid() - labels).square()[~labels.isnan()].mean())
    truth = torch.nn.functional.one_hot(labels, logits.shape[1])
    return float((logits.softmax(1) - truth).square().sum(1).mean())


def right(answers: Answers) -> Tensor:
    """Whether each test example is answered right, bool (N,)."""
    return answers.test.logits.argmax(1) == answers.test.labels


def _rights(of_model: Sequence[Answers], seeds: int) -> np.ndarray:
    """(S, N); a teacher's are the same under each seed."""
    rows = [right(answers).numpy() for answers in of_model]
    return np.stack(rows * (seeds // len(rows)))


def _against(run: Finished, name: str, models: Models) -> Against:
    report, seeds = run.report, len(models[TRANSFERRED])
    if report.by_label is not None:
        gain = report.by_label.gains[name].mean
        return Against(name, gain, None, *[math.nan] * 4)
    before, after = _rights(models[name], seeds), _rights(models[TRANSFERRED], seeds)
    shares = [(after & ~before).mean(), (before & ~after).mean(), (before & after).mean(), (~before & ~after).mean()]
    p_values = tuple(mcnemar(*pair) for pair in zip(before, after, strict=True))
    return Against(name, over_examples_and_seeds(before, after), p_values, *map(float, shares))


def _class_gains(run: Finished, control: str, models: Models, classes: Sequence[str]) -> tuple[ClassGain, ...]:
    by_label = run.report.by_label
    if by_label is not None:
        gains = by_label.gains[control]
        rows = zip(by_label.labels, by_label.positives, gains.labels, gains.p_values, strict=True)
        auroc = {name: [one.auroc.value for one in by_label.models[name]] for name in (control, TRANSFERRED)}
        return tuple(
            ClassGain(label, count, auroc[control][place], auroc[TRANSFERRED][place], gain, p)
            for place, (label, count, gain, p) in enumerate(rows)
        )
    seeds, labels = len(models[TRANSFERRED]), models[TRANSFERRED][0].test.labels
    before, after = _rights(models[control], seeds), _rights(models[TRANSFERRED], seeds)
    found = []
    for number, name in enumerate(classes):
        of_class = (labels == number).numpy()
        if not of_class.any():
            continue
        pair = before[:, of_class], after[:, of_class]
        gain = over_examples_and_seeds(*pair, resamples=_CLASS_RESAMPLES)
        found.append(ClassGain(name, int(of_class.sum()), float(pair[0].mean()), float(pair[1].mean()), gain))
    return tuple(found)


def _likeness(name: str, models: Models) -> Likeness:
    teacher = models[TEACHER][0]
    rows = [_near(answers, teacher) for answers in models[name]]
    return Likeness(name, *(statistics.fmean(each) if _finite(each) else math.nan for each in zip(*rows, strict=True)))


def _near(student: Answers, teacher: Answers) -> tuple[float, float, float, float]:
    agreement, divergence = compare(student, teacher)
    labels = teacher.test.labels
    if teacher.test.several:
        known = ~labels.isnan()
        said, wanted = (one.test.logits >= thresholds(one) for one in (student, teacher))
        same, correct = (said == wanted)[known], (wanted == (labels == 1))[known]
    else:
        same = student.test.logits.argmax(1) == teacher.test.logits.argmax(1)
        correct = right(teacher)
    return agreement, divergence, _share(same[correct]), _share(same[~correct])


def _share(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else math.nan
