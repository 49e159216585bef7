"""The command line, `distill COMMAND ...`. A user's mistake is one readable line and exit code 2."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from distill.ablate import compare
from distill.cost import cost
from distill.export import export
from distill.guide import show, show_table
from distill.match import RULES
from distill.matching import Matching
from distill.messages import nearest, one_line
from distill.page import report
from distill.parser import Parser
from distill.predict import predict
from distill.rank import rank
from distill.recipe import Recipe, apply_overrides, override_names, read_recipe
from distill.run import Options, plan, train
from distill.stopping import EXIT_CODE, Stopped

_ABOUT = "Transfer what a trained network knows into a smaller, faster or better-adapted one."
_COMMANDS = {
    "train": "train recipes one after the other, and report what each transfer was worth",
    "plan": "show what recipes would do, and stop on any mismatch, without training",
    "losses": "list the losses to choose from, or explain those that are named",
    "rank": "score which source a recipe could best learn from, before any training",
    "export": "write the student of a run alone, in a form that needs nothing else, and check it",
    "predict": "tell what the student of a run says of images or texts",
    "cost": "tell what models take and how fast they are here, in each of the ways to run them",
    "compare": "tell whether a transfer helped: the models of a run, or several runs, on the same test examples",
    "report": "make the page report.html of a complete run anew",
}
_SETTINGS = """
Settings of the recipe are changed by name: --epochs 3 --plan.kd.weight 0.5 --student.arguments.width 8.
'distill train FILE --help' lists those of a recipe. Every run writes runs/NAME/recipe.json, which runs again:
distill train runs/NAME/recipe.json --name again
"""


def entry() -> None:
    """The console script."""
    sys.exit(run_command(sys.argv[1:]))


def main(recipe: Recipe) -> None:
    """Train a recipe from its own file, `if __name__ == "__main__": main(recipe)`, for `accelerate launch FILE`."""
    words = sys.argv[1:]
    sys.exit(_answered(lambda: _run("train", [recipe], words), words))


def run_command(words: Sequence[str]) -> int:
    """Run one command line; the exit code is 0, 2 for a user's mistake, or 75 where a signal stopped a saved run."""
    return _answered(lambda: _command(words), words)


