"""BatchNorm's running statistics measured anew, for weights that are no longer those they were measured with."""

from torch import nn

from distill.initialize.kinds import Feed

# SyncBatchNorm is left out: it would measure over all processes, and only on accelerators.
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def reestimate_batchnorm(model: nn.Module, feed: Feed) -> int:
    """Measure means and variances on the batches that `feed` runs the model on, and give the number of layers.

    Each becomes the plain average over the batches (momentum None), whatever it was before. Meanwhile the BatchNorm
    layers normalize by the batch, as in training, so that each layer is measured on what the ones before it will give;
    every other module is as in evaluation, without dropout. A layer that is not reached keeps what it has, as all
    layers keep their momentum and each module its mode.

    Raises:
        ValueError: the model has no BatchNorm layer with running statistics.
    """
    norms = [module for module in model.modules() if isinstance(module, _NORMS) and module.track_running_stats]
    if not norms:
        raise ValueError(
            f"reestimate_batchnorm has no effect: {type(model).__name__} has no BatchNorm with running statistics. "
            "Leave it out."
        )
    training = {module: module.training for module in model.modules()}
    before = [(norm, norm.momentum, {name: tensor.clone() for name, tensor in norm.named_buffers()}) for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.momentum = None
        norm.reset_running_stats()
    try:
        feed()
    finally:
        for norm, momentum, buffers in before:
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and int(norm.num_batches_tracked) == 0:
                for name, tensor in buffers.items():
                    norm.get_buffer(name).copy_(tensor)
        for module, mode in training.items():
            module.training = mode
    return len(norms)
