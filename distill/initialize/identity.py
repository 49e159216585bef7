"""Tensors with which an added block passes its input on."""

import math

import torch
from torch import Tensor, nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

Values = dict[str, Tensor]
"""{name within the block: value}"""


def candidates(block: nn.Module, before: nn.Module) -> list[Values]:
    """Ways in which a block might pass its input on, the gentlest first; which of them does is seen by running it.

    Zero in the last layer of a residual branch (Goyal et al., 2017, arXiv:1706.02677, section 5.1), or of each branch,
    so that everything before it still gets a gradient in time; without a shortcut, convolutions that copy each channel
    and norms that undo themselves, which is the identity on what a ReLU gives (Net2DeeperNet).

    before: the block whose output this one is given.
    """
    return [values for make in (_zero_last, _zero_branches) if (values := make(block))] + _copying(block, before)


def _zero_last(block: nn.Module) -> Values:
    owners = [path for path, module in block.named_modules() if list(module.parameters(recurse=False))]
    return _zeros(block, owners[-1:])


def _zero_branches(block: nn.Module) -> Values:
    last = {
        path.split(".")[0]: path for path, module in block.named_modules() if isinstance(module, nn.Linear) and path
    }
    return _zeros(block, list(last.values()))


def _zeros(block: nn.Module, paths: list[str]) -> Values:
    return {
        f"{path}.{name}" if path else name: torch.zeros_like(parameter)
        for path in paths
        for name, parameter in block.get_submodule(path).named_parameters(recurse=False)
    }


def _copying(block: nn.Module, before: nn.Module) -> list[Values]:
    values: Values = {}
    for path, module in block.named_modules():
        if isinstance(module, nn.Conv2d):
            if module.groups != 1 or module.in_channels != module.out_channels:
                return []
            values[f"{path}.weight"] = nn.init.dirac_(torch.zeros_like(module.weight))
            if module.bias is not None:
                values[f"{path}.bias"] = torch.zeros_like(module.bias)
        elif isinstance(module, _NORMS) and module.affine and module.running_mean is not None:
            mean, variance = _moments(before, module.num_features)
            values[f"{path}.running_mean"], values[f"{path}.running_var"] = mean, variance
            values[f"{path}.weight"], values[f"{path}.bias"] = (variance + module.eps).sqrt(), mean
    return [values] if values else []


def _moments(before: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of ReLU(N(bias, weight^2)), which is what the last norm of the block before gives in training.

    With them the added norm undoes itself in training as well, about; in evaluation it does with any.
    """
    norms = [norm for norm in before.modules() if isinstance(norm, _NORMS) and norm.affine]
    if not norms or norms[-1].num_features != channels:
        return torch.zeros(channels, dtype=torch.float64), torch.ones(channels, dtype=torch.float64)
    mean, deviation = norms[-1].bias.detach(), norms[-1].weight.detach().abs().clamp(min=1e-6)
    ratio = mean / deviation
    below = torch.special.ndtr(ratio)
    density = torch.exp(-0.5 * ratio.square()) / math.sqrt(2 * math.pi)
    first = mean * below + deviation * density
    second = (mean.square() + deviation.square()) * below + mean * deviation * density
    return first, (second - first.square()).clamp(min=1e-12)
