"""How good a model is where an example has several labels: AUROC, average precision, likelihood, calibration.

Pure functions of logits (N, K) and labels float (N, K), 1 where a label holds, 0 where not, NaN where that is unknown.
Each label is judged on its known examples alone. All need the examples of a whole split, each once; none may be
averaged over batches or processes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.metrics.calibration import label_calibration_errors
from distill.metrics.checks import check_table, check_two


@dataclass(frozen=True)
class Counts:
    """Examples with and without each label, int64 (K,); where one is zero the label cannot be judged."""

    positives: Tensor
    negatives: Tensor


def label_counts(labels: Tensor) -> Counts:
    """How many known examples each label has on either side.

    Raises:
        ValueError: no examples, or labels that are not 1, 0 or NaN.
    """
    check_table(labels, labels)
    return Counts((labels == 1).sum(0), (labels == 0).sum(0))


def auroc(logits: Tensor, labels: Tensor) -> Tensor:
    """Area under each label's ROC curve, float64 (K,): how often a positive stands above a negative, ties by half.

    NaN where the known examples are of one class only, and where a logit is NaN.

    Raises:
        ValueError: no examples, shapes that do not meet, or labels that are not 1, 0 or NaN.
    """
    from torchmetrics.functional.classification import binary_auroc  # takes seconds to load

    return _of_each(binary_auroc, logits, labels)


def average_precision(logits: Tensor, labels: Tensor) -> Tensor:
    """Precision of each label at its positives, averaged by what each step gains in recall, float64 (K,).

    Sum over thresholds of (R_n − R_{n−1}) P_n, without interpolation. A model that knows nothing has the share of
    positives. NaN where the known examples are of one class only, and where a logit is NaN.

    Raises:
        ValueError: no examples, shapes that do not meet, or labels that are not 1, 0 or NaN.
    """
    from torchmetrics.functional.classification import binary_average_precision

    return _of_each(binary_average_precision, logits, labels)


def mean_defined(values: Tensor) -> float:
    """Mean of the values that are not NaN; NaN where none is."""
    defined = values[~values.isnan()]
    return float(defined.double().mean()) if len(defined) > 0 else math.nan


def label_quality(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """auroc, average_precision, nll and calibration_error of one model.

    The first two are means over the labels that have both classes, calibration_error the mean over labels (15 bins of
    probability), nll the mean binary cross-entropy in nats over all known labels of all examples. A logit that is NaN
    makes nll NaN.

    Raises:
        ValueError: no examples, shapes that do not meet, or labels that are not 1, 0 or NaN.
    """
    check_table(logits, labels)
    known = ~labels.isnan()
    losses = F.binary_cross_entropy_with_logits(logits[known].double(), labels[known].double(), reduction="none")
    return {
        "auroc": mean_defined(auroc(logits, labels)),
        "average_precision": mean_defined(average_precision(logits, labels)),
        "nll": float(losses.mean()) if len(losses) > 0 else math.nan,
        "calibration_error": mean_defined(label_calibration_errors(logits, labels)),
    }


def label_divergence(student: Tensor, teacher: Tensor) -> float:
    """Mean over examples and labels of KL(teacher || student) between each label's two probabilities, in nats.

    Raises:
        ValueError: no examples, shapes that differ, or logits that are not finite.
    """
    check_two(student, teacher)
    student_NK, teacher_NK = student.double(), teacher.double()
    yes = F.logsigmoid(teacher_NK) - F.logsigmoid(student_NK)
    no = F.logsigmoid(-teacher_NK) - F.logsigmoid(-student_NK)
    return float((teacher_NK.sigmoid() * yes + (-teacher_NK).sigmoid() * no).mean())


def _of_each(area: Callable[..., Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    check_table(logits, labels)
    return torch.stack([_of_one(area, *of_label) for of_label in zip(logits.unbind(1), labels.unbind(1), strict=True)])


def _of_one(area: Callable[..., Tensor], logits_N: Tensor, labels_N: Tensor) -> Tensor:
    known = ~labels_N.isnan()
    logits_M, labels_M = logits_N[known], labels_N[known].long()
    if not 0 < int(labels_M.sum()) < len(labels_M) or bool(logits_M.isnan().any()):
        return torch.tensor(math.nan, dtype=torch.float64)
    # torchmetrics takes the sigmoid of what is not in [0, 1]; it is 1 for 20 and 25 alike in float32. Ranks are safe.
    rank_M = torch.searchsorted(logits_M.sort().values, logits_M)
    return area(rank_M.double() / len(rank_M), labels_M).double()
