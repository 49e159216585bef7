"""What a run's models are worth label by label, where an example may have several labels: plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from distill.report.statistics import Interval


@dataclass(frozen=True)
class Estimate:
    """A value on the test examples, and the bounds that hold the true one with 95% confidence; NaN is not known."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LabelQuality:
    """One model on one label of the test examples; of an arm the mean over its seeds.

    All are shares in [0, 1], and NaN where the examples have one side only.

    sensitivity, specificity: at the threshold that was chosen on the validation examples.
    sensitivity_at: at the fixed specificity on the test examples' own curve.
    calibration_error: expected, over 15 bins of probability.
    """

    auroc: Estimate
    average_precision: Estimate
    sensitivity: float
    specificity: float
    sensitivity_at: float
    calibration_error: float


@dataclass(frozen=True)
class Gain:
    """What the transferred student's AUROC is above another model's, by resampling patients for both at once.

    mean: of the mean over labels. labels: of each. p_values: of each by DeLong, of the first seed.
    """

    mean: Interval
    labels: tuple[Interval, ...]
    p_values: tuple[float, ...]


@dataclass(frozen=True)
class Group:
    """Mean AUROC of each model among the test examples of one group, over the labels that all groups can be judged by.

    gain: of the transferred student over the teacher; None where one of them is not known.
    """

    attribute: str
    value: str
    examples: int
    patients: int
    labels: int
    auroc: Mapping[str, Estimate]
    gain: Interval | None


@dataclass(frozen=True)
class Wrong:
    """Of `count` decisions on test examples that the teacher got wrong, the share that the student gets as wrong."""

    count: int
    share: float


@dataclass(frozen=True)
class Look:
    """Where one model looks in the test examples that have a box: means over `count` boxes, all in [0, 1].

    blank: how many maps are zero everywhere; they count as looking past the box.
    inside: share of the activation map's mass in the box; area: of the box, which is what chance gives.
    hits: how often the maximum lies in the box. overlap: IoU of the box with as much of the map's highest part.
    likeness: correlation with the teacher's map; NaN for the teacher itself.
    """

    count: int
    blank: int
    inside: Estimate
    area: float
    hits: Estimate
    overlap: Estimate
    likeness: Estimate


@dataclass(frozen=True)
class ByLabel:
    """All of a run's models on the test examples, label by label; models are "teacher" and the arms.

    labels: their names. known, positives: of each, examples. patients: of all, which are what is resampled.
    specificity: the fixed one. means: AUROC, mean over the labels that can be judged.
    gains: of the transferred student over each other model.
    wrong: of each arm's first seed. looks: likewise; empty where the data have no boxes.
    """

    labels: tuple[str, ...]
    known: tuple[int, ...]
    positives: tuple[int, ...]
    patients: int
    resamples: int
    specificity: float
    models: Mapping[str, tuple[LabelQuality, ...]]
    means: Mapping[str, Estimate]
    gains: Mapping[str, Gain] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    wrong: Mapping[str, Wrong] = field(default_factory=dict)
    looks: Mapping[str, Look] = field(default_factory=dict)
