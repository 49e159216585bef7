"""Which of the teacher's channels and attention heads a narrower student keeps, where it does not keep them evenly.

Channels of equal sizes in both models are kept alike, as by `indices.uniform`: whatever a model passes on or adds up
has one size, so the same channels are kept all along a residual stream. Their scores are summed over all weights that
read or write channels of these sizes. Heads, which no other layer sees, are scored in each attention by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from distill.initialize.indices import Pick, uniform
from distill.initialize.tensors import own_tensors

Choose = Literal["uniform", "first", "l1", "l2", "activation"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

_EXPONENTS = {"l1": 1, "l2": 2}


@dataclass(frozen=True)
class Scores:
    """What is kept: the positions of the highest scores in order, of equal ones the first; even ones without scores.

    channels: for a teacher's and a student's size, one score for each of the teacher's channels.
    heads: for the path of an attention, the scores of its heads, and of the positions within each.
    """

    channels: Mapping[tuple[int, int], Tensor] = field(default_factory=dict)
    heads: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def pick(self, size: int, kept: int) -> Tensor:
        """Channels to keep."""
        return _highest(self.channels.get((size, kept)))(size, kept)

    def pick_heads(self, path: str) -> tuple[Pick, Pick]:
        """How heads, and positions within them, are picked in one attention."""
        over, within = self.heads.get(path, (None, None))
        return _highest(over), _highest(within)


def scores(teacher: nn.Module, student: nn.Module, choose: Choose) -> Scores:
    """The scores of the teacher's channels for this student; none where they are kept evenly.

    "l1" and "l2" give each channel the norm of all weights that touch it, as output or as input. Those of "activation"
    come from `activations.activation_scores`.
    """
    if choose == "uniform":
        return Scores()
    targets = own_tensors(student)
    students = dict(student.named_modules(remove_duplicate=False))
    channels: dict[tuple[int, int], Tensor] = {}
    heads: dict[str, tuple[Tensor, Tensor]] = {}
    for path, module in teacher.named_modules():
        for tensor, axes in _channel_axes(module).items():
            name = f"{path}.{tensor}" if path else tensor
            weight = dict(module.named_parameters())[tensor]
            if name not in targets or targets[name].dim() != weight.dim():
                continue
            for axis in axes:
                size, kept = weight.shape[axis], targets[name].shape[axis]
                other = [other for other in range(weight.dim()) if other != axis]
                if kept < size:
                    score = _score(weight, choose).sum(other)
                    channels[size, kept] = channels.get((size, kept), 0) + score
        if isinstance(module, nn.MultiheadAttention) and isinstance(students.get(path), nn.MultiheadAttention):
            heads[path] = _head_scores(module, choose)
    if choose == "first":
        channels = {sizes: _descending(score) for sizes, score in channels.items()}
        heads = {path: (_descending(over), _descending(within)) for path, (over, within) in heads.items()}
    return Scores(channels, heads)


def _channel_axes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """{weight: its dimensions along channels that other layers see}."""
    if isinstance(module, CONVOLUTIONS):
        return {"weight": (0, 1) if module.groups == 1 else (0,)}
    if isinstance(module, nn.Linear):
        return {"weight": (0, 1)}
    if isinstance(module, nn.Embedding):
        return {"weight": (1,)}
    if isinstance(module, nn.MultiheadAttention):
        return dict.fromkeys(in_projections(module), (1,))
    return {}


def in_projections(module: nn.MultiheadAttention) -> tuple[str, ...]:
    """The names of the weights of queries, keys and values: one of all three, or one of each."""
    separate = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    return tuple(name for name, _ in module.named_parameters() if name in ("in_proj_weight", *separate))


def _head_scores(module: nn.MultiheadAttention, choose: Choose) -> tuple[Tensor, Tensor]:
    weights = dict(module.named_parameters())
    rows = [part for name in in_projections(module) for part in torch.split(weights[name], module.embed_dim)]
    per_position = torch.stack([_score(part, choose).sum(1) for part in rows]).sum(0)
    per_position = (per_position + _score(module.out_proj.weight, choose).sum(0)).view(module.num_heads, -1)
    return per_position.sum(1), per_position.sum(0)


def _score(weight: Tensor, choose: Choose) -> Tensor:
    return weight.detach().abs().double() ** _EXPONENTS.get(choose, 0)


def _descending(score: Tensor) -> Tensor:
    return -torch.arange(len(score))


def _highest(score: Tensor | None) -> Pick:
    def pick(size: int, kept: int) -> Tensor:
        if score is None or kept >= size:
            return uniform(size, kept)
        return score.cpu().argsort(descending=True, stable=True)[:kept].sort().values

    return pick
