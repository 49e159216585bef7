"""A wider or deeper student that computes what its smaller teacher computes."""

from dataclasses import dataclass

import torch
from torch import nn

from distill.initialize.added_blocks import add_block
from distill.initialize.blocks import Pair, block_of, larger_lists, pair_blocks
from distill.initialize.coverage import Coverage
from distill.initialize.grown_widths import check_ties, read_widths
from distill.initialize.indices import MisfitError
from distill.initialize.sameness import check_answers, check_blocks
from distill.initialize.tensors import Left, Piece, classifier_path, initialize, own_tensors, unique_tensors
from distill.initialize.widen import Widths, layer_of, widen, widen_attention
from distill.initialize.widths import Draws
from distill.messages import nearest


@dataclass(frozen=True)
class Grow:
    """Function-preserving growth: a student with more channels, heads, hidden units or blocks, and the same answers.

    Wider, Net2WiderNet ("Net2Net", Chen et al., 2016, arXiv:1511.05641): new channels are copies, and what
    reads them divides its weights among the copies; BatchNorm is copied with its channels. Of a transformer too,
    bert2BERT's function-preserving initialisation (Chen et al., 2022, arXiv:2110.07143): whole heads are
    copied. Net2Net draws which channels are copied; here position j is a copy of j mod the teacher's size, which
    depends on the two sizes only, so all layers along a residual stream agree.

    Deeper, Net2DeeperNet (the same paper): blocks are added at the end of a list of repeated ones (found as in
    `SkipLayers`) such that they pass their input on: the last layer of each residual branch is zero, or, where there is
    no shortcut, convolutions copy. The rest of an added block keeps its own initialisation, and is listed as left.

    Sizes need not be multiples, but for what LayerNorm reads: channels copied unequally often would change its mean and
    variance. Where LayerNorm stands before each branch (a vision transformer) the remainder is the channels' mean and
    the stream is rescaled, which is exact (see `Width`). Where it stands on the stream (BERT), a width that is no
    multiple is refused, and so are added blocks: no start of theirs passes an input on. Where queries, keys and values
    are separate layers, heads must be of the teacher's size, so more of them; `nn.MultiheadAttention` may get wider
    ones too.

    Channels are followed by their sizes, which is wrong where a model joins, splits, shuffles or flattens them. So each
    block of a list, and then the whole model, is run once in float64 beside the teacher on a random input, before the
    student is changed; what does not give the same is refused. The sameness holds in evaluation mode.

    noise: how unevenly copies share what they pass on, a deviation relative to equal shares. Net2Net adds noise to the
        copies, which changes the function a little; uneven shares do not, and break the copies' symmetry as well: they
        get different gradients. At 0 copies stay equal in training, but for dropout.
    seed: of the noise, and of the inputs of the check.
    probe: the shape of one example for the check of the whole model (token numbers, where its first layer is an
        embedding); None tries images of usual sizes, a few tokens, or a vector.

    Raises:
        ValueError: by name: the student is narrower or shallower somewhere, lacks one of the teacher's tensors or has
            one more, or has a part whose growth would not be exact.
    """

    noise: float = 0.0
    seed: int = 0
    probe: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.noise < float("inf"):
            raise ValueError(f"noise is a deviation of at least 0, got {self.noise}.")

    def __call__(self, teacher: nn.Module, student: nn.Module) -> Coverage:
        """Grow, and say what became of each tensor."""
        generator = torch.Generator().manual_seed(self.seed)
        pairs = _pairs(teacher, student)
        blocks = {ours: theirs for pair in pairs for ours, theirs in zip(pair.student, pair.teacher, strict=False)}
        added = {ours: pair for pair in pairs for ours in pair.student[len(pair.teacher) :]}
        names = _names(teacher, student, blocks, added)
        widths = read_widths(teacher, student, names, {*blocks, *added})
        pieces = _grown(teacher, student, names, widths, Draws(self.noise, generator))
        check_ties(teacher, student, names, pieces)
        for pair in pairs:
            check_blocks(pair, teacher, student, widths, pieces, generator)
            for number in range(len(pair.teacher), len(pair.student)):
                pieces.update(add_block(student, pair.student[number - 1 : number + 1], pieces, generator))
        check_answers(teacher, student, widths, pieces, generator, self.probe)
        return initialize(teacher, student, pieces, minimum=0.0, way_out="")


def _pairs(teacher: nn.Module, student: nn.Module) -> list[Pair]:
    pairs = pair_blocks(teacher, student, larger_lists(teacher, student))
    for pair in pairs:
        if len(pair.student) < len(pair.teacher):
            raise ValueError(
                f"'{pair.path}' has {len(pair.student)} blocks in the student and {len(pair.teacher)} in the teacher, "
                "and Grow makes nothing smaller. Use SkipLayers() for a shallower student."
            )
    return pairs


def _names(teacher: nn.Module, student: nn.Module, blocks: dict[str, str], added: dict[str, Pair]) -> dict[str, str]:
    """{the student's tensor: the teacher's}, without those of added blocks.

    Raises:
        ValueError: one model has a tensor that the other lacks.
    """
    names = {}
    sources = own_tensors(teacher)
    for name in unique_tensors(student):
        if block_of(name, added) is not None:
            continue
        block = block_of(name, blocks)
        source = name if block is None else blocks[block] + name[len(block) :]
        if source not in sources:
            raise ValueError(
                f"The teacher has no {source}, so Grow cannot start the student's {name}. "
                f"Nearest: {nearest(source, sources)}."
            )
        names[name] = source
    for source in unique_tensors(teacher):
        if source not in names.values():
            raise ValueError(f"The student has no {source}, which the teacher uses. Nearest: {nearest(source, names)}.")
    return names


def _grown(
    teacher: nn.Module, student: nn.Module, names: dict[str, str], widths: Widths, draws: Draws
) -> dict[str, Piece | Left]:
    sources, targets, classifier = own_tensors(teacher), own_tensors(student), classifier_path(teacher)
    pieces: dict[str, Piece | Left] = {}
    for name, source in names.items():
        size, wanted = sources[source].shape, targets[name].shape
        if source.rpartition(".")[0] == classifier and size[0] != wanted[0]:
            pieces[name] = Left(f"the teacher's classifier has {size[0]} classes", source)
            continue
        original = sources[source].detach().cpu()
        if original.is_floating_point():
            original = original.double()
        layer, tensor = layer_of(teacher, source)
        larger, _ = layer_of(student, name)
        try:
            if isinstance(layer, nn.MultiheadAttention) and isinstance(larger, nn.MultiheadAttention):
                values = widen_attention(original, tensor, layer, larger, widths, draws)
            else:
                values = widen(original, wanted, layer, tensor, widths, draws)
        except MisfitError as problem:
            raise ValueError(
                f"{name} is {tuple(size)} in the teacher and {tuple(wanted)} in the student: {problem}. "
                "Give the student the teacher's size there."
            ) from None
        pieces[name] = Piece("copied" if torch.equal(values, original) else "grown", source, values)
    return pieces
