"""Running one block of a model by itself, on a random input of its own shape, to see what it computes."""

import copy
import inspect
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distill.initialize.tensors import Left, Piece, own_tensors
from distill.messages import first_line

_EXAMPLES, _SIDE, _TOKENS = 2, 8, 5


def filled(block: nn.Module, path: str, pieces: Mapping[str, Piece | Left]) -> nn.Module:
    """A copy of the block at `path`, with what its tensors are to get; in float64 on the CPU, in evaluation mode."""
    made = copy.deepcopy(block).cpu().double().eval()
    with torch.no_grad():
        for name, tensor in own_tensors(made).items():
            piece = pieces.get(f"{path}.{name}" if path else name)
            if isinstance(piece, Piece):
                tensor.copy_(piece.values)
    return made


def input_width(block: nn.Module) -> tuple[int, bool]:
    """How many channels a block is given, and whether as a map (B, C, H, W), else as tokens (B, T, D).

    Raises:
        ValueError: nothing in it says so.
    """
    modules = list(block.modules())
    for module in modules:
        if isinstance(module, nn.Conv2d):
            return module.in_channels, True
    for module in modules:
        if isinstance(module, nn.LayerNorm):
            return module.normalized_shape[-1], False
        if isinstance(module, nn.Linear):
            return module.in_features, False
    raise ValueError(f"{type(block).__name__} has no Conv2d, Linear or LayerNorm that says what it is given.")


def random_input(block: nn.Module, generator: torch.Generator) -> Tensor:
    """A random input in float64: a map (2, C, 8, 8) where the block has a Conv2d, else tokens (2, 5, D)."""
    width, is_map = input_width(block)
    shape = (_EXAMPLES, width, _SIDE, _SIDE) if is_map else (_EXAMPLES, _TOKENS, width)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def run(block: nn.Module, path: str, x: Tensor) -> Tensor:
    """What a block of one input makes of it; of several outputs the first.

    Raises:
        ValueError: it needs more than one input, or cannot be run on this one.
    """
    required = [
        name
        for name, parameter in inspect.signature(block.forward).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    if len(required) != 1:
        raise ValueError(
            f"Block '{path}' takes {len(required)} inputs ({', '.join(required)}), so Grow cannot check it by itself. "
            "Grow a model whose blocks take one."
        )
    try:
        with torch.no_grad():
            out = block(x)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"Block '{path}' cannot be run by itself on {tuple(x.shape)}: {first_line(error)}.") from error
    while isinstance(out, (tuple, list)):
        out = out[0]
    assert isinstance(out, Tensor)
    return out
