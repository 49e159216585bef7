"""A proposal which layers of a recipe's two models learn from each other: printed, written and drawn."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console

from distill.batch import Batch
from distill.data import Splits, collate
from distill.folder import write_whole
from distill.match import Rule, match
from distill.picture import draw_similarities
from distill.prepare import Parts

_MATCH_EXAMPLES = 16


@dataclass(frozen=True)
class Matching:
    """How `distill plan --match` proposes layer pairs.

    rule: see `distill.match.pairs_of`. arrows: number of pairs; None for four, or as many as fit. batches: how many,
    of up to 16 training examples each.
    """

    rule: Rule = "auto"
    arrows: int | None = None
    batches: int = 4


def propose(parts: Parts, accelerator: Accelerator, matching: Matching, folder: Path, console: Console) -> None:
    """Match the layers of both models as they stand, and print, write and draw what came of it.

    folder: the run's; the proposal lies beside it as NAME.match.json and NAME.match.png, so that a run can still start.

    Raises:
        ValueError: there is no teacher; too few examples or taps; the files can't be written.
    """
    recipe = parts.recipe
    if parts.teacher is None:
        raise ValueError(f"Recipe {recipe.name} has no teacher, so there are no layers to match. Give it one.")
    batches = match_batches(parts.splits, matching.batches)
    found = match(
        parts.teacher.to(accelerator.device),
        parts.student.to(accelerator.device),
        [batch.to(accelerator.device).inputs for batch in batches],
        rule=matching.rule,
        arrows=matching.arrows,
        teacher_view=parts.teacher_view.module().to(accelerator.device),
        student_view=parts.student_view.module().to(accelerator.device),
    )
    data = f"{len(batches)} batches of {len(batches[0])} training examples"
    console.print(found.table())
    if recipe.student.weights is None and recipe.initialize is None:
        console.print("Note: the student has random weights, so its CKA tells what random layers keep of the input.")
    console.print(f"On {data}. Lines for the recipe's plan:")
    console.print("\n".join(found.lines), markup=False, highlight=False, soft_wrap=True)
    if accelerator.is_main_process:
        table, picture = (folder.with_name(f"{folder.name}.match.{kind}") for kind in ("json", "png"))
        names = [str(one) for one in found.similarities.student], [str(one) for one in found.similarities.teacher]
        marks = [(names[0].index(str(pair.student)), names[1].index(str(pair.teacher))) for pair in found.pairs]
        title = f"{recipe.name}: pairs by rule {found.rule},\non {data}"
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            write_whole(table, json.dumps({**found.to_json(), "data": data}, indent=2))
            draw_similarities(
                picture, found.similarities.cka, rows=names[0], columns=names[1], marks=marks, title=title
            )
        except OSError as error:
            raise ValueError(f"{folder.parent} can't be written: {error.strerror}. Choose another --root.") from error
        console.print(f"Written: {table} and {picture}", markup=False, highlight=False, soft_wrap=True)
    accelerator.wait_for_everyone()


def match_batches(splits: Splits, batches: int) -> list[Batch]:
    """Batches of up to 16 training examples from all over the split, each from its beginning to its end.

    Raises:
        ValueError: `batches` is below 1, or there are fewer than four examples for each.
    """
    if batches < 1:
        raise ValueError(f"--batches is at least 1, got {batches}.")
    size = min(_MATCH_EXAMPLES, len(splits.train) // batches)
    if size < 4:
        raise ValueError(
            f"CKA needs 4 examples in each batch, and {len(splits.train)} training examples do not fill {batches} "
            "batches. Ask for fewer with --batches."
        )
    places = torch.linspace(0, len(splits.train) - 1, size * batches, dtype=torch.float64).round().long().tolist()
    return [collate([splits.train[(0, place)] for place in places[first::batches]]) for first in range(batches)]
