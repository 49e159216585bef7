"""A teacher that is no PyTorch module: an ONNX file, run by ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.messages import first_line, nearest
from distill.models.onnx_graph import add_outputs, count_weights, external_files, read_graph
from distill.models.places import place_of

_TYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(uint8)": torch.uint8,
    "tensor(bool)": torch.bool,
}
_ARGUMENTS = ("outputs", "logits")


class OnnxModel(nn.Module):
    """An ONNX graph as a frozen module: its answer is a mapping of its outputs, with `logits` among them.

    Taps are `logits` and `outputs:NAME`, with NAME an output of the graph or one of the inner tensors asked for. It has
    no parameters and passes no gradient on.

    outputs: names of inner tensors of the graph that it gives too.
    logits: name of the output that is the logits; None for the one of that name, or the first.
    num_parameters: values in the graph's weights. num_bytes: of the file and of the data beside it.

    Raises:
        ValueError: the file is missing, damaged, reads outside its folder, has operators that are not ONNX Runtime's or
        a fixed number of examples; there is no tensor of a name. At a call: inputs are missing or of a wrong shape.
    """

    def __init__(self, path: Path, *, outputs: Sequence[str] = (), logits: str | None = None) -> None:
        super().__init__()
        self.path = path
        model = read_graph(path)
        self.num_parameters = count_weights(model)
        self.num_bytes = sum(file.stat().st_size for file in (path, *external_files(path, model)))
        add_outputs(path, model, outputs)
        self.session = _session(path, model)
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.names = [value.name for value in self.session.get_outputs() if value.type.startswith("tensor(")]
        self.logits_name = _logits_name(path, self.names, logits)
        self.outputs = nn.Identity()
        for value in self.inputs.values():
            _check_input(path, value)

    def forward(self, inputs: Tensor | None = None, /, **named: Tensor) -> Any:
        """{output: tensor}; takes a tensor where the graph has one input, or its inputs by name and others unread."""
        if inputs is not None:
            if len(self.inputs) != 1:
                raise ValueError(f"{self.path} takes {', '.join(self.inputs)}, got one tensor. Give data with these.")
            named = {next(iter(self.inputs)): inputs}
        missing = [name for name in self.inputs if name not in named]
        if missing:
            raise ValueError(
                f"{self.path} takes {', '.join(self.inputs)}, and {missing[0]} is not among {', '.join(named)}. Export "
                "it with the names of the data's inputs (input_names)."
            )
        given = {name: named[name] for name in self.inputs}
        device = next(iter(given.values())).device
        arrays = {name: self._array(name, tensor) for name, tensor in given.items()}
        found = zip(self.names, self.session.run(self.names, arrays), strict=True)
        answer = {name: torch.from_numpy(array).to(device) for name, array in found}
        return self.outputs({**answer, "logits": answer[self.logits_name]})

    def _array(self, name: str, tensor: Tensor) -> Any:
        value = self.inputs[name]
        fits = len(value.shape) == tensor.ndim and all(
            not isinstance(side, int) or side == own for side, own in zip(value.shape, tensor.shape, strict=True)
        )
        if not fits:
            sides = ", ".join(str(side) if isinstance(side, int) else "any" for side in value.shape)
            raise ValueError(
                f"{self.path} takes {name} of shape ({sides}), got {tuple(tensor.shape)}. Give the model a view of "
                "that size and number of channels (channels come first), or export it with dynamic sides."
            )
        return tensor.detach().to("cpu", _TYPES[value.type]).contiguous().numpy()


def build(name: str, *, arguments: Mapping[str, Any]) -> OnnxModel:
    """The model in an ONNX file.

    name: the file's path. arguments: `outputs` and `logits` of `OnnxModel`.

    Raises:
        ValueError: as `OnnxModel`; other arguments; onnx or onnxruntime is not installed.
    """
    for argument in arguments:
        if argument not in _ARGUMENTS:
            raise ValueError(f"onnx:{name} takes no argument '{argument}'. Nearest: {nearest(argument, _ARGUMENTS)}.")
    outputs, logits = arguments.get("outputs", ()), arguments.get("logits")
    if isinstance(outputs, str) or not all(isinstance(output, str) for output in outputs):
        raise ValueError(f"arguments.outputs of onnx:{name} holds names, got {outputs!r}. Write a tuple.")
    return OnnxModel(place_of(name), outputs=tuple(outputs), logits=logits)


def _session(path: Path, model: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent.resolve()))
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    there = onnxruntime.get_available_providers()
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=[name for name in wanted if name in there]
        )
    except Exception as error:  # ONNX Runtime's errors share no class but this
        raise ValueError(f"{path} can't be run by ONNX Runtime: {first_line(error)}. Export it again.") from error


def _logits_name(path: Path, names: Sequence[str], asked: str | None) -> str:
    if not names:
        raise ValueError(f"{path} gives no tensor. Export it with its logits as an output.")
    if asked is not None and asked not in names:
        raise ValueError(f"{path} has no output '{asked}' for its logits. Nearest: {nearest(asked, names)}.")
    return asked or ("logits" if "logits" in names else names[0])


def _check_input(path: Path, value: Any) -> None:
    if value.type not in _TYPES:
        raise ValueError(f"{path} takes {value.name} of type {value.type}, no numbers. Export it without that step.")
    if value.shape and isinstance(value.shape[0], int):
        raise ValueError(
            f"{path} takes {value.shape[0]} example{'' if value.shape[0] == 1 else 's'} at a time, and batches differ. "
            f"Export it with a dynamic batch (torch.onnx.export(..., dynamic_shapes=...))."
        )
