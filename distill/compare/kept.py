"""A run's comparison as it is kept in its folder: made at the end of the run, and again by `distill compare`."""

from dataclasses import replace

from distill.compare.analyse import analyse
from distill.compare.comparison import Ablated, Comparison, from_json
from distill.compare.similar import layers
from distill.data import Splits, TextSplits
from distill.finished import Finished

FILE = "compare.json"


def compared(run: Finished, splits: Splits | TextSplits | None = None, *, with_layers: bool = True) -> Comparison:
    """A run's comparison; what can't be had of its layers is noted, and terms that were left out before are kept.

    splits: the run's data; None reads them where layers are compared.

    Raises:
        ValueError: the run has no classes, or its answers were not kept.
    """
    found = replace(analyse(run), ablated=_ablated_before(run))
    if not (run.report.has_teacher and with_layers):
        return found
    try:
        return replace(found, cka=layers(run, splits))
    except ValueError as error:
        return replace(found, notes=(f"How alike the layers are can't be told: {error}",))


def _ablated_before(run: Finished) -> tuple[Ablated, ...]:
    """What runs without single terms were found to be worth; nothing where a damaged file told it."""
    path = run.folder / FILE
    try:
        return from_json(path.read_text(encoding="utf-8")).ablated if path.is_file() else ()
    except (OSError, ValueError):
        return ()
