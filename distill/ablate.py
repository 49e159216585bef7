"""`distill compare RUN RUN...`, and `--ablate`: what each term did, by training without it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console

from distill.compare import FILE, Ablated, ablation_table, check_same_examples, compared, show, side_by_side, to_json
from distill.finished import Finished, read_run
from distill.folder import write_whole
from distill.page import write_page
from distill.parser import Parser
from distill.plan import Plan
from distill.recipe import Recipe
from distill.report import Report
from distill.report.statistics import welch
from distill.run import Options, train


def compare(words: Sequence[str], console: Console) -> None:
    """The command: compare the models of each run, and several runs with each other.

    Raises:
        ValueError: a run is missing, not complete or can't be compared; by name.
    """
    parser = Parser(
        prog="distill compare",
        description="Did the transfer help? The models of a run on the same test examples: quality, flips, gains by "
        "class, what was taken over from the teacher, layers, examples. Several runs are also put side by side.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a complete run, such as runs/digits")
    parser.add_argument(
        "--ablate",
        action="store_true",
        help="also train one run for each term without it, under the same budget and seeds, as NAME-without-TERM",
    )
    parser.add_argument("--no-layers", action="store_true", help="leave out layers and examples: reads no data")
    parser.add_argument("--allow-import", action="append", default=[], metavar="MODULE", help="see distill train")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    given = parser.parse_args(list(words))
    runs = [read_run(folder, tuple(given.allow_import)) for folder in given.runs]
    whole = [run.folder.resolve() for run in runs]
    twice = next((run.folder for place, run in enumerate(runs) if whole[place] in whole[:place]), None)
    if twice is not None:
        raise ValueError(f"{twice} is named twice. Name each run once.")
    for run in runs[1:]:
        check_same_examples(runs[0], run)
    for run in runs if given.ablate else ():
        if run.recipe.teacher is None:
            raise ValueError(f"{run.folder} has no teacher: none of its terms is of a transfer. Name a run with one.")
    found = [compared(run, with_layers=not given.no_layers) for run in runs]
    # A transfer that hurt is said first.
    order = sorted(range(len(runs)), key=lambda place: found[place].word != "hurt")
    for place in order:
        run, comparison = runs[place], found[place]
        # The verdict does not wait for what is trained.
        show(replace(comparison, ablated=()) if given.ablate else comparison, console)
        if given.ablate:
            comparison = replace(comparison, ablated=ablated(run, console))
            console.print(ablation_table(comparison))
        write_whole(run.folder / FILE, to_json(comparison))
        for written in (run.folder / FILE, write_page(run, with_examples=not given.no_layers)):
            console.print(f"Written: {written}", markup=False, highlight=False, soft_wrap=True)
    if len(runs) > 1:
        side_by_side(runs, console)


def ablated(run: Finished, console: Console) -> tuple[Ablated, ...]:
    """A run of each plan that lacks one term, trained where it is not there yet."""
    whole = run.report.values(run.arm)
    return tuple(_without(run, term, whole, console) for term in _terms(run.recipe))


def _without(run: Finished, term: str, whole: Sequence[float], console: Console) -> Ablated:
    recipe = leave_out(run.recipe, term)
    if isinstance(recipe, str):
        return Ablated(term, (), None, recipe)
    console.print(f"Without {term}: {run.root / recipe.name}", markup=False, highlight=False)
    report: Report = train(recipe, Options(run.root, resume=True), Console(quiet=True))
    values = report.values(run.arm)
    if len(values) < 2:
        return Ablated(term, values, None, "one seed tells nothing; give repeats=3")
    return Ablated(term, values, welch(values, whole))


def leave_out(recipe: Recipe, term: str) -> Recipe | str:
    """The recipe without a term, as a run of its own without controls; or why there is none, in words."""
    stages = tuple(replace(stage, plan=_less(stage.plan, term)) for stage in recipe.stages)
    plan = _less(recipe.plan, term)
    if not all(stage.plan for stage in stages) or not (stages or plan):
        return "nothing would be left to train by"
    plans = [stage.plan for stage in stages] or [plan]
    if not any(one.needs_teacher for each in plans for one in each.values()):
        return "nothing else asks the teacher: the controls show it"
    between = {} if any(len(each) > 1 for each in plans) else {"balance": None, "compare_gradients_every": None}
    name = f"{recipe.name}-without-{term}"
    try:
        return replace(recipe, name=name, plan=plan, stages=stages, controls=(), **between)  # type: ignore[arg-type]
    except ValueError as error:  # such as a setting that no term is left for
        return f"the rest is no recipe: {error}"


def _less(plan: Plan, term: str) -> Plan:
    return {name: one for name, one in plan.items() if name != term}


def _terms(recipe: Recipe) -> Iterator[str]:
    yield from dict.fromkeys(name for stage in recipe.all_stages() for name in stage.plan)
