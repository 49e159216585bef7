"""The ways in which a model can be run, and what each of them makes of it."""

import copy
import logging
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from distill.cost.subject import Subject
from distill.measure import weight_bytes
from distill.messages import first_line
from distill.onnx_file import Logits, OnnxModel, positional, write_onnx
from distill.taps import Inputs

WAYS = ("eager", "compiled", "onnx", "int8")
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OF_ONNX = ("onnx", "int8")
_FEW = 2
# Every model, precision and batch that is compiled counts here together; torch's own 8 are soon used up.
_RECOMPILES = 256


@dataclass(frozen=True)
class Way:
    """A model ready to be run in one way and precision, or why it is not.

    prepare: inputs as `run` takes them, on its device and in its precision. bytes: of its file.
    ready_seconds: of building it and a first pass on two examples, with the compilation or export that they need.
    apart: the largest difference of its logits from those of the eager model in float32, on the same inputs.
    """

    subject: Subject
    way: str
    precision: str
    run: Callable[[Inputs], Tensor] | None
    prepare: Callable[[Inputs], Inputs] = lambda inputs: inputs
    bytes: int = 0
    ready_seconds: float = math.nan
    apart: float = math.nan
    note: str = ""

    @property
    def name(self) -> str:
        """What a table calls it."""
        return f"{self.subject.name}, {self.way}" + ("" if self.precision == "float32" else f" {self.precision}")


def ready(subject: Subject, way: str, precision: str, device: torch.device, threads: int | None, folder: Path) -> Way:
    """Build a way and try it on two examples; what can't be done is told in the note, and nothing is raised.

    folder: for files. threads: of ONNX Runtime.
    """
    inputs = subject.inputs(_FEW)
    names, tensors = positional(inputs)
    plain = Logits(subject.model, names).eval()
    place, dtype = (torch.device("cpu"), torch.float32) if way in OF_ONNX else (device, PRECISIONS[precision])
    prepare = _preparing(place, dtype)
    try:
        with torch.inference_mode():
            expected = plain(*tensors)
        began = time.perf_counter()
        if way in OF_ONNX:
            run, size, note = _onnx(subject, way == "int8", inputs, folder, threads)
        else:
            run, size, note = _torch(plain, way, dtype, device)
        with torch.inference_mode():
            found = run(prepare(inputs))
    except Exception as error:  # whatever it is, other ways may do
        return Way(subject, way, precision, None, note=f"failed: {first_line(error)}")
    seconds = time.perf_counter() - began
    apart = float((found.float().cpu() - expected).abs().max())
    return Way(subject, way, precision, run, prepare, size, seconds, apart, note)


def _preparing(device: torch.device, dtype: torch.dtype) -> Callable[[Inputs], Inputs]:
    def move(one: Tensor) -> Tensor:
        return one.to(device=device, dtype=dtype if one.is_floating_point() else None).contiguous()

    def prepare(inputs: Inputs) -> Inputs:
        if isinstance(inputs, Tensor):
            return move(inputs)
        return {name: move(value) for name, value in inputs.items()}

    return prepare


def _torch(
    plain: Logits, way: str, dtype: torch.dtype, device: torch.device
) -> tuple[Callable[[Inputs], Tensor], int, str]:
    model: nn.Module = copy.deepcopy(plain).to(device=device, dtype=dtype).eval()
    size = weight_bytes(model)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILES)
    run = model if way == "eager" else torch.compile(model, dynamic=False)

    def call(inputs: Inputs) -> Tensor:
        found: Tensor = run(*positional(inputs)[1])
        return found

    emulated = dtype == torch.float16 and device.type == "cpu"
    return call, size, "fp16 may be emulated on a CPU, so its time may say little" if emulated else ""


def _onnx(
    subject: Subject, quantised: bool, inputs: Inputs, folder: Path, threads: int | None
) -> tuple[Callable[[Inputs], Tensor], int, str]:
    path, note = folder / "model.onnx", ""
    write_onnx(subject.model, inputs, path, longest=subject.longest)
    if quantised:
        path, note = _quantised(path, folder / "int8.onnx")
    return OnnxModel(path, threads), path.stat().st_size, note


def _quantised(path: Path, into: Path) -> tuple[Path, str]:
    """The file with its matrix products in int8, by ONNX Runtime's dynamic quantisation; and how many those are."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    log = logging.getLogger()
    before = log.level
    log.setLevel(logging.ERROR)  # it asks for a step that suits static quantisation
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_dynamic(str(path), str(into), weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    finally:
        log.setLevel(before)
    changed = sum(
        node.op_type in ("MatMulInteger", "DynamicQuantizeMatMul") for node in onnx.load(str(into)).graph.node
    )
    if changed == 0:
        raise ValueError("it has no matrix products to quantise")
    return into, f"{changed} matrix product{'s' * (changed > 1)} in int8, convolutions as they are"
