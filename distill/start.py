"""A student at its start: from its teacher's weights, with BatchNorm's statistics measured, on training examples."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from distill.batch import Batch
from distill.initialize import Coverage, Initializer, ReadsExamples, reestimate_batchnorm
from distill.measure import evaluating
from distill.models import Loaded
from distill.taps import Tapped
from distill.view import Sees

# So many batches of so many training examples each, the same on every process.
Spread = Callable[[int, int], Iterable[Batch]]

_ACTIVATION_BATCHES, _ACTIVATION_BATCH_SIZE = 8, 32


def start_student(
    start: Initializer, teacher: nn.Module, student: nn.Module, view: Sees, spread: Spread, examples: int
) -> Coverage:
    """Start the student from the teacher, which is run on up to 256 training examples where that is asked for.

    view: the teacher's. examples: how many there are to train on.

    Raises:
        ValueError: what the initializer refuses.
    """
    if not isinstance(start, ReadsExamples):
        return start(teacher, student)
    batches = min(_ACTIVATION_BATCHES, examples)
    size = min(_ACTIVATION_BATCH_SIZE, examples // batches)

    def feed() -> None:
        with evaluating(teacher), torch.no_grad():
            _run(teacher, view, spread(batches, size))

    return start.from_examples(teacher, student, feed)


def measure_statistics(
    student: nn.Module, view: Sees, spread: Spread, examples: int, *, batches: int, batch_size: int
) -> str:
    """Measure BatchNorm's statistics anew on training examples; a note of what was done.

    batches: as many, each of `batch_size` examples, or of what there is.

    Raises:
        ValueError: there are fewer examples, or no BatchNorm.
    """
    most = -(-examples // batch_size)
    if batches > most:
        raise ValueError(
            f"reestimate_batchnorm={batches} batches of {batch_size} are more than the {examples:,} training "
            f"examples. Write at most {most}."
        )
    size = min(batch_size, examples // batches)
    with torch.no_grad():
        layers = reestimate_batchnorm(student, lambda: _run(student, view, spread(batches, size)))
    return f"The statistics of {layers} BatchNorm layers were measured anew on {batches} batches of {size} examples."


def from_weights(loaded: Loaded) -> frozenset[str]:
    """Names of the parameters of a model with weights that came from them; those of a fresh classifier did not."""
    names = (name for name, _ in loaded.model.named_parameters())
    return frozenset(name for name in names if loaded.fresh is None or not name.startswith(f"{loaded.fresh}."))


def from_coverage(coverage: Coverage) -> frozenset[str]:
    """Names of the student's parameters that came from its teacher's weights."""
    given = (tensor for tensor in coverage.tensors if tensor.kind == "parameter" and tensor.how != "left")
    return frozenset(tensor.name for tensor in given)


def _run(model: nn.Module, view: Sees, batches: Iterable[Batch]) -> None:
    tapped = Tapped(model, ("logits",), view=view.module())
    for batch in batches:
        tapped(batch.inputs)
