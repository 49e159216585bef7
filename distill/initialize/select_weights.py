"""A narrower and shallower student from a wider teacher: chosen elements of the tensors of the same name."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Size, Tensor, nn

from distill.initialize.activations import activation_scores
from distill.initialize.coverage import Coverage
from distill.initialize.importance import CONVOLUTIONS, Choose, Scores, scores
from distill.initialize.indices import Index, MisfitError, blocks, grouped, heads, is_whole, outer, plain
from distill.initialize.kinds import Feed
from distill.initialize.projections import Side, heads_of
from distill.initialize.tensors import (
    Left,
    Piece,
    check_minimum,
    classifier_path,
    initialize,
    own_tensors,
    unique_tensors,
)

Modules = Mapping[str, nn.Module]


@dataclass(frozen=True)
class SelectWeights:
    """Weight selection (Xu et al., 2024, arXiv:2311.18823): the student gets evenly spread parts of the teacher's.

    Layers are matched by name, so a shallower student gets the teacher's first blocks of each stage ("first-N"). Along
    every dimension of s out of d elements the positions are round(linspace(0, d - 1, s)). They depend on the sizes
    only, so all layers along a residual stream, with BatchNorm's and LayerNorm's parameters and statistics, keep the
    same channels; grouped convolutions follow the channels that they join, and attention keeps heads whole. A student
    of the teacher's architecture is a full copy.

    Left at its own initialisation and listed: a tensor that is larger than the teacher's in some dimension; the
    classifier, unless both models have one of this name for equally many classes; an embedding for another number of
    words or positions.

    Where the released code takes a stride of d / s for sizes that divide, this rule includes the last element. Channels
    that a model concatenates (DenseNet, ShuffleNet) or flattens with their positions (torchvision's VGG) are taken
    evenly from the whole, which is not what each part keeps by itself. Heads are known in `nn.MultiheadAttention` and
    in transformers' models; in the latter they are kept evenly whatever `choose` says.

    choose: which channels and heads are kept. "uniform", the paper's; "first", the foremost; "l1" and "l2", those whose
        weights have the greatest norm over all layers that touch them (Samragh et al., 2023, arXiv:2312.09299, sort by
        such a score); "activation", those whose mean absolute activation on a few training examples is greatest, as
        `activation_scores` says. By score too, channels of equal sizes are kept alike all over the model, so along the
        residual stream; heads whole, in each attention by itself. Other than evenly, a grouped convolution may lose a
        group's channels; it is then left, and listed.
    keep_classifier: take the classifier as well where the numbers of classes are equal.
    minimum: least share of the student's parameters that must come from the teacher.

    Raises:
        ValueError: less than `minimum` of the student's parameters fit; or "activation" is asked for without examples.
    """

    keep_classifier: bool = True
    minimum: float = 0.5
    choose: Choose = "uniform"

    def __post_init__(self) -> None:
        check_minimum(self.minimum)

    def __call__(self, teacher: nn.Module, student: nn.Module) -> Coverage:
        """Select, and say what was selected."""
        if self.choose == "activation":
            raise ValueError(
                "SelectWeights(choose='activation') needs training examples. Give it to a recipe, or call "
                "from_examples(teacher, student, feed)."
            )
        return self._select(teacher, student, scores(teacher, student, self.choose))

    def from_examples(self, teacher: nn.Module, student: nn.Module, feed: Feed) -> Coverage:
        """As the call, for every choice; `feed` runs the teacher on examples, and is called for "activation" alone."""
        if self.choose != "activation":
            return self(teacher, student)
        return self._select(teacher, student, activation_scores(teacher, student, feed))

    def _select(self, teacher: nn.Module, student: nn.Module, kept: Scores) -> Coverage:
        sources = own_tensors(teacher)
        modules = (
            dict(teacher.named_modules(remove_duplicate=False)),
            dict(student.named_modules(remove_duplicate=False)),
        )
        classifiers = classifier_path(teacher), classifier_path(student)
        pieces: dict[str, Piece | Left] = {}
        for name, tensor in unique_tensors(student).items():
            if name not in sources:
                pieces[name] = Left("the teacher has no tensor of this name")
                continue
            reason = self._unsuitable_rows(name, sources[name].shape, tensor.shape, classifiers, modules[1])
            pieces[name] = Left(reason, name) if reason else _select(name, sources[name], tensor.shape, *modules, kept)
        way_out = "Take a teacher of the student's family, whose layers have the same names, or lower minimum."
        return initialize(teacher, student, pieces, minimum=self.minimum, way_out=way_out)

    def _unsuitable_rows(
        self, name: str, size: Size, kept: Size, classifiers: tuple[str | None, str | None], student_modules: Modules
    ) -> str:
        """Why no rows may be taken where they are classes, words or positions, not channels; empty where they may."""
        path = name.rpartition(".")[0]
        if path in classifiers:
            if classifiers[0] != classifiers[1]:
                return "the classifier of one model only"
            if size[0] != kept[0]:
                return f"the teacher's classifier has {size[0]} classes"
            return "" if self.keep_classifier else "keep_classifier=False"
        if isinstance(student_modules[path], nn.Embedding) and size[0] != kept[0]:
            return f"the teacher's embedding has {size[0]} rows"
        return ""


def _select(
    name: str, source: Tensor, kept: Size, teacher_modules: Modules, student_modules: Modules, chosen: Scores
) -> Piece | Left:
    try:
        index = _index(name, source.shape, kept, teacher_modules, student_modules, chosen)
    except MisfitError as problem:
        return Left(str(problem), name)
    if is_whole(index, source.shape, kept):
        return Piece("copied", name, source)
    return Piece("selected", name, source.detach()[tuple(each.to(source.device) for each in index)])


def _index(
    name: str, size: Size, kept: Size, teacher_modules: Modules, student_modules: Modules, chosen: Scores
) -> Index:
    path, _, tensor = name.rpartition(".")
    teacher, student = teacher_modules[path], student_modules[path]
    apart = heads_of(path, teacher_modules), heads_of(path, student_modules)
    if apart[0] is not None and apart[1] is not None:
        return _projection(apart[0][0], size, kept, apart[0][1], apart[1][1], chosen)
    if tensor == "weight" and isinstance(teacher, CONVOLUTIONS) and isinstance(student, CONVOLUTIONS):
        return grouped(size, kept, teacher.groups, student.groups, chosen.pick)
    if path.rpartition(".")[2] == "out_proj":
        path, tensor = path.rpartition(".")[0], f"out_proj.{tensor}"
        teacher, student = teacher_modules[path], student_modules[path]
    if isinstance(teacher, nn.MultiheadAttention) and isinstance(student, nn.MultiheadAttention):
        if tensor == "out_proj.bias":
            return plain(size, kept, chosen.pick)
        widths = teacher.embed_dim, student.embed_dim, teacher.num_heads, student.num_heads
        along_heads = heads(*widths, *chosen.pick_heads(path))
        return _attention(tensor, size, kept, along_heads, teacher.embed_dim, chosen)
    return plain(size, kept, chosen.pick)


def _projection(side: Side, size: Size, kept: Size, num_heads: int, kept_heads: int, chosen: Scores) -> Index:
    """The index into a linear layer with heads along its rows, or along the columns of its weight."""
    picks = [chosen.pick(*pair) for pair in zip(size, kept, strict=True)]
    axis = 0 if side == "rows" else 1
    if axis < len(picks):
        if size[axis] % num_heads or kept[axis] % kept_heads:
            raise MisfitError(
                f"{size[axis]} rows of heads are not divided by {num_heads}, or {kept[axis]} by {kept_heads}"
            )
        picks[axis] = heads(size[axis], kept[axis], num_heads, kept_heads)
    return outer(picks)


def _attention(tensor: str, size: Size, kept: Size, along_heads: Tensor, width: int, chosen: Scores) -> Index:
    """The index into a tensor of `nn.MultiheadAttention`: heads where it lists heads, else channels."""
    if tensor in ("in_proj_weight", "in_proj_bias"):
        rows = blocks(along_heads, width, 3)
        return outer([rows, *(chosen.pick(*pair) for pair in zip(size[1:], kept[1:], strict=True))])
    if tensor in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
        return outer([along_heads, chosen.pick(size[1], kept[1])])
    assert tensor in ("out_proj.weight", "bias_k", "bias_v")
    return outer([*(chosen.pick(*pair) for pair in zip(size[:-1], kept[:-1], strict=True)), along_heads])
