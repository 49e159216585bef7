"""Which sizes of the teacher become which of the student, and whether channels can be followed by their sizes."""

from collections.abc import Collection, Iterator, Mapping

from torch import nn

from distill.initialize.blocks import block_of
from distill.initialize.tensors import Left, Piece, classifier_path, own_tensors
from distill.initialize.widen import CHANNEL_NORMS, Role, Sizes, layer_of, roles
from distill.initialize.widths import Width


def read_widths(
    teacher: nn.Module, student: nn.Module, names: Mapping[str, str], blocks: Collection[str]
) -> dict[Sizes, Width]:
    """The dimensions along channels that are not of one size in both models.

    names: {the student's tensor: the teacher's}. blocks: paths of the student's repeated blocks.

    Raises:
        ValueError: the student's size is smaller; or LayerNorm reads a width that is no multiple, where it stands on
            the stream; by name.
    """
    widths: dict[Sizes, Width] = {}
    for name, _, role, sizes in _channels(teacher, student, names):
        if sizes[1] < sizes[0]:
            raise ValueError(
                f"{name} has {sizes[1]} channels in the student and {sizes[0]} in the teacher, and Grow makes nothing "
                "smaller. Use SelectWeights() for a narrower student."
            )
        averaged = role == "normalizes" and sizes[1] % sizes[0] != 0
        widths[sizes] = Width(*sizes, averaged=averaged or (sizes in widths and widths[sizes].averaged))
    for sizes in [sizes for sizes, width in widths.items() if width.averaged]:
        _check_placement(teacher, student, names, blocks, sizes)
    return widths


def check_ties(
    teacher: nn.Module, student: nn.Module, names: Mapping[str, str], pieces: Mapping[str, Piece | Left]
) -> None:
    """Refuse channels that cannot be followed by their sizes.

    Raises:
        ValueError: a grown weight serves layers of two kinds; or one reads a number of channels that no layer gives, as
            behind a flattening or a concatenation; by name.
    """
    found = list(_channels(teacher, student, names))
    given = {sizes for _, _, role, sizes in found if role == "writes"}
    for name, _, role, sizes in found:
        if role == "reads" and sizes not in given:
            raise ValueError(
                f"{name} reads {sizes[0]} channels in the teacher and {sizes[1]} in the student, which no layer gives: "
                "they are the inputs themselves, or flattened with their positions, or joined from several layers, and "
                "Grow cannot tell which are copies. Give the student the teacher's size there."
            )
    uses: dict[int, set[tuple[type, str]]] = {}
    for module in student.modules():
        for own, parameter in module.named_parameters(recurse=False):
            uses.setdefault(id(parameter), set()).add((type(module), own))
    for name, tensor in own_tensors(student).items():
        piece = pieces.get(name)
        if isinstance(piece, Piece) and piece.how == "grown" and len(uses.get(id(tensor), ())) > 1:
            kinds = " and ".join(sorted(kind.__name__ for kind, _ in uses[id(tensor)]))
            raise ValueError(
                f"{name} serves layers of two kinds ({kinds}), which would need it grown in two ways. Give the student "
                "weights of its own there, or the teacher's size."
            )


def _channels(
    teacher: nn.Module, student: nn.Module, names: Mapping[str, str]
) -> Iterator[tuple[str, nn.Module, Role, Sizes]]:
    """(the student's tensor, its layer, role, sizes) of every dimension along channels whose size differs."""
    targets, sources = own_tensors(student), own_tensors(teacher)
    classifier = classifier_path(teacher)
    for name, source in names.items():
        layer, tensor = layer_of(teacher, source)
        for axis, role in enumerate(roles(layer, tensor, min(sources[source].dim(), targets[name].dim()))):
            sizes = sources[source].shape[axis], targets[name].shape[axis]
            is_class = axis == 0 and source.rpartition(".")[0] == classifier
            if role != "fixed" and sizes[0] != sizes[1] and not is_class:
                yield name, layer, role, sizes


def _check_placement(
    teacher: nn.Module, student: nn.Module, names: Mapping[str, str], blocks: Collection[str], sizes: Sizes
) -> None:
    """Refuse a LayerNorm over a width that is no multiple, unless it only ever reads the stream.

    Within blocks this is seen by running them. Outside there may be one, behind them: what it gives is for the
    classifier, whereas one in front of them would give the stream.
    """
    found = [(name, layer) for name, layer, _, each in _channels(teacher, student, names) if each == sizes]
    outside = {
        name.rpartition(".")[0]
        for name, layer in found
        if isinstance(layer, nn.LayerNorm) and block_of(name, blocks) is None
    }
    order = [path for path, _ in student.named_modules()]
    last = max((order.index(path) for path in blocks), default=len(order))
    early = [path for path in outside if order.index(path) < last]
    norms = [name.rpartition(".")[0] for name, layer in found if isinstance(layer, CHANNEL_NORMS)]
    if early or norms or len(outside) != 1:
        name = [*early, *norms, found[0][0]][0]
        raise ValueError(
            f"{name} has {sizes[0]} channels in the teacher and {sizes[1]} in the student, which is no multiple, and a "
            "LayerNorm reads them. That is exact only where LayerNorm stands before each branch and once behind the "
            f"blocks. Give the student a multiple of {sizes[0]}."
        )
