"""What a comparison of a run's models found, as plain data, and as JSON both ways."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from distill.metrics import Bin
from distill.report.serial import finite
from distill.report.statistics import Interval

Word = Literal["helped", "no difference", "hurt"]


@dataclass(frozen=True)
class Judged:
    """One model on the test examples, of an arm the mean over its seeds; nothing where no number is finite.

    test: {metric: mean}. spread: {metric: standard deviation over seeds}; empty of a single seed.
    bins: reliability of its predictions under the first seed. examples: how many each holds.
    brier: mean squared distance of its probabilities from the truth.
    """

    name: str
    test: Mapping[str, float]
    spread: Mapping[str, float]
    bins: tuple[Bin, ...]
    brier: float


@dataclass(frozen=True)
class Against:
    """The transferred student against another model, on the same test examples and paired by seed.

    gain: of the headline, by resampling examples (of several labels, patients) and seeds together; it shows how sure
        the mean over these seeds is, and the verdict does not rest on it.
    p_values: of no difference under each seed: McNemar's exact test of the answers. None with several labels, where
        DeLong's test is of each label.
    gained, lost, both_right, both_wrong: shares of the test examples, means over seeds; NaN with several labels.
    """

    name: str
    gain: Interval
    p_values: tuple[float, ...] | None
    gained: float
    lost: float
    both_right: float
    both_wrong: float

    @property
    def negative_flips(self) -> float:
        """Share of the test examples that the other model answers right and the student wrong."""
        return self.lost


@dataclass(frozen=True)
class ClassGain:
    """One class, or one finding, on the test examples: what the transferred student gained there over the control.

    count: test examples of the class. before, after: accuracy on them, or AUROC, means over seeds.
    p_value: by DeLong; None for a class.
    """

    name: str
    count: int
    before: float
    after: float
    gain: Interval
    p_value: float | None = None


@dataclass(frozen=True)
class Likeness:
    """How near an arm's answers are to the teacher's, on the test examples, means over seeds.

    agreement: share of equal answers. divergence: mean KL divergence of the student from the teacher.
    where_right, where_wrong: agreement on the examples that the teacher answers right, and wrong (Stanton, Izmailov,
        Kirichenko, Alemi and Wilson, 2021, arXiv:2106.05945); NaN where there are none.
    """

    name: str
    agreement: float
    divergence: float
    where_right: float
    where_wrong: float


@dataclass(frozen=True)
class Cka:
    """Linear CKA of each tap of the student (a row) with each of the teacher (a column), in [0, 1].

    before: at the student's start. after: of the transferred student. examples: how many it was measured on.
    """

    student: tuple[str, ...]
    teacher: tuple[str, ...]
    before: tuple[tuple[float, ...], ...]
    after: tuple[tuple[float, ...], ...]
    examples: int


@dataclass(frozen=True)
class Answer:
    """What one model says about an example: a class and its probability."""

    model: str
    said: str
    probability: float


@dataclass(frozen=True)
class Differing:
    """A test example on which models differ. index: its number in the test split. truth: its class."""

    index: int
    truth: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Ablated:
    """A run without one term, under the same budget and seeds.

    gain: what the term is worth, the whole plan less the plan without it, over seeds. None where it was not trained,
        for the reason that `note` tells.
    """

    term: str
    without: tuple[float, ...]
    gain: Interval | None
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison found.

    sentence: the verdict in words. reasons: what it rests on, a sentence each. examples: of the test split.
    control: the arm that gains are over. notes: what was left out, and why.
    """

    run: str
    headline: str
    seeds: tuple[int, ...]
    examples: int
    word: Word | None
    sentence: str
    reasons: tuple[str, ...]
    control: str | None
    models: tuple[Judged, ...]
    against: tuple[Against, ...]
    classes: tuple[ClassGain, ...]
    likeness: tuple[Likeness, ...]
    differing: tuple[Differing, ...]
    cka: Cka | None
    ablated: tuple[Ablated, ...] = ()
    notes: tuple[str, ...] = ()


def to_json(comparison: Comparison) -> str:
    """The comparison as JSON text; a number that is not finite is null."""
    return json.dumps(finite(asdict(comparison)), indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> Comparison:
    """The comparison that `to_json` wrote.

    Raises:
        ValueError: the text is no JSON, or no comparison; names the value by its dotted path.
    """
    try:
        return TypeAdapter(Comparison).validate_python(_with_nan(json.loads(text), ""))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"Not JSON of a comparison: {error}. Run distill compare again.") from None
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"Not JSON of a comparison: {path}: {first['msg']}. Run distill compare again.") from None


# Where null means that there is nothing, and not that a number is not known.
_OPTIONAL = ("word", "control", "cka", "p_values", "p_value", "gain")


def _with_nan(value: Any, key: str) -> Any:
    if value is None:
        return None if key in _OPTIONAL else math.nan
    if isinstance(value, dict):
        return {name: _with_nan(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item, "") for item in value]
    return value