def _command(words: Sequence[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        parser = argparse.ArgumentParser(
            prog="distill", description=_ABOUT, epilog=_SETTINGS, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        commands = parser.add_subparsers(metavar="COMMAND", title="commands")
        for name, meaning in _COMMANDS.items():
            commands.add_parser(name, help=meaning)
        parser.print_help()
        return
    command, *rest = words
    if command not in _COMMANDS:
        raise ValueError(f"distill has no command {command!r}. Nearest: {nearest(command, _COMMANDS)}.")
    if command in _TOOLS:
        _TOOLS[command](rest, Console(highlight=False))
        return
    files = list(_until_option(rest))
    _run_files(command, files, rest[len(files) :])


def _losses(words: Sequence[str], console: Console) -> None:
    parser = Parser(prog="distill losses", description="List the losses to choose from, or explain one.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a loss to explain; none lists them all")
    names = parser.parse_args(list(words)).names
    if names:
        show(names, console)
    else:
        show_table(console)


# What a user does around a run; each takes its own words.
_TOOLS: Mapping[str, Callable[[Sequence[str], Console], None]] = {
    "losses": _losses,
    "rank": rank,
    "export": export,
    "predict": predict,
    "cost": cost,
    "compare": compare,
    "report": report,
}


def _run_files(command: str, files: Sequence[str], words: Sequence[str]) -> None:
    if not files and not {"-h", "--help"} & set(words):
        raise ValueError(f"distill {command} needs the file of a recipe: distill {command} recipes/image/digits.py")
    options, _ = _options(command).parse_known_args(list(words))
    recipes = [read_recipe(Path(file), allow_import=tuple(options.allow_import)) for file in files]
    _run(command, recipes, words)


def _run(command: str, recipes: Sequence[Recipe], words: Sequence[str]) -> None:
    parser = _options(command)
    options, overrides = parser.parse_known_args(list(words))
    if options.help:
        _help(parser, recipes)
        return
    if options.overwrite and options.resume == "auto":
        raise ValueError("--resume auto goes on with a run and --overwrite removes it. Give one of them.")
    if options.skip_unreadable:
        overrides.append("--data.skip-unreadable")
    changed = _overridden(recipes, overrides, tuple(options.allow_import))
    how = Options(
        Path(options.root),
        resume=options.resume == "auto",
        overwrite=options.overwrite,
        profile=command == "train" and options.profile,
    )
    console = Console(highlight=False)
    for recipe in changed:
        if command == "plan":
            plan(recipe, how, console, _matching(options), options.tune)
        else:
            train(recipe, how, console)


def _options(command: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"distill {command}",
        usage=f"distill {command} FILE [FILE...] [options] [settings of the recipe]",
        epilog=_SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-h", "--help", action="store_true", help="show this, and the settings of the recipes that are named")
    add("--root", default="runs", metavar="FOLDER", help="where the folders of runs lie; default: runs")
    add(
        "--resume",
        choices=("auto", "never"),
        default="never",
        help="auto goes on where a run of the same recipe stopped",
    )
    add("--overwrite", action="store_true", help="remove what a run of the same name left, and start anew")
    add(
        "--skip-unreadable",
        action="store_true",
        help="leave out images that can't be read, and count them; short for --data.skip-unreadable",
    )
    add(
        "--allow-import",
        action="append",
        default=[],
        metavar="MODULE",
        help="let a recipe.json name classes of this module",
    )
    add("--debug", action="store_true", help="show the traceback of an error")
    if command == "train":
        add(
            "--profile",
            action="store_true",
            help="record five updates of the first student, from about the 11th on, which slows them down: "
            "runs/NAME/profile gets table.txt, the operations by the time they took, and trace.json",
        )
    if command == "plan":
        add(
            "--match",
            nargs="?",
            const="auto",
            choices=RULES,
            help="propose which layers learn from each other: the most alike in order (auto), or by a rule",
        )
        add(
            "--tune",
            nargs="?",
            const=60.0,
            type=_seconds,
            metavar="SECONDS",
            help="try which settings make a step cheaper on this machine, for about a minute or so many seconds, and "
            "print those to paste",
        )
        add("--arrows", type=int, metavar="N", help="with --match: number of pairs; default: 4, or as many as fit")
        add("--batches", type=int, metavar="N", help="with --match: batches of up to 16 examples; default: 4")
    return parser


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"takes seconds above zero, got {word!r}")
    return seconds


def _matching(options: argparse.Namespace) -> Matching | None:
    given = {name: value for name in ("arrows", "batches") if (value := getattr(options, name)) is not None}
    if options.match is None and given:
        raise ValueError(f"--{next(iter(given))} has no effect without --match. Add it, or leave this out.")
    return None if options.match is None else Matching(options.match, **given)


def _help(parser: argparse.ArgumentParser, recipes: Sequence[Recipe]) -> None:
    parser.print_help()
    for recipe in recipes:
        print(f"\nSettings of {recipe.name}:")
        for setting in override_names(recipe):
            print(
                f"  --{setting.name} = {setting.value}  "
                f"({setting.takes}{': ' * bool(setting.meaning)}{setting.meaning})"
            )


def _overridden(recipes: Sequence[Recipe], words: Sequence[str], allow_import: tuple[str, ...]) -> list[Recipe]:
    """Each recipe with its overrides. Of several recipes, an override changes those that have the setting."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not groups:
            groups.append([])
        groups[-1].append(word)
    known = [{setting.name for setting in override_names(recipe)} for recipe in recipes]
    names = [group[0].removeprefix("--").partition("=")[0].replace("-", "_") for group in groups]
    changed = []
    for recipe, settings in zip(recipes, known, strict=True):
        own = [
            word
            for name, group in zip(names, groups, strict=True)
            if name in settings or not any(name in others for others in known)
            for word in group
        ]
        changed.append(apply_overrides(recipe, own, allow_import))
    twice = sorted({one.name for one in changed if sum(one.name == other.name for other in changed) > 1})
    if twice:
        raise ValueError(
            f"Two recipes are named {twice[0]!r} and would share a folder. Train them by themselves, or rename one."
        )
    return changed


def _until_option(words: Sequence[str]) -> list[str]:
    first = next((position for position, word in enumerate(words) if word.startswith("-")), len(words))
    return list(words[:first])


def _answered(act: Callable[[], None], words: Sequence[str]) -> int:
    """Run; what a user caused becomes one line, unless the traceback is asked for."""
    warnings.formatwarning = lambda message, *_: f"distill: warning: {message}\n"
    try:
        act()
    except ValueError as error:
        if "--debug" in words:
            raise
        rank = os.environ.get("RANK", "0")
        where = "" if rank == "0" else f" (process {rank})"
        # In one call, so that the lines of several processes do not run into each other.
        sys.stderr.write(f"distill{where}: {one_line(error)}\n")
        return 2
    except Stopped as error:
        if os.environ.get("RANK", "0") == "0":
            sys.stderr.write(f"distill: {one_line(error)}\n")
        return EXIT_CODE
    except KeyboardInterrupt:
        print("distill: interrupted. Go on with --resume auto.", file=sys.stderr)
        return 130
    return 0
