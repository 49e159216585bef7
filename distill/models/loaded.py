"""What every source of models gives, and what sources share."""

from dataclasses import dataclass

from torch import nn

from distill.view import View


@dataclass(frozen=True)
class Loaded:
    """A model, and what its weights say about it.

    classes: names in the order of its logits; None where the weights name none, or there are none.
    view: what the model sees of an image; None where any will do.
    note: where the weights came from, and what was left out or made anew; empty for fresh weights.
    fresh: path of a classifier that was made anew beside weights; None where there is none.
    """

    model: nn.Module
    classes: tuple[str, ...] | None
    view: View | None
    note: str
    fresh: str | None = None


def classifier_name(model: nn.Module, num_classes: int) -> str | None:
    """The path of a model's last linear layer of `num_classes` outputs; None where it has none."""
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == num_classes
    ]
    return names[-1] if names else None


def renew_classifier(model: nn.Module, before: int, num_classes: int, *, source: str) -> str:
    """Put a fresh linear layer of `num_classes` outputs in the place of the classifier of `before` ones; its path.

    Raises:
        ValueError: the model's classifier is no linear layer.
    """
    name = classifier_name(model, before)
    if name is None:
        raise ValueError(
            f"{source} has no linear layer of {before} outputs to renew for {num_classes} classes. Leave its weights "
            "out, or take "
            "another model."
        )
    old = model.get_submodule(name)
    assert isinstance(old, nn.Linear)
    model.set_submodule(name, nn.Linear(old.in_features, num_classes, bias=old.bias is not None))
    return name
