"""Where a run stands, as its checkpoints tell it, and which epoch's weights are kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from distill import checkpoint
from distill.prepare import Parts


@dataclass(frozen=True)
class Best:
    """The epoch of a stage whose weights are kept, with its validation quality.

    headline: the accuracy, or the mean AUROC where an example has several labels.
    """

    epoch: int
    step: int
    headline: float
    nll: float

    def beats(self, other: "Best | None", *, by: Literal["headline", "nll"] = "headline") -> bool:
        """Whether this epoch is to be kept: it is better by the one that decides, or as good and better by the other.

        The headline is better when higher, the negative log-likelihood when lower.
        """
        if other is None:
            return True
        if by == "nll":
            return (-self.nll, self.headline) > (-other.nll, other.headline)
        return (self.headline, -self.nll) > (other.headline, -other.nll)


@dataclass(frozen=True)
class Progress:
    """Where a run stands; written into each checkpoint.

    stage, epoch: the last one that ended; epoch -1 before the first. step: updates over all stages. epochs: likewise.
    epoch_step: updates of the epoch behind that one, where the run stands amid an epoch.
    spent: seconds of training by the parts of `distill.clock`, over all stages.
    """

    stage: int = 0
    epoch: int = -1
    step: int = 0
    epochs: int = 0
    best: Best | None = None
    epoch_step: int = 0
    spent: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Of training, so far."""
        return sum(self.spent.values())


def read_progress(path: Path) -> Progress:
    """Where the run stood when a checkpoint was written.

    Raises:
        ValueError: it is not what this release writes.
    """
    values = checkpoint.load_progress(path)
    try:
        best = None if values["best"] is None else Best(**values["best"])
        told = {name: values[name] for name in ("stage", "epoch", "step", "epochs", "epoch_step", "spent")}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"Checkpoint {path} is of another release of distill. Start anew with --overwrite, or change --name."
        ) from error
    return Progress(**told, best=best)


def examples_of(parts: Parts) -> list[int]:
    """Numbers of training, validation and test examples."""
    return [len(part) for part in (parts.splits.train, parts.splits.validation, parts.splits.test)]


def check_examples(saved: Path, parts: Parts) -> None:
    """Refuse to go on with other data than the run began with."""
    before, now = checkpoint.load_progress(saved)["examples"], examples_of(parts)
    if before != now:
        raise ValueError(
            f"The run began with {before[0]} training, {before[1]} validation and {before[2]} test examples, and now "
            f"there are {now[0]}, {now[1]} and {now[2]}. Bring the data back, or start anew with --overwrite."
        )
