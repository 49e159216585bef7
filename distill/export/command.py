"""`distill export RUN`: the student alone, in a form that needs no `distill`."""

import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from distill.export.card import card
from distill.export.formats import BOUNDS, check, write
from distill.finished import read_run
from distill.measure import versions
from distill.messages import first_line
from distill.onnx_file import check_onnx
from distill.parser import Parser
from distill.report.units import size
from distill.serving import serve

_EXAMPLES = 32
RECORD = "export.json"


def export(words: Sequence[str], console: Console) -> None:
    """The command.

    Raises:
        ValueError: the run can't be exported so; by name, and nothing is left behind.
    """
    parser = Parser(
        prog="distill export",
        description="The student of a run alone: weights, preprocessing, labels, thresholds and a model card. What is "
        "written is loaded again and compared with the student on real validation examples, in batches of other sizes.",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="the folder of a complete run, such as runs/digits")
    add("--format", choices=list(BOUNDS), default="safetensors", help="default: safetensors")
    add("--out", type=Path, metavar="FOLDER", help="default: RUN/export/FORMAT")
    add("--overwrite", action="store_true", help="remove what is in that folder")
    add("--arm", metavar="ARM", help="plain, initialized or transferred; default: the run itself")
    add("--seed", type=int, metavar="N", help="default: the run's first")
    add("--allow-import", action="append", default=[], metavar="MODULE", help="see distill train")
    add("--debug", action="store_true", help="show the traceback of an error")
    given = parser.parse_args(list(words))
    if given.format == "onnx":
        check_onnx()
    run = read_run(given.run, tuple(given.allow_import))
    folder = given.out or run.folder / "export" / given.format
    _check_place(folder, overwrite=given.overwrite)
    served = serve(run, given.arm, given.seed)
    inputs, batch = served.examples(_EXAMPLES)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder} can't be made: {error.strerror}. Name another --out.") from error
    # Beside its place, so that it is moved there whole or not at all.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as name:
        draft = Path(name) / "draft"
        draft.mkdir()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = write(given.format, served, draft, inputs)
                apart = check(given.format, served, answer, inputs)
        except ValueError:
            raise
        except Exception as error:  # torch and ONNX refuse models in many ways
            raise ValueError(
                f"{served.config['source']} can't be exported as {given.format}: {first_line(error)}. Take another "
                "--format."
            ) from error
        (draft / "README.md").write_text(card(served, given.format, apart, len(batch)), encoding="utf-8")
        record = {"run": run.report.name, "format": given.format, "apart": apart, "examples": len(batch)}
        text = json.dumps({**record, "bound": BOUNDS[given.format], "versions": versions()}, indent=1)
        (draft / RECORD).write_text(text, encoding="utf-8")
        if folder.exists():
            folder.replace(Path(name) / "before")  # goes with the folder of the draft, once the new one is in place
        draft.replace(folder)
    say = f"Checked on {len(batch)} validation examples, at once and in smaller batches: logits within {apart:.1g}."
    console.print(say, markup=False, highlight=False, soft_wrap=True)
    for path in sorted(folder.iterdir()):
        console.print(f"  {path.name}  {size(path.stat().st_size)}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Exported: {folder}", markup=False, highlight=False, soft_wrap=True)


def _check_place(folder: Path, *, overwrite: bool) -> None:
    """Refuse a place that holds anything but an export, and an export that is not to be overwritten."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / RECORD).is_file():
        raise ValueError(f"{folder} holds something else than an export, so it is left alone. Name another --out.")
    if not overwrite:
        raise ValueError(f"{folder} is there already. Remove it with --overwrite, or name another --out.")
