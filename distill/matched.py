"""The terms of a recipe whose layers are matched: chosen once for the whole run, and read again where it is resumed."""

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from rich.console import Console

from distill.batch import Batch
from distill.data import Splits, TextSplits
from distill.match import Match, match
from distill.plan import Plan, Term
from distill.prepare import Parts, spread_batches
from distill.recipe import Recipe

RECORD = "match.json"
_EXAMPLES = 16
_WIDTH = 120


def match_batches(splits: Splits | TextSplits, batches: int) -> list[Batch]:
    """Batches of up to 16 training examples from all over the split, each from its beginning to its end.

    Raises:
        ValueError: there are fewer than four examples for each.
    """
    size = min(_EXAMPLES, len(splits.train) // batches)
    if size < 4:
        raise ValueError(
            f"CKA needs 4 examples in each batch, and {len(splits.train)} training examples do not fill {batches} "
            "batches. Ask for fewer batches."
        )
    return list(spread_batches(splits, batches, size))


def choose_layers(parts: Parts, accelerator: Accelerator, record: Path | None = None) -> tuple[Parts, dict[str, Match]]:
    """The parts with a recipe in which each term names its layers, and {term: its match} for those that left them open.

    The layers are chosen on the models as they stand here, and for all seeds: those of another seed would make another
    method of it. All processes take what the first one found. An arrow whose layers can't be joined is left out, with
    a note; the others share the weight, so how many there are does not change what the term counts for.

    record: the file that an interrupted run wrote; it is followed, and nothing is chosen again.

    Raises:
        ValueError: too few examples or layers, none that can be joined, or the record is of other terms or damaged.
    """
    wanted = _open_terms(parts.recipe)
    if not wanted:
        return parts, {}
    recorded = None if record is None or not record.exists() else record
    found = _chosen(parts, accelerator, wanted) if recorded is None else _read(recorded, wanted)
    recipe = expand(parts.recipe, found)
    return replace(parts, recipe=recipe, notes=(*parts.notes, *_notes(parts.recipe, found))), found


def expand(recipe: Recipe, found: Mapping[str, Match]) -> Recipe:
    """The recipe with one term for each pair of layers, `hints_1`, `hints_2` and so on of `hints`.

    found: {dotted name of a term: its match}.

    Raises:
        ValueError: none of a term's pairs can be joined.
    """
    stages = tuple(
        replace(stage, plan=_expanded(stage.plan, f"stages.{stage.name}.", found)) for stage in recipe.stages
    )
    return replace(recipe, plan=_expanded(recipe.plan, "", found), stages=stages)


def to_text(found: Mapping[str, Match]) -> str:
    """What a run records of its matches, as JSON."""
    return json.dumps({name: one.to_json() for name, one in found.items()}, indent=2)


def tables(found: Mapping[str, Match]) -> str:
    """The matches as text, a table each."""
    out = Console(file=io.StringIO(), width=_WIDTH, no_color=True)
    for name, one in found.items():
        out.print(f"The layers of {name}:", markup=False, highlight=False)
        out.print(one.table())
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def _open_terms(recipe: Recipe) -> dict[str, Term]:
    """{dotted name: term} of those whose layers are to be chosen."""
    plans: list[tuple[str, Plan]] = [("", recipe.plan), *((f"stages.{one.name}.", one.plan) for one in recipe.stages)]
    return {f"{path}plan.{name}": term for path, plan in plans for name, term in plan.items() if term.match is not None}


def _chosen(parts: Parts, accelerator: Accelerator, wanted: Mapping[str, Term]) -> dict[str, Match]:
    assert parts.teacher is not None
    device = accelerator.device
    models = parts.teacher, parts.student
    before = [next(model.parameters(), torch.empty(0)).device for model in models]
    found: dict[str, Match] = {}
    for name, term in wanted.items():
        how = term.matching
        assert how is not None
        batches = [batch.to(device).inputs for batch in match_batches(parts.splits, how.batches)]
        try:
            found[name] = match(
                parts.teacher.to(device),
                parts.student.to(device),
                batches,
                rule=how.rule,
                arrows=how.arrows,
                teacher_view=parts.teacher_view.module().to(device),
                student_view=parts.student_view.module().to(device),
                loss=term.loss,
            )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    for model, place in zip(models, before, strict=True):
        model.to(place)
    text = broadcast_object_list([to_text(found)])[0]
    return _parsed(text, wanted)


def _read(record: Path, wanted: Mapping[str, Term]) -> dict[str, Match]:
    try:
        return _parsed(record.read_text(), wanted)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ValueError(
            f"{record} does not tell the layers of {', '.join(wanted)} ({error}). Start anew with --overwrite, or "
            "change --name."
        ) from error


def _parsed(text: str, wanted: Mapping[str, Term]) -> dict[str, Match]:
    values = json.loads(text)
    if list(values) != list(wanted):
        raise ValueError(f"it is of the terms {', '.join(values) or 'none'}")
    return {name: Match.from_json(values[name], term.loss) for name, term in wanted.items()}


def _expanded(plan: Plan, path: str, found: Mapping[str, Match]) -> dict[str, Term]:
    terms: dict[str, Term] = {}
    for name, term in plan.items():
        if term.match is None:
            terms[name] = term
            continue
        pairs = found[f"{path}plan.{name}"].pairs
        joined = [pair.term for pair in pairs if pair.joining.possible]
        if not joined:
            raise ValueError(
                f"{path}plan.{name}: no layers can be joined: {pairs[0].joining.reason}. Choose another loss, or name "
                "the layers by hand."
            )
        for number, arrow in enumerate(joined, 1):
            terms[f"{name}_{number}"] = replace(arrow, weight=term.weight / len(joined), schedule=term.schedule)
    return terms


def _notes(recipe: Recipe, found: Mapping[str, Match]) -> list[str]:
    notes = []
    for name, one in found.items():
        joined = [pair for pair in one.pairs if pair.joining.possible]
        arrows = ", ".join(f"{pair.student.tap} from {pair.teacher.tap} (CKA {pair.cka:.3f})" for pair in joined)
        seeds = ", for all seeds" if recipe.repeats > 1 else ""
        notes.append(f"{name} was matched by rule {one.rule}{seeds}: {arrows}.")
        notes += [
            f"{name} leaves out {pair.student.tap} with {pair.teacher.tap}: {pair.joining.reason}."
            for pair in one.pairs
            if not pair.joining.possible
        ]
    if recipe.student.weights is None and recipe.initialize is None:
        notes.append("The student had random weights when it was matched: CKA tells what they keep of the input.")
    return notes
