"""How a term's taps are chosen from all layers of both models, as settings; `distill.match` does the choosing."""

from dataclasses import dataclass
from typing import Literal, get_args

Rule = Literal["auto", "uniform", "last", "skip"]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True)
class Matching:
    """How pairs of layers are chosen.

    rule: auto for the layers that are most alike, in order; or uniform, last or skip, see `distill.match.pairs_of`.
    arrows: number of pairs; none for four, or as many as fit.
    batches: how many, of up to 16 training examples each, the layers are compared on.
    """

    rule: Rule = "auto"
    arrows: int | None = None
    batches: int = 4

    def __post_init__(self) -> None:
        if self.arrows is not None and self.arrows < 1:
            raise ValueError(f"arrows is a number of pairs of at least 1, or none for four, got {self.arrows}.")
        if self.batches < 1:
            raise ValueError(f"batches is at least 1, got {self.batches}.")
