"""A stage's models made cheaper as `Speed` says: what is refused, and what is done to them."""

import copy
import warnings
from collections import Counter
from functools import cache

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distill.batch import Batch
from distill.fold import fold
from distill.heads import ReadsTeacher
from distill.messages import first_line
from distill.pair import Learner, Teacher
from distill.plan import Plan, teacher_taps
from distill.recipe import Speed
from distill.sharding import asked_to_shard
from distill.taps import Inputs, Tapped
from distill.view import Sees

# Sizes of a batch, the pass without gradient, and both models count together: torch's 8 are soon used up.
_RECOMPILES = 64
_BACKEND = "inductor"


def check_launcher(speed: Speed | None, accelerator: Accelerator) -> None:
    """Refuse what the way of launching rules out.

    Raises:
        ValueError: the launcher compiles already, or spreads the student over processes; names the setting.
    """
    if speed is None:
        return
    if speed.compile != "none" and accelerator.state.dynamo_plugin.backend.value.lower() != "no":
        raise ValueError(
            f"speed.compile={speed.compile!r} compiles what the launcher compiles already (dynamo_backend). Leave one "
            "of them out."
        )
    sharded = asked_to_shard()
    if sharded and (speed.channels_last or speed.compiles_student):
        setting = "channels_last" if speed.channels_last else f"compile={speed.compile!r}"
        raise ValueError(
            f"speed.{setting} can't be had under {sharded}, which lays the student's weights out anew. Leave it out, "
            "or launch with recipes/accelerate/many_gpus.yaml."
        )


def check_models(speed: Speed, teacher: Teacher | None, learner: Learner, sample: Batch, device: torch.device) -> None:
    """Try each setting on a few examples and on copies, and refuse what has no effect or would change what is learned.

    Raises:
        ValueError: named by its setting.
    """
    if speed.channels_last and not any(map(_maps, _models(teacher, learner))):
        raise ValueError("speed.channels_last has no effect on models without 2-d convolutions. Leave it out.")
    if teacher is not None and speed.fold_teacher:
        reading = [
            name for name, head in learner.heads.items() if any(isinstance(m, ReadsTeacher) for m in head.modules())
        ]
        if reading:
            raise ValueError(
                f"speed.fold_teacher takes away batch norms that the head of term '{reading[0]}' reads. Leave it out."
            )
        fold(teacher.tapped.model, teacher.tapped.taps, sample.inputs, view=teacher.tapped.view)
    if speed.compile != "none":
        check_compiler(device.type)
    if speed.cuda_graphs and device.type != "cuda":
        raise ValueError(f"speed.cuda_graphs has no effect on {device.type}. Leave it out.")
    if teacher is not None and speed.compiles_teacher:
        _check_graph("teacher", teacher.tapped, sample.inputs)
    if speed.compiles_student:
        _check_graph("student", learner.student, sample.inputs)


def fast_model(model: nn.Module | None, speed: Speed | None, plan: Plan, sample: Batch, view: Sees) -> nn.Module | None:
    """The teacher's model that a stage asks: itself, or where it is to change a copy, folded if the settings say so.

    Raises:
        ValueError: it can't be folded.
    """
    if model is None or speed is None or not (speed.of_teacher or speed.channels_last):
        return model
    if not speed.fold_teacher:
        return copy.deepcopy(model)
    return fold(model, teacher_taps(plan), sample.inputs, view=view.module())


def in_half(model: nn.Module) -> None:
    """Hold the weights of convolutions and linear layers in bf16, to which autocast would round them at each call."""
    owners = Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))
    for module in model.modules():
        own = module.parameters(recurse=False)
        # A weight that another module shares, such as an embedding, stays: that module may add it to others.
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)) and all(owners[id(p)] == 1 for p in own):
            module.to(torch.bfloat16)


