"""A proposal which layers of a recipe's two models learn from each other: printed, written and drawn."""

import json
from pathlib import Path

from accelerate import Accelerator
from rich.console import Console

from distill.folder import write_whole
from distill.match import match
from distill.matched import match_batches
from distill.matching import Matching
from distill.picture import draw_similarities
from distill.prepare import Parts


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
