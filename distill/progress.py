"""Where a run stands, as its checkpoints tell it, and which epoch's weights are kept."""

from dataclasses import dataclass
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
    """

    stage: int = 0
    epoch: int = -1
    step: int = 0
    epochs: int = 0
    best: Best | None = None
    seconds: float = 0.0
    epoch_step: int = 0


def read_progress(path: Path) -> Progress:
    """Where the run stood when a checkpoint was written."""
    values = checkpoint.load_progress(path)
    best = None if values["best"] is None else Best(**values["best"])
    told = {name: values[name] for name in ("stage", "epoch", "step", "epochs", "seconds", "epoch_step")}
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
