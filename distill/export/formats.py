"""A student in each of the forms in which it leaves: whole files in a folder, checked against what it answers here."""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.models.weights import CONFIG_FILE, MODEL_FILE, read_tensors
from distill.onnx_file import OnnxModel, free_dimensions, positional, write_onnx
from distill.serving import Served
from distill.taps import Inputs

# The largest difference of a logit from the eager model's.
BOUNDS: Mapping[str, float] = {"safetensors": 0.0, "torch": 1e-5, "onnx": 1e-4, "transformers": 1e-4}
PREPARATION = "preprocessing.json"
_TRACED = 3
Answer = Callable[[Inputs], Tensor]


def write(kind: str, served: Served, folder: Path, inputs: Inputs) -> Answer:
    """Write a form into a folder; gives what loads it from there anew and answers.

    inputs: real examples; a few of them are traced.

    Raises:
        ValueError: the model can't be had in this form.
    """
    made = {"safetensors": _safetensors, "torch": _torch, "onnx": _onnx, "transformers": _transformers}[kind]
    # Padded as all of them: a text as short as there are texts would tie the two numbers together.
    answer = made(served, folder, _first(inputs, _TRACED))
    text = json.dumps(preparation(served), indent=1, ensure_ascii=False)
    (folder / PREPARATION).write_text(text, encoding="utf-8")
    return answer


def preparation(served: Served) -> dict[str, Any]:
    """How an input is prepared and an answer read, as plain values."""
    told: dict[str, Any] = {"classes": list(served.classes), "several": served.limits is not None}
    if served.limits is not None:
        told["thresholds"] = dict(zip(served.classes, served.limits, strict=True))
    if served.picture is not None:
        order = "RGB, channels first" if served.picture.channels == 3 else "grey, channels first"
        told |= {"image": asdict(served.picture), "values": "0 to 1 (pixel / 255)", "order": order}
        told["view"] = None if served.view is None else asdict(served.view)
        return told
    return {**told, "max_length": served.config["max_length"], "tokenizer": "tokenizer.json"}


def check(kind: str, served: Served, answer: Answer, inputs: Inputs) -> float:
    """The largest difference of a logit from the student's, over all examples at once, by twos and by itself.

    Raises:
        ValueError: it is above the form's bound.
    """
    count = len(positional(inputs)[1][0])
    batches = [inputs, *(_rows(inputs, slice(start, start + 2)) for start in range(0, min(count, 6), 2))]
    batches.append(_rows(inputs, slice(1)))
    # A tensor's maximum, which a NaN does not get past.
    apart = float(torch.stack([(answer(batch) - served.logits(batch)).abs().max() for batch in batches]).max())
    if not apart <= BOUNDS[kind]:
        raise ValueError(
            f"The {kind} export answers up to {apart:.2g} from the student's logits on {count} real examples, above "
            f"{BOUNDS[kind]:g}: it is not kept. Take another --format."
        )
    return apart


def _safetensors(served: Served, folder: Path, few: Inputs) -> Answer:
    """The student's own files, loaded `strict` into the bare class."""
    for file in _student_files(served):
        shutil.copy2(file, folder / file.name)
    model = _like(served)
    model.load_state_dict(read_tensors(folder / MODEL_FILE), strict=True)
    return _answering(served, model)


def _torch(served: Served, folder: Path, few: Inputs) -> Answer:
    path = folder / "model.pt2"
    free: tuple[Any, ...] = free_dimensions(few, served.config.get("max_length"))
    with torch.no_grad():
        program = torch.export.export(
            served.bare(), positional(few)[1], dynamic_shapes=free if served.picture else (free,)
        )
    torch.export.save(program, path)
    _tokenizer_files(served, folder)
    loaded = torch.export.load(path).module()

    def answer(inputs: Inputs) -> Tensor:
        with torch.inference_mode():
            found: Tensor = loaded(*positional(inputs)[1])
        return found

    return answer


def _onnx(served: Served, folder: Path, few: Inputs) -> Answer:
    path = folder / "model.onnx"
    told = {"preprocessing": json.dumps(preparation(served), ensure_ascii=False)}
    if served.picture is None:
        write_onnx(served.model, few, path, longest=served.config.get("max_length"), metadata=told)
    else:
        write_onnx(served.bare(), few, path, metadata=told)
    _tokenizer_files(served, folder)
    return OnnxModel(path)


def _transformers(served: Served, folder: Path, few: Inputs) -> Answer:
    if not str(served.config["source"]).startswith("transformers:"):
        raise ValueError(
            f"--format transformers is for models of transformers, and the student is {served.config['source']}. Take "
            "safetensors, torch or onnx."
        )
    for file in _student_files(served):
        shutil.copy2(file, folder / file.name)
    from transformers import AutoModelForSequenceClassification

    loaded = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return _answering(served, loaded.eval())


def _answering(served: Served, model: nn.Module) -> Answer:
    return replace(served, model=model.eval()).logits


def _like(served: Served) -> nn.Module:
    """The bare class with weights of its own, so that what is loaded shows."""
    model = copy.deepcopy(served.model)
    for parameter in model.parameters():
        parameter.data = torch.full_like(parameter.data, torch.nan)
    return model


def _student_files(served: Served) -> list[Path]:
    return sorted(path for path in served.folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _tokenizer_files(served: Served, folder: Path) -> None:
    if served.tokenizer is not None:
        for file in _student_files(served):
            if file.name not in (MODEL_FILE, CONFIG_FILE):
                shutil.copy2(file, folder / file.name)


def _first(inputs: Inputs, count: int) -> Inputs:
    return inputs[:count] if isinstance(inputs, Tensor) else {name: value[:count] for name, value in inputs.items()}


def _rows(inputs: Inputs, which: slice) -> Inputs:
    """Some of the examples; texts no longer than the longest of them."""
    if isinstance(inputs, Tensor):
        return inputs[which]
    some = {name: value[which] for name, value in inputs.items()}
    longest = max(2, int(some["attention_mask"].sum(1).max())) if "attention_mask" in some else None
    return {name: value[:, :longest] for name, value in some.items()}
