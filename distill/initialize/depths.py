"""How deep in a model each of its parameters lies, counted in repeated blocks."""

from torch import nn

from distill.initialize.blocks import repeated


def depths(model: nn.Module) -> tuple[dict[str, int], int]:
    """{parameter: its depth}, and the depth of what lies behind the last block, which is the number of blocks plus one.

    What comes before the first block (a stem, embeddings) has depth 0, block i of N depth i, and what comes behind the
    last (a final norm, the classifier) depth N + 1. Lists that follow each other, as a ResNet's stages, count on; what
    lies between two of them goes with the block before. The order is that in which the modules were registered.

    Raises:
        ValueError: the model has no repeated blocks.
    """
    lists = repeated(model)
    blocks = [
        f"{path}.{name}" if path else name for path in lists for name, _ in model.get_submodule(path).named_children()
    ]
    if not blocks:
        raise ValueError(
            f"layer_decay counts repeated blocks (an nn.ModuleList or nn.Sequential of equal modules), and "
            f"{type(model).__name__} has none. Leave it out, or freeze layers by name."
        )
    numbers = {block: number for number, block in enumerate(blocks, 1)}
    names = [name for name, _ in model.named_parameters()]
    own = [_number(name, numbers) for name in names]
    last = max(at for at, number in enumerate(own) if number)
    found: dict[str, int] = {}
    depth = 0
    for at, (name, number) in enumerate(zip(names, own, strict=True)):
        depth = number or depth
        found[name] = depth if at <= last else len(blocks) + 1
    return found, len(blocks) + 1


def _number(name: str, numbers: dict[str, int]) -> int:
    """The number of the block that a parameter lies in, 0 for none."""
    parts = name.split(".")
    return next((numbers[path] for end in range(1, len(parts)) if (path := ".".join(parts[:end])) in numbers), 0)
