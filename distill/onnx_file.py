"""A model as an ONNX file with a free batch, and texts of free length; and ONNX Runtime to run one."""

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.taps import Inputs
from distill.taps.outputs import logits_item, pick

OPSET = 18
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


class Logits(nn.Module):
    """A model whose forward takes tensors by position, and gives the logits alone.

    names: of the model's arguments, where it takes them by name; none where it takes one tensor.
    """

    def __init__(self, model: nn.Module, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Logits (B, K)."""
        answer = self.model(**dict(zip(self.names, tensors, strict=True))) if self.names else self.model(*tensors)
        return pick(answer, logits_item(answer), "logits")


def positional(inputs: Inputs) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """The names of a model's arguments, none for a single tensor, and the arguments."""
    if isinstance(inputs, Tensor):
        return (), (inputs,)
    return tuple(inputs), tuple(inputs.values())


def free_dimensions(inputs: Inputs, longest: int | None = None) -> tuple[dict[int, Any], ...]:
    """For each argument which of its dimensions are free: the batch, and of texts (B, T) the length too.

    longest: text that the model takes; None where it takes any.
    """
    _, tensors = positional(inputs)
    texts = not isinstance(inputs, Tensor)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=longest)
    return tuple({0: batch, 1: length} if texts and one.ndim == 2 else {0: batch} for one in tensors)


def check_onnx() -> None:
    """Refuse what needs ONNX where it is not installed.

    Raises:
        ValueError: names the extra that brings it.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"ONNX needs {', '.join(missing)}. Get it with pip install 'distill[export]'.")


def write_onnx(
    model: nn.Module,
    inputs: Inputs,
    path: Path,
    *,
    longest: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a model in evaluation as one file, with its logits as the output `logits`.

    inputs: two or more examples, whose number and length, up to `longest` tokens, are free in the file.
    metadata: kept in the file.

    Raises:
        ValueError: ONNX is not installed.
        Exception: whatever torch says of a model that it can't write.
    """
    check_onnx()
    import onnx

    names, tensors = positional(inputs)
    # The exporter prints its progress, and warns of what it decides.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Logits(model, names).eval(),
            tensors,
            dynamo=True,
            input_names=list(names) or ["images"],
            output_names=["logits"],
            dynamic_shapes=(free_dimensions(inputs, longest),),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    made = program.model_proto
    for key, value in (metadata or {}).items():
        onnx.helper.set_model_props(made, {**{one.key: one.value for one in made.metadata_props}, key: value})
    onnx.save(made, str(path))


class OnnxModel:
    """An ONNX file in ONNX Runtime on the CPU.

    threads: None takes the runtime's own number.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        check_onnx()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [one.name for one in self._session.get_inputs()]

    def __call__(self, inputs: Inputs) -> Tensor:
        """Logits (B, K)."""
        names, tensors = positional(inputs)
        given = dict(zip(names or self.names, (np.ascontiguousarray(one.numpy()) for one in tensors), strict=True))
        found = self._session.run(["logits"], {name: given[name] for name in self.names})[0]
        return torch.from_numpy(found)
