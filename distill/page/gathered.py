"""All that a page shows, read from a run's folder; what can't be read is told instead."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distill.compare import FILE as COMPARISON
from distill.compare import Comparison
from distill.compare import from_json as comparison_from_json
from distill.data import Splits, TextSplits
from distill.finished import Finished
from distill.losses import Loss
from distill.match import Match
from distill.matched import RECORD, expand
from distill.page.history import History, read_history
from distill.page.thumbnails import MOST, Shown, shown
from distill.recipe import Recipe


@dataclass(frozen=True)
class Gathered:
    """What a page is made of.

    recipe: with the layers that the run chose for itself. comparison: None for the reason in `no_comparison`.
    histories: of every trained student whose log can be read; the others are told of in `unread`.
    examples: {number in the test split: how it looks}; empty for the reason in `no_examples`.
    plan: as it was printed; empty where that was not kept.
    """

    run: Finished
    recipe: Recipe
    comparison: Comparison | None
    no_comparison: str
    histories: tuple[History, ...]
    unread: tuple[str, ...]
    examples: Mapping[int, Shown]
    no_examples: str
    plan: str


def gather(run: Finished, splits: Splits | TextSplits | None = None, *, with_examples: bool = True) -> Gathered:
    """Read the logs, the comparison and the examples of a run.

    splits: the run's data; None loads them where examples are to be shown.
    """
    comparison, no_comparison = _comparison(run)
    histories, unread = [], []
    for arm in run.report.arms:
        for seed in run.report.seeds:
            try:
                histories.append(read_history(run.place(arm, seed), arm, seed))
            except ValueError as error:
                unread.append(str(error))
    examples: Mapping[int, Shown] = {}
    no_examples = "They were not asked for." if not with_examples else ""
    if comparison is not None and comparison.differing and with_examples:
        examples, no_examples = _examples(run, comparison, splits)
    plan = run.folder / "plan.txt"
    return Gathered(
        run=run,
        recipe=_with_chosen_layers(run),
        comparison=comparison,
        no_comparison=no_comparison,
        histories=tuple(histories),
        unread=tuple(unread),
        examples=examples,
        no_examples=no_examples,
        plan=_text(plan),
    )


def place_of(run: Finished) -> str:
    """The run's folder for a command line: as it was named; of one named from the root only the end.

    A page that is passed on tells nothing of the machine's other folders.
    """
    folder = run.folder
    return shlex.quote("/".join(folder.parts[-2:]) if folder.is_absolute() else folder.as_posix())


def _comparison(run: Finished) -> tuple[Comparison | None, str]:
    path, report = run.folder / COMPARISON, run.report
    way_out = f"distill compare {place_of(run)} makes it."
    if not path.is_file():
        if "perplexity" in report.outcomes[0].test:
            return None, "The run guesses hidden words: there are no classes to compare by, and no answers are kept."
        return None, f"The models were not compared yet. {way_out}"
    try:
        found = comparison_from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return None, f"{COMPARISON} can't be read: {error} {way_out}"
    if (found.run, found.seeds) != (report.name, report.seeds):
        return None, f"{COMPARISON} is of another run, or of other seeds. {way_out}"
    return found, ""


def _examples(
    run: Finished, comparison: Comparison, splits: Splits | TextSplits | None
) -> tuple[Mapping[int, Shown], str]:
    numbers = [one.index for one in comparison.differing[:MOST]]
    try:
        splits = splits if splits is not None else run.recipe.data.load(run.recipe.seed, run.recipe.mix)
        return shown(splits, numbers), ""
    except ValueError as error:
        return {}, f"The examples themselves can't be shown: {error}"


def _with_chosen_layers(run: Finished) -> Recipe:
    """The recipe with the layers that the run chose; as it was written where that record can't be read."""
    record = run.folder / RECORD
    if not record.is_file():
        return run.recipe
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
        return expand(run.recipe, {name: Match.from_json(one, _loss(run.recipe, name)) for name, one in values.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return run.recipe


def _loss(recipe: Recipe, dotted: str) -> Loss:
    """The loss of the term that a record calls plan.TERM or stages.STAGE.plan.TERM."""
    *path, term = dotted.split(".")
    plans = {stage.name: stage.plan for stage in recipe.stages}
    return (plans[path[1]] if path[0] == "stages" else recipe.plan)[term].loss


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""
