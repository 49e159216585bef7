"""A learner spread over processes: each keeps a share of its weights, gradients and optimizer state (FSDP2).

The launcher asks for it, or for shares of gradients and state alone that DeepSpeed keeps (zero.py). Each of the
student's repeated blocks is gathered when it is run, and the rest with the whole.
Weights, gradients and what processes tell each other stay in float32, and autocast alone lowers the forward pass, so
the update is that of DDP. The teacher stays whole on each process, or is spread likewise by `shard_teacher`.
"""

import os
from collections.abc import Mapping
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from distill.initialize.blocks import repeated
from distill.numerics import whole_tensor
from distill.pair import Learner

# What Accelerate's launcher sets of the FSDP settings that would have no effect here.
_WITHOUT_EFFECT = ("FSDP_OFFLOAD_PARAMS", "FSDP_ACTIVATION_CHECKPOINTING")
# And of the DeepSpeed settings, with the value that asks for nothing.
_DEEPSPEED_WITHOUT_EFFECT = {
    "ACCELERATE_DEEPSPEED_CONFIG_FILE": "none",
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
    "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
    "ACCELERATE_GRADIENT_CLIPPING": "none",
}


def asked_to_shard() -> Literal["FSDP", "DeepSpeed"] | None:
    """By what the launcher asks to shard what is trained; None where it does not.

    Raises:
        ValueError: in a way, or with a setting, that is not built; names it.
    """
    if _is_set("ACCELERATE_USE_MEGATRON_LM"):
        raise ValueError(
            "MEGATRON_LM is not built in: it splits models that it knows. Launch with recipes/accelerate/fsdp2.yaml."
        )
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        _check_deepspeed()
        return "DeepSpeed"
    if not _is_set("ACCELERATE_USE_FSDP"):
        return None
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ValueError("The student is sharded by FSDP 2 alone. Launch with recipes/accelerate/fsdp2.yaml.")
    for setting in _WITHOUT_EFFECT:
        if _is_set(setting):
            raise ValueError(f"{setting.lower()} has no effect here. Leave it out of the launcher's configuration.")
    return "FSDP"


def _check_deepspeed() -> None:
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    if stage != "2":
        raise ValueError(
            f"zero_stage: {stage} is not built in, of DeepSpeed stage 2 alone. Launch with "
            "recipes/accelerate/deepspeed_zero2.yaml, or with fsdp2.yaml to share the weights too."
        )
    for name, without in _DEEPSPEED_WITHOUT_EFFECT.items():
        value = os.environ.get(name, without)
        if value.lower() not in (without, "none"):
            setting = name.removeprefix("ACCELERATE_").removeprefix("DEEPSPEED_").lower()
            raise ValueError(
                f"{setting}: {value} has no effect here, where the recipe says how a step is made. Leave it out of the "
                "launcher's configuration."
            )


def _is_set(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("true", "1", "yes")


def shard(learner: Learner, accelerator: Accelerator) -> None:
    """Spread a learner over all processes, in place; its parameters are then others, so build what holds them behind.

    With `fsdp_reshard_after_forward: false` the weights stay gathered from the forward pass to the backward pass (as
    ZeRO's stage 2 has them), else they are gathered again for it (stage 3).
    """
    again = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false"
    _spread(learner, learner.student.model, accelerator, reshard_after_forward=again)


def shard_frozen(model: nn.Module, accelerator: Accelerator) -> None:
    """Spread a model that is not trained over all processes, in place. All of them run it the same number of times."""
    _spread(model, model, accelerator, reshard_after_forward=True)


def _spread(whole: nn.Module, model: nn.Module, accelerator: Accelerator, *, reshard_after_forward: bool) -> None:
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for path in repeated(model):
        for block in model.get_submodule(path).children():
            fully_shard(block, mesh=mesh, reshard_after_forward=reshard_after_forward)
    fully_shard(whole, mesh=mesh, reshard_after_forward=reshard_after_forward)


def whole(state: Any, *, keep: bool = True) -> Any:
    """Nested mappings, lists and tuples with each sharded tensor as one, on the CPU; what is whole stays as it is.

    Called by every process in the same order. keep: whether this one needs the tensors; it gets None for each if not.
    """
    if isinstance(state, DTensor):
        one = whole_tensor(state.detach())
        return one.cpu() if keep else None
    if isinstance(state, Mapping):
        return {name: whole(value, keep=keep) for name, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(whole(value, keep=keep) for value in state)
    return state


def share_of(value: Tensor, like: Tensor) -> Tensor:
    """This process's share of a whole tensor, spread as `like` is; the tensor itself where `like` is whole."""
    if not isinstance(like, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def shares_of_optimizer(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's whole state, spread as its parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def of_one(number: int, values: Mapping[str, Any]) -> dict[str, Any]:
        like = parameters[number]
        return {
            name: share_of(value, like) if isinstance(value, Tensor) and value.shape == like.shape else value
            for name, value in values.items()
        }

    return {**state, "state": {number: of_one(number, values) for number, values in state["state"].items()}}
