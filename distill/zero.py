"""DeepSpeed's ZeRO, stage 2: weights are whole on each process, gradients and the optimizer's state in shares.

Its engine reduces the gradients as the backward pass makes them, takes the norm, clips and updates; the trainer decides
what a step is, and losses, rates, averages and checkpoints stay its own. Rajbhandari et al., 2020, arXiv:1910.02054,
section 5.2.
"""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# Values of an optimizer's state that are one for a whole parameter; all others have a value for each of its entries.
_COUNTERS = ("step",)


class Zero:
    """A module and its optimizer, whose groups hold this process's shares from now on.

    engine: the module as it is called in training; its parameters stay whole, and change in place.
    clip: largest norm of the whole gradient; None for no clipping.

    Raises:
        ValueError: DeepSpeed is not installed, or there is one process alone, which torch has no group for.
    """

    def __init__(self, module: nn.Module, optimizer: Optimizer, device: torch.device, clip: float | None) -> None:
        if not torch.distributed.is_initialized():
            raise ValueError("DeepSpeed has nothing to share in one process. Launch several, or without it.")
        self._optimizer = optimizer
        self._device = device
        self._groups: list[Sequence[nn.Parameter]] = [[*group["params"]] for group in optimizer.param_groups]
        values = max(sum(parameter.numel() for parameter in group) for group in self._groups)
        stage = {"stage": 2, "reduce_bucket_size": min(values, 500_000_000)}  # no more room than goes through it
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": clip or 0.0,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": stage,
        }
        self.engine: Any = _deepspeed(device).initialize(
            model=module, optimizer=optimizer, config=config, dist_init_required=False
        )[0]

    def begin(self, *, last: bool) -> None:
        """Tell whether the micro-batch that is to come is the last one before an update."""
        self.engine.set_gradient_accumulation_boundary(last)

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradient, divided by the number of processes, to that of the update."""
        self.engine.backward(loss, scale_wrt_gas=False)

    def step(self) -> Tensor:
        """Update and forget the gradient; gives its norm before clipping, and inf where it is not finite: no update."""
        self.engine.step()
        return torch.as_tensor(self.engine.get_global_grad_norm(), dtype=torch.float32, device=self._device)

    def close(self) -> None:
        """Take its hooks off the module."""
        self.engine.destroy()

    def state(self, *, keep: bool = True) -> dict[str, Any]:
        """The optimizer's whole state, as it is without ZeRO, on the CPU; called by all processes.

        keep: whether this one needs the tensors; it gets None for each if not.
        """
        parameters: dict[int, dict[str, Any]] = {}
        groups = []
        for group, own in zip(self._optimizer.param_groups, self._groups, strict=True):
            numbers = [*range(len(parameters), len(parameters) + len(own))]
            (share,) = group["params"]
            values = self._optimizer.state.get(share, {})
            whole = {name: self._gathered(name, value, own, keep=keep) for name, value in values.items()}
            for place, number in enumerate(numbers):
                parameters[number] = {name: cut[place] for name, cut in whole.items()}
            groups.append({**group, "params": numbers})
        return {"state": {number: values for number, values in parameters.items() if values}, "param_groups": groups}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up an optimizer's whole state, and the weights that the module was given since."""
        for group, own, saved in zip(self._optimizer.param_groups, self._groups, state["param_groups"], strict=True):
            (share,) = group["params"]
            of_each = [state["state"].get(number, {}) for number in saved["params"]]
            self._optimizer.state[share] = {
                name: self._share(name, [values[name] for values in of_each], own, share) for name in of_each[0]
            }
            group.update({name: value for name, value in saved.items() if name != "params"})
        self.engine.optimizer.refresh_fp32_params()

    def _gathered(self, name: str, value: Any, own: Sequence[nn.Parameter], *, keep: bool) -> list[Any]:
        """A value for each parameter of a group."""
        if name in _COUNTERS or not isinstance(value, Tensor):
            return [value.clone().cpu() if isinstance(value, Tensor) else value for _ in own]
        shares = [torch.empty_like(value) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(shares, value)
        if not keep:
            return [None for _ in own]
        sizes = [parameter.numel() for parameter in own]
        cut = torch.split(torch.cat(shares).cpu()[: sum(sizes)], sizes)
        return [part.view(parameter.shape).clone() for part, parameter in zip(cut, own, strict=True)]

    def _share(self, name: str, values: Sequence[Any], own: Sequence[nn.Parameter], share: Tensor) -> Any:
        if name in _COUNTERS or not isinstance(values[0], Tensor):
            # Where the optimizer looks for it depends on how it runs; beside the weights is right for each.
            return values[0].clone().to(share.device) if isinstance(values[0], Tensor) else values[0]
        flat = torch.cat([value.flatten() for value in values])
        whole = flat.new_zeros(share.numel() * torch.distributed.get_world_size())
        whole[: flat.numel()] = flat
        return torch.split(whole, share.numel())[torch.distributed.get_rank()].clone().to(share.device)


def _deepspeed(device: torch.device) -> Any:
    """The package, told which device is meant, and silent but for errors: it warns of each optimizer not its own."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    warnings.filterwarnings("ignore", message=r".*all_gather_into_tensor. is deprecated")
    try:
        found = import_module("deepspeed")
    except ImportError as error:
        raise ValueError(
            "The launcher asks for DeepSpeed, which is not installed. Run `pip install deepspeed`, or launch with "
            "recipes/accelerate/zero2.yaml, which needs no other package."
        ) from error
    found.logger.setLevel(logging.ERROR)
    return found
