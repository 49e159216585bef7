"""What each input of a linear layer adds to each of its outputs: label-wise embeddings out of a plain classifier.

With weight (K, D) and input (B, D) output k is bias_k + Σ_d weight_kd · input_bd, and the K vectors of these products
embed an example once for each label, (B, K, D). Losses over label-wise embeddings were made for models with a decoder
that has one query for each label; this gives them a model that has none.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from distill.messages import nearest
from distill.taps.outputs import TapError

CONTRIBUTIONS = "contributions"


def contributions(weight_KD: Tensor, input_BD: Tensor) -> Tensor:
    """weight · input before it is summed over the inputs, (B, K, D)."""
    return weight_KD * input_BD[:, None, :]


def check_linear(path: str, modules: Mapping[str, nn.Module]) -> None:
    """Refuses to tap contributions of what is no linear layer.

    Raises:
        TapError: names the module, and the nearest linear layers.
    """
    if isinstance(modules[path], nn.Linear):
        return
    linear = [f"{name}:{CONTRIBUTIONS}" for name, module in modules.items() if name and isinstance(module, nn.Linear)]
    raise TapError(
        f"Module '{path}' is a {type(modules[path]).__name__}, and only a linear layer has contributions. "
        f"Nearest: {nearest(f'{path}:{CONTRIBUTIONS}', linear)}."
    )


def contributions_of(module: nn.Module, given: Tensor, tap: str) -> Tensor:
    """The contributions of a linear layer to what it gives for this input.

    Raises:
        TapError: the input is not (B, D).
    """
    if given.ndim != 2:
        raise TapError(
            f"Tap '{tap}' is of a layer with one input (B, D) an example, and this one is given {tuple(given.shape)}. "
            "Tap the classifier behind the pooling."
        )
    return contributions(module.get_parameter("weight"), given)
