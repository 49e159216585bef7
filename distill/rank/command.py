"""`distill rank RECIPE --sources A B C...`: which source to learn from, before any training."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from distill.folder import write_whole
from distill.measure import machine, versions
from distill.parser import Parser
from distill.picture import check_pictures, draw_ranking
from distill.rank.candidate import Candidate, candidate, fingerprint, see
from distill.rank.ranking import Ranking, ranked
from distill.rank.scores import RESAMPLES, SCORES, Scored, scored
from distill.recipe import Recipe, read_recipe
from distill.report import clean
from distill.report.serial import finite

_EXAMPLES = 5_000
_SHORT = {
    "logme": "LogME", "leep": "LEEP", "nce": "NCE", "h_score": "H", "regularized_h_score": "rH", "transrate": "TR",
    "knn": "k-NN",
}  # fmt: skip
_WORDS = """
A source is the folder of a complete run, whose student it is, or MODEL@WEIGHTS as a recipe names both:

distill rank recipes/image/cifar10.py --sources runs/a runs/b torchvision:resnet18@DEFAULT
"""


def rank(words: Sequence[str], console: Console) -> None:
    """The command.

    Raises:
        ValueError: a source or the data can't be had; by name, before any of them is run.
    """
    given = _given(words)
    recipe = read_recipe(given.recipe, tuple(given.allow_import))
    if given.plot is not None:
        check_pictures()
    root = Path(given.root)
    sources = [candidate(name, root) for name in given.sources]
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("sources", total=len(sources))
        found = score(
            recipe, sources, root, examples=given.examples, resamples=given.resamples, seed=given.seed,
            tick=lambda: progress.advance(task),
        )  # fmt: skip
    order = ranked(found, given.by)
    _show(order, given, console)
    if given.out is not None:
        write_whole(given.out, json.dumps(finite(_plain(order, given)), indent=1) + "\n")
        console.print(f"Written: {given.out}", markup=False, highlight=False, soft_wrap=True)
    if given.plot is not None:
        _draw(order, given.plot)
        console.print(f"Drawn: {given.plot}", markup=False, highlight=False, soft_wrap=True)


def score(
    recipe: Recipe,
    sources: Sequence[Candidate],
    root: Path,
    *,
    examples: int = _EXAMPLES,
    resamples: int = RESAMPLES,
    seed: int = 0,
    tick: Any = lambda: None,
) -> list[Scored]:
    """The scores of each source on the same training examples of a recipe.

    Raises:
        ValueError: a source can't be had, or two are one model.
    """
    found: list[Scored] = []
    marks: list[tuple[str, torch.Tensor]] = []
    for one in sources:
        seen = see(one, recipe, root, examples, seed)
        mark = fingerprint(seen)
        for name, other in marks:
            if other.shape == mark.shape and torch.equal(other, mark):
                raise ValueError(f"{one.name} and {name} are the same model with the same weights. Name one of them.")
        marks.append((one.name, mark))
        if float(seen.features.std(0).max()) == 0:
            raise ValueError(f"{one.name} gives the same features for every example. Check its weights and view.")
        found.append(scored(seen, seed=seed, resamples=resamples))
        tick()
    return found


def _given(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="distill rank",
        description="Which source a recipe could best learn from, scored on its training examples without training.",
        epilog=_WORDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="of the target: its data count, and not its teacher")
    add("--sources", nargs="+", required=True, metavar="SOURCE", help="two or more; see below")
    add("--by", choices=list(SCORES), default="logme", help="the score that orders the table; default: logme")
    add("--examples", type=_above_zero, default=_EXAMPLES, metavar="N", help=f"at most; default: {_EXAMPLES}")
    add("--resamples", type=_above_zero, default=RESAMPLES, metavar="N", help=f"half-samples; default: {RESAMPLES}")
    add("--seed", type=int, default=0, metavar="N", help="draws the examples and the half-samples; default: 0")
    add("--root", default="runs", metavar="FOLDER", help="where runs/NAME in weights lie; default: runs")
    add("--out", type=Path, metavar="FILE", help="write all of it as JSON, with machine and versions")
    add("--plot", type=Path, metavar="FILE", help="draw the scores with their intervals as a PNG")
    add("--allow-import", action="append", default=[], metavar="MODULE", help="see distill train")
    add("--debug", action="store_true", help="show the traceback of an error")
    given = parser.parse_args(list(words))
    if len(given.sources) < 2:
        raise ValueError("--sources needs two or more to rank.")
    twice = next((name for name in given.sources if given.sources.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is named twice. Name each source once.")
    if given.resamples < 2:
        raise ValueError("--resamples is at least 2, for an interval.")
    return given


def _show(order: Ranking, given: argparse.Namespace, console: Console) -> None:
    for sentence in order.sentences:
        console.print(clean(sentence), markup=False, highlight=False)
    console.print()
    table = Table(
        title=f"{len(order.sources)} sources by {SCORES[order.by]}",
        title_justify="left",
        caption=f"On at most {given.examples:,} training examples. {SCORES[order.by]} with 95% from {given.resamples} "
        "half-samples, and the place by each other score, 1 the best; --out has their values. Pass, scores: seconds.",
        caption_justify="left",
    )
    others = [name for name in SCORES if name != order.by]
    for column in ("source", SCORES[order.by], *(_SHORT[name] for name in others), "pass", "scores"):
        table.add_column(column, justify="left" if column == "source" else "right", overflow="fold")
    for one in order.sources:
        main = one.scores[order.by]
        places = [_place(order, one, name) for name in others]
        times = f"{one.pass_seconds:.1f}", f"{one.score_seconds:.1f}"
        table.add_row(escape(clean(one.name)), f"{main.value:.3f} ± {main.high - main.value:.3f}", *places, *times)
    console.print(table)
    lacking = [(one.name, name, each.why) for one in order.sources for name, each in one.scores.items() if each.why]
    for source, name, why in lacking:
        console.print(clean(f"{source}: no {SCORES[name]}, {why}."), markup=False, highlight=False)


def _place(order: Ranking, one: Scored, name: str) -> str:
    value = one.scores[name].value
    if not math.isfinite(value):
        return "-"
    return str(1 + sum(other.scores[name].value > value for other in order.sources))


def _plain(order: Ranking, given: argparse.Namespace) -> dict[str, Any]:
    settings = {"by": order.by, "examples": given.examples, "resamples": given.resamples, "seed": given.seed}
    sources = [asdict(one) for one in order.sources]
    return {**settings, "sentences": order.sentences, "sources": sources, "machine": machine(), "versions": versions()}


def _draw(order: Ranking, path: Path) -> None:
    names = [one.name for one in order.sources]
    panels = {
        SCORES[name]: [(one.scores[name].value, one.scores[name].low, one.scores[name].high) for one in order.sources]
        for name in SCORES
        if all(math.isfinite(one.scores[name].value) for one in order.sources)
    }
    draw_ranking(path, names, panels, title=f"{len(names)} sources, best by {SCORES[order.by]} above")


def _above_zero(word: str) -> int:
    if not word.isdecimal() or int(word) == 0 or len(word) > 9:
        raise argparse.ArgumentTypeError(f"takes a whole number above zero, got {word!r}")
    return int(word)