def quicken(teacher: Teacher | None, learner: Learner, speed: Speed | None) -> None:
    """Change both modules of a stage in place, all but the folding; before they are prepared and the optimizer is made.

    The teacher's model is what `fast_model` gave.
    """
    if speed is None:
        return
    if teacher is not None and speed.teacher_precision is not None:
        teacher.precision = {"float32": torch.float32, "bf16": torch.bfloat16}[speed.teacher_precision]
        if teacher.precision == torch.bfloat16:
            in_half(teacher.tapped.model)
    if speed.channels_last:
        for module in [module for model in _models(teacher, learner) for module in _maps(model)]:
            module.to(memory_format=torch.channels_last)
    if speed.compile == "none":
        return
    # What an earlier stage or seed compiled is not needed any more, and taps of theirs must not be taken for ours.
    torch.compiler.reset()
    torch._dynamo.utils.counters["inductor"].clear()
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILES)
    if teacher is not None and speed.compiles_teacher:
        _compile(teacher.tapped, graphs=speed.cuda_graphs)
    if speed.compiles_student:
        _compile(learner.student, graphs=speed.cuda_graphs)


def warn_of_not_recorded(speed: Speed | None) -> None:
    """Warn of compiled graphs that run as before because CUDA graphs can't hold them; behind a step that compiled."""
    skipped = torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]
    if speed is not None and speed.cuda_graphs and skipped:
        warnings.warn(
            f"speed.cuda_graphs: {skipped} of the compiled graphs can't be recorded and run as without it. "
            "TORCH_LOGS=perf_hints tells why.",
            stacklevel=2,
        )


@cache
def check_compiler(device: str) -> None:
    """Compile something small on a device ("cpu", "cuda").

    Raises:
        ValueError: this machine can't compile.
    """
    try:
        torch.compile(_double)(torch.ones(2, device=device))
    except Exception as error:  # what stands in for a missing compiler differs between devices and releases
        raise ValueError(
            f"speed.compile can't be had on this machine ({device}): {first_line(error)}. Install a C++ compiler, or "
            "leave it out."
        ) from error


def _double(x: Tensor) -> Tensor:
    return x + x


def _compile(tapped: Tapped, *, graphs: bool) -> None:
    # In place, so that names in checkpoints stay; as the whole of a graph, so that no tap is lost unnoticed. torch's
    # own random numbers: both passes of a loss over micro-batches must draw the same dropout.
    options = {"fallback_random": True, "triton.cudagraphs": graphs}
    tapped.compile(backend=_BACKEND, fullgraph=True, options=options if _BACKEND == "inductor" else None)
    tapped.replayed = graphs


def _maps(model: nn.Module) -> list[nn.Module]:
    """The modules whose kernels and maps have a layout: (C, C, H, W) and (B, C, H, W)."""
    return [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))]


def _models(teacher: Teacher | None, learner: Learner) -> list[nn.Module]:
    return [learner] if teacher is None else [learner, teacher]


def _check_graph(side: str, tapped: Tapped, inputs: Inputs) -> None:
    """Refuse a model that is not one graph, or whose taps read otherwise in it; tried without generating code."""
    mode = tapped.model.training
    eager, traced = (_copied(tapped).train(mode) for _ in range(2))
    torch.compiler.reset()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        state = torch.get_rng_state()
        expected = eager(inputs)
        torch.set_rng_state(state)
        try:
            found = torch.compile(traced.forward, backend="eager", fullgraph=True)(inputs)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ValueError(
                f"speed.compile can't make one graph of the {side} with its taps: {first_line(error)}. Leave it out."
            ) from error
        finally:
            torch.compiler.reset()
    changed = [tap for tap, tensor in expected.items() if not torch.equal(tensor, found[tap])]
    if changed:
        raise ValueError(f"speed.compile would change tap '{changed[0]}' of the {side}. Leave it out.")


def _copied(tapped: Tapped) -> Tapped:
    return Tapped(copy.deepcopy(tapped.model), tapped.taps, view=tapped.view)
