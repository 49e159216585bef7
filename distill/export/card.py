"""A model card: what a student is, what it was judged by, and what it is not for, out of its run's record."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from distill.data import ChestXray, Phantoms
from distill.initialize import Coverage
from distill.report import summarise
from distill.report.escape import markdown_line, markdown_text
from distill.report.summary import explain_recovered
from distill.report.units import count, metric, milliseconds, percent, size
from distill.serving import Served

_LOAD: Mapping[str, str] = {
    "safetensors": """from safetensors.torch import load_file
model = ...  # {source} with arguments {arguments}, for {classes} classes
model.load_state_dict(load_file("model.safetensors"), strict=True)
model.eval()""",
    "torch": """import torch
model = torch.export.load("model.pt2").module()
logits = model({inputs})""",
    "onnx": """import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
logits = session.run(["logits"], {feed})[0]""",
    "transformers": """from transformers import AutoModelForSequenceClassification, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForSequenceClassification.from_pretrained(".").eval()""",
}


def card(served: Served, kind: str, apart: float, examples: int) -> str:
    """The card in Markdown. apart: the largest difference of a logit from the student's, on so many real examples."""
    report = served.run.report
    parts = [
        _front(served, kind),
        f"# {markdown_text(report.name)}",
        markdown_text(summarise(report).sentence),
        *([f"**{markdown_text(report.origin)}**"] if report.origin else []),
        "## How good it is",
        _quality(served),
        *_sentences(served),
        "## What it costs",
        _cost(served),
        "## What it learned from",
        _list(_origin(served)),
        "## How it is used",
        _use(served, kind),
        f"This form answers within {apart:.1g} of the student's logits on {examples} validation examples.",
        "## Limits",
        _list(_limits(served)),
        "## Made with",
        _list(f"{name} {value}" for name, value in report.versions.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(served: Served, kind: str) -> str:
    """Front matter; its strings are JSON's, which YAML reads as they are."""
    report, texts = served.run.report, served.picture is None
    task = "text-classification" if texts else "image-classification"
    quality = summarise(report).arms[served.run.arm].test[report.headline].mean
    of_transformers = kind in ("safetensors", "transformers") and str(served.config["source"]).startswith(
        "transformers:"
    )
    told = {
        "library_name": "transformers" if of_transformers else "onnx" if kind == "onnx" else "pytorch",
        "pipeline_tag": task,
        "tags": ["distill", "knowledge-distillation"],
        "model_name": report.name,
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in told.items()]
    known = [f"# test {metric(report.headline)} {percent(quality)}%"] if math.isfinite(quality) else []
    return "\n".join(["---", *lines, *known, "---"])


def _quality(served: Served) -> str:
    report, name = served.run.report, served.run.report.headline
    rows = []
    if report.teacher is not None:
        rows.append(["teacher", percent(report.teacher["test"][name]), f"{report.teacher['test']['nll']:.4f}"])
    for arm, found in summarise(report).arms.items():
        spread = found.test[name]
        deviation = "" if spread.standard_deviation is None else f" ± {percent(spread.standard_deviation)}"
        this = " (this one)" if arm == served.run.arm else ""
        rows.append([f"{arm}{this}", f"{percent(spread.mean)}{deviation}", f"{found.test['nll'].mean:.4f}"])
    seeds = ", ".join(map(str, report.seeds))
    told = (
        f"Test {metric(name)}, mean ± standard deviation over seeds {seeds}. Chosen on the {report.chosen_on} "
        "examples; the test examples were read once."
    )
    return _table(["model", f"test {metric(name)} %", "nll"], rows) + f"\n\n{told}"


def _sentences(served: Served) -> Iterator[str]:
    recovered = explain_recovered(served.run.report)
    if recovered is not None:
        yield markdown_text(recovered)
    if served.limits is not None:
        rows = [[name, f"{100 * limit:.1f}"] for name, limit in zip(served.classes, served.limits, strict=True)]
        yield "A label counts as found from these probabilities on, which were chosen on the validation examples:"
        yield _table(["label", "probability %"], rows)


def _cost(served: Served) -> str:
    rows = []
    for name, cost in (("teacher", served.run.report.teacher_cost), ("student", served.run.report.student_cost)):
        if cost is not None:
            adds = "-" if cost.multiply_adds is None else count(cost.multiply_adds)
            times = [milliseconds(one.seconds) for one in (cost.latency_one, cost.latency_batch)]
            rows.append([name, count(cost.parameters), adds, size(cost.bytes), *times])
    batch = served.run.report.student_cost.batch
    return _table(["model", "parameters", "multiply-adds", "file", "ms for 1", f"ms for {batch}"], rows)


def _origin(served: Served) -> Iterator[str]:
    recipe, report = served.run.recipe, served.run.report
    yield f"Data: {_written(report.recipe['data'])}"
    if recipe.teacher is not None:
        yield f"Teacher: {recipe.teacher.source}, weights {recipe.teacher.weights or 'none'}"
    yield f"Student: {recipe.student.source} with arguments {dict(recipe.student.arguments)}"
    if report.coverage is not None:
        yield f"Start: {Coverage.from_json(report.coverage)}"
    for stage in recipe.all_stages():
        for name, term in stage.plan.items():
            taps = f", student {term.student} from teacher {term.teacher}" if term.needs_teacher else ""
            yield f"Term {name}: {term.loss} with weight {term.weight}{taps}"
        yield f"{stage.epochs} epochs, {stage.optimizer}, batches of {recipe.batch_size}"


def _use(served: Served, kind: str) -> str:
    if served.picture is not None:
        one = served.picture
        how = (
            f"its shorter side at {one.resize} pixels, the middle {one.height}x{one.width}"
            if one.resize is not None
            else f"resized to {one.height}x{one.width}"
        )
        colour = "grey" if one.channels == 1 else "RGB"
        shape = f"(B, {one.channels}, {one.height}, {one.width})"
        given = f"An image: {colour}, {how}, bilinear with antialiasing, divided by 255, as {shape}"
        inside = " The normalisation is inside of the model." if kind in ("torch", "onnx") else _normalised(served)
        told, inputs, feed = f"{given}.{inside}", "images", '{"images": images}'
    else:
        longest = served.config["max_length"]
        told = f"Tokens of the tokenizer beside it, at most {longest}, padded to the longest of a batch."
        names = list(served.texts(["a"]))
        inputs, feed = ", ".join(names), "{" + ", ".join(f'"{name}": {name}' for name in names) + "}"
    arguments = json.dumps(served.config["arguments"])
    code = _LOAD[kind]
    for key, value in (
        ("{source}", str(served.config["source"])), ("{arguments}", arguments),
        ("{classes}", str(len(served.classes))), ("{inputs}", inputs), ("{feed}", feed),
    ):  # fmt: skip
        code = code.replace(key, value.replace("`", "'"))
    several = "sigmoid" if served.limits is not None else "softmax"
    rest = f"Probabilities are the {several} of the logits. `preprocessing.json` has all of it."
    return f"{told}\n\n```python\n{code}\n```\n\n{rest}"


def _normalised(served: Served) -> str:
    view = served.view
    if view is None or not view.mean:
        return ""
    side = f", resized to {view.size}x{view.size}" if view.size is not None else ""
    return f" Then{side} less the mean {list(view.mean)}, divided by {list(view.std)}."


def _limits(served: Served) -> Iterator[str]:
    run, report = served.run, served.run.report
    verdict = summarise(report).verdict
    if verdict is not None and verdict.word == "hurt":
        yield "The transfer hurt: the same student trained without the teacher is better."
    if isinstance(run.recipe.data, (ChestXray, Phantoms)):
        yield "Not for medical use: it was never tested on patients, and its labels were not made by radiologists."
    yield f"It knows {len(served.classes)} classes, and answers with them whatever it is shown."
    error = summarise(report).arms[run.arm].test.get("calibration_error")
    if error is not None and math.isfinite(error.mean):
        yield f"Its probabilities are off by {percent(error.mean)} points on average (expected calibration error)."
    if len(report.seeds) == 1:
        yield "One seed was trained: how much another would differ is not known."
    yield from report.notes


def _written(value: Any) -> str:
    inside = ", ".join(f"{key}={item!r}" for key, item in value.items() if key != "type")
    return f"{value.get('type')}({inside})"


def _list(lines: Any) -> str:
    return "\n".join(f"- {markdown_line(str(line))}" for line in lines)


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = [[markdown_text(cell) for cell in row] for row in (head, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], ["---", *["---:"] * (len(head) - 1)], *cells[1:]))
