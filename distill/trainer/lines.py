"""Lines of the log: what they tell of the steps since the last one, whose numbers stay on the device until then."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from distill.clock import OTHER, PARTS, shares
from distill.plan import Plan
from distill.trainer.finite import NotFinite, fault, finite_rows, mean_losses
from distill.trainer.gradients import Shared, as_line

SHARES = tuple(f"{part}_share" for part in (*PARTS, OTHER))
"""The names under which a line tells where the time went; together they are 1."""


@dataclass
class Lines:
    """What the next line will tell.

    shared: where the terms' gradients are compared; None where nobody asks.
    lenient: whether a step that is not finite may have been left out, instead of stopping the run.
    rows: one a step, each term's mean and then the gradient norm, (terms + 1,).
    examples: of this process. factors: of each term's weight, in the last step. gradients: as last compared.
    """

    accelerator: Accelerator
    plan: Plan
    shared: Shared | None
    lenient: bool
    rows: list[Tensor] = field(default_factory=list)
    examples: int = 0
    factors: Mapping[str, Tensor | float] = field(default_factory=dict)
    gradients: tuple[Tensor, Tensor] | None = None

    def finite(self, rows: Tensor) -> Tensor:
        """Which of the rows (steps, terms + 1) count, bool (steps,)."""
        return finite_rows(rows, scaled=self.accelerator.scaler is not None)

    def line(self, step: int, progress: float, learning_rate: float, seconds: Mapping[str, float]) -> dict[str, object]:
        """The line, which starts anew; the only place where numbers of steps are read from the device.

        step: of the whole run. progress: in epochs. seconds: each part's since the last line.

        Raises:
            NotFinite: a loss or the gradient norm of these steps is NaN or infinite, and none may be left out.
        """
        rows = torch.stack(self.rows).cpu()
        counted = self._left_in(rows, step)
        examples, self.examples = self.examples, 0
        self.rows.clear()
        factors = {name: float(self.factors[name]) for name in self.plan}
        weights = {name: term.weight_at(progress) * factors[name] for name, term in self.plan.items()}
        share = shares(seconds)
        return {
            "step": step,
            "epoch": round(progress, 6),
            **mean_losses(counted, weights),
            "learning_rate": learning_rate,
            "examples_per_second": examples * self.accelerator.num_processes / max(sum(seconds.values()), 1e-9),
            **{name: share.get(part, 0.0) for name, part in zip(SHARES, (*PARTS, OTHER), strict=True)},
            **({} if len(counted) == len(rows) else {"skipped": len(rows) - len(counted)}),
            **({} if all(factor == 1.0 for factor in factors.values()) else {"balance": factors}),
            **self._gradient_line(),
        }

    def unlogged(self, step: int) -> dict[str, object]:
        """What there is to tell yet, for a checkpoint between two lines.

        Raises:
            NotFinite: as of a line.
        """
        rows = torch.stack(self.rows).cpu() if self.rows else None
        if rows is not None and not self.lenient:
            self._left_in(rows, step)
        return {"rows": rows, "examples": self.examples, "gradients": self.gradients}

    def go_on(self, unlogged: Mapping[str, Any]) -> None:
        """Take up what `unlogged` told, in a run that goes on."""
        rows, gradients = unlogged["rows"], unlogged["gradients"]
        self.rows = [] if rows is None else list(rows.to(self.accelerator.device).unbind())
        self.examples, self.gradients = unlogged["examples"], None if gradients is None else tuple(gradients)

    def _left_in(self, rows: Tensor, step: int) -> Tensor:
        """The rows of the last steps whose updates counted; of one that did not it warns, or stops."""
        finite = self.finite(rows)
        count = int((~finite).sum())
        if count == 0:
            return rows
        first = finite.tolist().index(False)
        found = fault(rows[first], self.plan, step - len(rows) + first + 1)
        if not self.lenient:
            raise NotFinite(f"{found}.")
        if self.accelerator.is_main_process:
            warnings.warn(f"{found}. Left out: {count} of the last {len(rows)} updates.", stacklevel=2)
        return rows[finite]

    def _gradient_line(self) -> dict[str, object]:
        if self.gradients is None or self.shared is None:
            return {}
        norms, cosines = self.gradients
        self.gradients = None
        return as_line(self.shared.terms, self.shared.layer, norms, cosines)
