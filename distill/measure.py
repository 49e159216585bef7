"""What a model costs: parameters, multiply-adds, time, bytes; and where that was measured."""

import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

# One tensor, or a model's arguments by name, of which the first is a tensor.
Inputs = Tensor | Mapping[str, Any]


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass in seconds: the median of the repeats, and the distance between their quartiles."""

    seconds: float
    spread: float


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that training a model holds at the end of a forward pass, before what the allocator adds.

    activations: what the backward pass needs of the forward pass, for `batch_size` examples.
    """

    parameters: int
    buffers: int
    gradients: int
    optimizer: int
    activations: int
    batch_size: int

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return self.parameters + self.buffers + self.gradients + self.optimizer + self.activations


@runtime_checkable
class Foreign(Protocol):
    """A model that PyTorch does not run, so that it tells its size itself; its multiply-adds can't be counted."""

    num_parameters: int
    num_bytes: int


def parameters(model: nn.Module) -> int:
    """Number of parameters, trained or frozen; tied ones count once."""
    own = sum(parameter.numel() for parameter in model.parameters())
    return own + sum(module.num_parameters for module in _foreign(model))


def weight_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters and buffers."""
    own: int = sum(tensor.nbytes for tensor in model.state_dict().values())
    return own + sum(module.num_bytes for module in _foreign(model))


def multiply_adds(model: nn.Module, inputs: Inputs) -> int | None:
    """Multiply-adds of one forward pass in evaluation: those of matrix products, convolutions and attention.

    None where PyTorch does not run the model, and so can't count.

    inputs: what the model is given, a tensor or a mapping of its arguments; for one example give a batch of one.
    """
    if _foreign(model):
        return None
    with evaluating(model), torch.no_grad(), _countable_kernels(model), FlopCounterMode(display=False) as counter:
        _call(model, inputs)
    return int(counter.get_total_flops()) // 2


def latency(model: nn.Module, inputs: Inputs, *, repeats: int = 30, warmup: int = 5) -> Latency:
    """Time of one forward pass in evaluation and inference mode, on the inputs' device and torch's threads.

    Measure after training: a model that caches tensors in its forward pass cannot train on inference mode's.

    warmup: passes before the first that counts.

    Raises:
        ValueError: fewer than two repeats, which have no spread.
    """
    if repeats < 2 or warmup < 0:
        raise ValueError(f"Latency needs at least 2 repeats and 0 passes of warm-up, got {repeats} and {warmup}.")
    device = _device(inputs)
    seconds = []
    with evaluating(model), torch.inference_mode():
        for _ in range(warmup + repeats):
            _wait_for(device)
            start = time.perf_counter()
            _call(model, inputs)
            _wait_for(device)
            seconds.append(time.perf_counter() - start)
    lower, median, upper = statistics.quantiles(seconds[warmup:], n=4, method="inclusive")
    return Latency(seconds=median, spread=upper - lower)


def file_size(path: str | Path) -> int:
    """Bytes of a file, or of all files in a folder.

    Raises:
        ValueError: there is no such file or folder.
    """
    path = Path(path)
    if path.is_file():
        return path.stat().st_size
    if not path.is_dir():
        raise ValueError(f"There is no file or folder {path} to weigh.")
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def training_memory(
    model: nn.Module, inputs: Inputs, *, optimizer_states: int, batch_size: int | None = None
) -> TrainingMemory:
    """What training holds in memory, found by one forward pass in the model's present mode.

    The model's buffers and the random state stay as they were.

    inputs: some examples; at least two where BatchNorm trains.
    optimizer_states: values that the optimizer keeps for each trained parameter: 0 for plain SGD, 1 with momentum, 2
        for AdamW.
    batch_size: number of examples that a pass will have, to which the activations are scaled; None for that of
        `inputs`.
    """
    examples = len(_first(inputs))
    batch_size = examples if batch_size is None else batch_size
    trained = sum(_bytes(parameter) for parameter in model.parameters() if parameter.requires_grad)
    return TrainingMemory(
        parameters=sum(_bytes(parameter) for parameter in model.parameters()),
        buffers=sum(_bytes(buffer) for buffer in model.buffers()),
        gradients=trained,
        optimizer=optimizer_states * trained,
        activations=round(_activations(model, inputs) * batch_size / examples),
        batch_size=batch_size,
    )


def machine() -> dict[str, str | int]:
    """This machine in plain values: cpu, cores, torch's threads, memory_bytes, and where there are any gpu and gpus.

    Cores are those that this process may use.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    values: dict[str, str | int] = {"cpu": _cpu_name(), "cores": cores, "threads": torch.get_num_threads()}
    if os.name == "posix":
        values["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if torch.cuda.is_available():
        values |= {"gpu": torch.cuda.get_device_name(0), "gpus": torch.cuda.device_count()}
    return values


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers, and the platform."""
    packages = {name: _version(name) for name in ("torchvision", "accelerate", "distill")}
    # torch's own name for itself tells its CUDA version too.
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **packages,
        "platform": platform.platform(),
    }


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation inside, and each of its modules in its own mode again outside."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def _countable_kernels(model: nn.Module) -> Iterator[None]:
    """Kernels that the counter knows: it gives 0 for the fused ones of attention and recurrent layers."""
    attention = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as fused, warnings.catch_warnings():
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            # torch warns of TF32 on Intel GPUs when it puts oneDNN's flags back.
            warnings.simplefilter("ignore", UserWarning)
            fused.enter_context(torch.backends.mkldnn.flags(enabled=False))
            fused.enter_context(torch.backends.cudnn.flags(enabled=False))
        # As plain products: which fused kernels the counter knows differs between versions and processors.
        fused.enter_context(sdpa_kernel(SDPBackend.MATH))
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(attention)


def _foreign(model: nn.Module) -> list[Foreign]:
    modules: Iterator[object] = model.modules()
    return [module for module in modules if isinstance(module, Foreign)]


def _activations(model: nn.Module, inputs: Inputs) -> int:
    """Bytes of the storages that the graph keeps, each once, less the model's own."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        # A node that keeps its own output would otherwise hold itself, and the whole graph with it, for ever.
        return tensor.detach()

    device = _device(inputs)
    cuda_devices = [device] if device.type == "cuda" else []
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    own |= {buffer.untyped_storage().data_ptr() for buffer in buffers.values()}
    arguments = (inputs,) if isinstance(inputs, Tensor) else ()
    keywords = {} if isinstance(inputs, Tensor) else dict(inputs)
    with torch.random.fork_rng(cuda_devices), torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            # The answer holds the graph, so no storage is freed and its address used again.
            answer = torch.func.functional_call(model, buffers, arguments, keywords)
        del answer
    return sum(kept.values())


def _call(model: nn.Module, inputs: Inputs) -> Any:
    return model(inputs) if isinstance(inputs, Tensor) else model(**inputs)


def _device(inputs: Inputs) -> torch.device:
    return _first(inputs).device


def _first(inputs: Inputs) -> Tensor:
    """The first tensor of a model's arguments, one of which may be a mapping itself."""
    while not isinstance(inputs, Tensor):
        inputs = next(iter(inputs.values()))
    return inputs


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _version(package: str) -> str:
    """The installed version; a checkout that is only on the path has none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    """The processor's name; Linux tells it only in a file, and on some architectures not at all."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
