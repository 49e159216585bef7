"""From the answers of a run's models to what they are worth label by label, each difference with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill import metrics
from distill.answers import SPECIFICITY, Answers, thresholds
from distill.data import Cases
from distill.data.cases import UNKNOWN
from distill.report import ByLabel, Estimate, Gain, Group, Interval, LabelQuality, Wrong

TEACHER, TRANSFERRED = "teacher", "transferred"
RESAMPLES = 1000
# Each attribute goes over all examples again, and three of them take as long as all the rest.
GROUP_RESAMPLES = 300
LEAST_IN_GROUP = 20

# {model: its answers under each seed, the first seed first}
Models = Mapping[str, Sequence[Answers]]


def by_label(labels: Sequence[str], models: Models, cases: Cases | None, *, resamples: int = RESAMPLES) -> ByLabel:
    """Every model on the test examples, label by label.

    models: "teacher", where it answers the same labels, and the arms; their answers are to the same examples.
    cases: of the test examples; None takes each example for a patient of its own.
    """
    truth = next(iter(models.values()))[0].test.labels
    counts = metrics.label_counts(truth)
    patient = torch.arange(len(truth)) if cases is None else cases.patient
    drawn = _draw(models, truth, patient, resamples)
    others = [name for name in models if name != TRANSFERRED] if TRANSFERRED in models else []
    wrong = {}
    if TEACHER in models:
        wrong = {name: _wrong(models[name][0], models[TEACHER][0]) for name in models if name != TEACHER}
    return ByLabel(
        labels=tuple(labels),
        known=tuple((counts.positives + counts.negatives).tolist()),
        positives=tuple(counts.positives.tolist()),
        patients=_count(patient),
        resamples=resamples,
        specificity=SPECIFICITY,
        models={name: _qualities(drawn[name], answers) for name, answers in models.items()},
        means={name: _estimate(drawn[name].mean, drawn[name].mean_draws) for name in models},
        gains={name: _gain(drawn, name, models, truth) for name in others},
        groups=() if cases is None else _groups(models, truth, cases, min(resamples, GROUP_RESAMPLES)),
        wrong=wrong,
    )


@dataclass(frozen=True)
class _Drawn:
    """One model's values on the examples, (K,), and in each resample, (R, K); of an arm their means over its seeds.

    So the interval of an arm is about the method, and not about one student.
    """

    auroc: Tensor
    auroc_draws: Tensor
    precision: Tensor
    precision_draws: Tensor

    @property
    def mean(self) -> float:
        return metrics.mean_defined(self.auroc)

    @property
    def mean_draws(self) -> Tensor:
        return metrics.mean_over_labels(self.auroc_draws)


def _draw(models: Models, truth: Tensor, patient: Tensor, resamples: int) -> dict[str, _Drawn]:
    scores = [answers.test.logits for of_model in models.values() for answers in of_model]
    drawn = metrics.resample(scores, truth, patient, resamples=resamples)
    found, start = {}, 0
    for name, of_model in models.items():
        rows = slice(start, start + len(of_model))
        start += len(of_model)
        found[name] = _Drawn(
            auroc=torch.stack([metrics.auroc(logits, truth) for logits in scores[rows]]).mean(0),
            auroc_draws=drawn.auroc[rows].mean(0),
            precision=torch.stack([metrics.average_precision(logits, truth) for logits in scores[rows]]).mean(0),
            precision_draws=drawn.average_precision[rows].mean(0),
        )
    return found


def _qualities(drawn: _Drawn, of_model: Sequence[Answers]) -> tuple[LabelQuality, ...]:
    rates = [metrics.rates(answers.test.logits, answers.test.labels, thresholds(answers)) for answers in of_model]
    sensitivity = _over_seeds([rate.sensitivity for rate in rates])
    specificity = _over_seeds([rate.specificity for rate in rates])
    at = _over_seeds([metrics.sensitivity_at(one.test.logits, one.test.labels, SPECIFICITY) for one in of_model])
    calibration = _over_seeds([metrics.label_calibration_errors(one.test.logits, one.test.labels) for one in of_model])
    return tuple(
        LabelQuality(
            auroc=_estimate(float(drawn.auroc[label]), drawn.auroc_draws[:, label]),
            average_precision=_estimate(float(drawn.precision[label]), drawn.precision_draws[:, label]),
            sensitivity=sensitivity[label],
            specificity=specificity[label],
            sensitivity_at=at[label],
            calibration_error=calibration[label],
        )
        for label in range(len(drawn.auroc))
    )


def _gain(drawn: Mapping[str, _Drawn], other: str, models: Models, truth: Tensor) -> Gain:
    before, after = drawn[other], drawn[TRANSFERRED]
    first, second = models[TRANSFERRED][0].test.logits, models[other][0].test.logits
    columns = range(truth.shape[1])
    return Gain(
        mean=_interval(after.mean - before.mean, after.mean_draws - before.mean_draws),
        labels=tuple(
            _interval(
                float(after.auroc[label] - before.auroc[label]),
                after.auroc_draws[:, label] - before.auroc_draws[:, label],
            )
            for label in columns
        ),
        p_values=tuple(metrics.delong(first[:, label], second[:, label], truth[:, label]).p for label in columns),
    )


def _groups(models: Models, truth: Tensor, cases: Cases, resamples: int) -> tuple[Group, ...]:
    found = []
    for attribute, values in cases.attributes.items():
        rows = {value: _rows(values, value) for value in sorted(set(values) - {UNKNOWN})}
        judged = [which for which in rows.values() if len(which) >= LEAST_IN_GROUP]
        if len(judged) < 2:
            continue
        both = torch.stack([((truth[which] == 1).any(0)) & ((truth[which] == 0).any(0)) for which in judged]).all(0)
        found += [
            _group(attribute, value, which, both, models, truth, cases, resamples) for value, which in rows.items()
        ]
    return tuple(found)


def _group(
    attribute: str,
    value: str,
    which: Tensor,
    both: Tensor,
    models: Models,
    truth: Tensor,
    cases: Cases,
    resamples: int,
) -> Group:
    patient, labels = cases.patient[which], int(both.sum())
    auroc: dict[str, Estimate] = {}
    gain: Interval | None = None
    if len(which) >= LEAST_IN_GROUP and labels:
        within = {name: [_part(answers, which, both) for answers in of_model] for name, of_model in models.items()}
        drawn = _draw(within, truth[which][:, both], patient, resamples)
        auroc = {name: _estimate(one.mean, one.mean_draws) for name, one in drawn.items()}
        if {TEACHER, TRANSFERRED} <= set(drawn):
            before, after = drawn[TEACHER], drawn[TRANSFERRED]
            gain = _interval(after.mean - before.mean, after.mean_draws - before.mean_draws)
    return Group(attribute, value, len(which), _count(patient), labels, auroc, gain)


def _part(answers: Answers, which: Tensor, labels: Tensor) -> Answers:
    """The answers to some test examples and labels only."""
    test = type(answers.test)(answers.test.logits[which][:, labels], answers.test.labels[which][:, labels])
    return Answers(answers.validation, test)


def _wrong(student: Answers, teacher: Answers) -> Wrong:
    pair = student.test.logits, teacher.test.logits
    found = metrics.wrong_agreement(*pair, teacher.test.labels, thresholds(student), thresholds(teacher))
    return Wrong(found.count, found.share)


def _count(patient: Tensor) -> int:
    return len(set(patient.tolist()))


def _rows(values: Sequence[str], value: str) -> Tensor:
    return torch.tensor([row for row, one in enumerate(values) if one == value])


def _over_seeds(values: Sequence[Tensor]) -> list[float]:
    found: list[float] = torch.stack(list(values)).double().mean(0).tolist()
    return found


def _estimate(value: float, draws: Tensor) -> Estimate:
    bounds = metrics.interval(draws)
    return Estimate(value, bounds.low, bounds.high)


def _interval(difference: float, draws: Tensor) -> Interval:
    bounds = metrics.interval(draws)
    return Interval(difference, bounds.low, bounds.high, bounds.standard_error)
