"""What a model decides once each label has a threshold, chosen on validation examples and kept for the test examples.

Logits are (N, K) and labels float (N, K), 1, 0 or NaN where unknown. A label is found where logit >= threshold. A
threshold that is NaN decides nothing.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.metrics.checks import check_finite, check_share, check_table, check_thresholds, check_two
from distill.numerics import widen

# 0.55 · 100 is above 55 in floating point, and 55 of 100 is enough.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Rates:
    """Shares found among the known examples that have each label, and not found among those without, float64 (K,).

    NaN where there are none of them, or no threshold.
    """

    sensitivity: Tensor
    specificity: Tensor


@dataclass(frozen=True)
class WrongAgreement:
    """Of `count` known decisions that the teacher got wrong, the share that the student gets as wrong; NaN of none."""

    count: int
    share: float


def thresholds(logits: Tensor, labels: Tensor, *, specificity: float = 0.9) -> Tensor:
    """The lowest logit of each label at which specificity on these examples is at least this, (K,), float32 or wider.

    It lies just above the highest logit of a negative that has to be left out, so that ties with it are left out too;
    -inf where none has to be, NaN where no example is a known negative.

    Raises:
        ValueError: no examples, shapes that do not meet, labels that are not 1, 0 or NaN, logits that are not finite,
            or a specificity that is no share.
    """
    check_table(logits, labels)
    check_finite("The logits", logits)
    check_share("specificity", specificity)
    columns = zip(widen(logits).unbind(1), labels.unbind(1), strict=True)
    return torch.stack([_threshold(of_label[truth == 0], specificity) for of_label, truth in columns])


def rates(logits: Tensor, labels: Tensor, thresholds: Tensor) -> Rates:
    """Sensitivity and specificity of each label at its threshold.

    thresholds: (K,), in logits.

    Raises:
        ValueError: no examples, shapes that do not meet, labels that are not 1, 0 or NaN, or logits that are not
            finite.
    """
    check_table(logits, labels)
    check_finite("The logits", logits)
    check_thresholds(thresholds, logits.shape[1])
    found = logits >= thresholds
    positive, negative = labels == 1, labels == 0
    decided = torch.where(thresholds.isnan(), math.nan, 1.0).double()
    return Rates(
        decided * (found & positive).sum(0).double() / positive.sum(0),
        decided * (~found & negative).sum(0).double() / negative.sum(0),
    )


def sensitivity_at(logits: Tensor, labels: Tensor, specificity: float) -> Tensor:
    """Sensitivity of each label where specificity on these same examples is at least this, float64 (K,).

    A point of the examples' own ROC curve, without interpolation: it compares models, and is better than what a
    threshold chosen on other examples gives. NaN where a class is missing.

    Raises:
        ValueError: as `thresholds`.
    """
    return rates(logits, labels, thresholds(logits, labels, specificity=specificity)).sensitivity


def label_agreement(student: Tensor, teacher: Tensor, student_thresholds: Tensor, teacher_thresholds: Tensor) -> float:
    """Share of (example, label) decisions that both models take alike, right or wrong, in [0, 1].

    Labels of which one has no threshold are left out; NaN where all are.

    Raises:
        ValueError: no examples, shapes that do not meet, or logits that are not finite.
    """
    alike, decided = _decisions(student, teacher, student_thresholds, teacher_thresholds)[1:]
    return float(alike[:, decided].double().mean()) if bool(decided.any()) else math.nan


def wrong_agreement(
    student: Tensor, teacher: Tensor, labels: Tensor, student_thresholds: Tensor, teacher_thresholds: Tensor
) -> WrongAgreement:
    """How often the student makes the teacher's mistakes: over known (example, label) decisions.

    Labels of which one has no threshold are left out.

    Raises:
        ValueError: no examples, shapes that do not meet, labels that are not 1, 0 or NaN, or logits that are not
            finite.
    """
    check_table(teacher, labels)
    found, alike, decided = _decisions(student, teacher, student_thresholds, teacher_thresholds)
    wrong = (found != (labels == 1)) & ~labels.isnan() & decided
    count = int(wrong.sum())
    return WrongAgreement(count, int((wrong & alike).sum()) / count if count > 0 else math.nan)


def _threshold(negatives_M: Tensor, specificity: float) -> Tensor:
    if len(negatives_M) == 0:
        return negatives_M.new_tensor(math.nan)
    below = math.ceil(specificity * len(negatives_M) - _ROUNDING)
    if below == 0:
        return negatives_M.new_tensor(-math.inf)
    highest = negatives_M.sort().values[below - 1]
    return highest.nextafter(torch.full_like(highest, math.inf))


def _decisions(
    student: Tensor, teacher: Tensor, student_thresholds: Tensor, teacher_thresholds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What the teacher finds and where both are alike, bool (N, K), and which labels both decide, bool (K,)."""
    check_two(student, teacher)
    for of_model in (student_thresholds, teacher_thresholds):
        check_thresholds(of_model, student.shape[1])
    found = teacher >= teacher_thresholds
    alike = found == (student >= student_thresholds)
    return found, alike, ~(student_thresholds.isnan() | teacher_thresholds.isnan())
