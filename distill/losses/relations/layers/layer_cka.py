"""Layer CKA: which of its layers a model represents alike is the same in student and teacher.

Kornblith, Norouzi, Lee and Hinton, 2019, "Similarity of Neural Network Representations Revisited", arXiv:1905.00414,
section 3, with the linear kernel.

    CKA_ij = ‖X_iᵀ X_j‖²_F / (‖X_iᵀ X_i‖_F ‖X_jᵀ X_j‖_F),    X = a layer's features (B, D), each column with mean 0
    L = mean over the L x L pairs of layers of (CKA_s − CKA_t)²,    each matrix within one model

Departures: the paper measures similarity and trains nothing; the loss on it is this library's. Widths may differ
everywhere, since each matrix is of one model. A layer that is the same for all examples has CKA 0 with every layer, and
gradient 0. The value is one number, given for each example. Batches of one and two have loss 0: one example has no
deviation, and two have the same one in every layer.
Needs: as many tapped layers, two or more, of each model; tensors (B, ...) of any shapes.
Cost: moderate, O(B²·D) for each layer, or O(B·D²) for each pair where all D are at most B.
Paper setting: none; start from weight 1, with one layer of each stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses.checks import check_scope, is_tensor, mismatch
from distill.losses.kinds import Coupled, Scope
from distill.losses.rows import meeting_rows
from distill.numerics import safe_sqrt, unit, without_autocast


def centred(features_BD: Tensor) -> Tensor:
    """Each column with mean 0, the whole with norm 1; zeros where the rows differ by rounding alone."""
    centred_BD = features_BD - features_BD.mean(0)
    rounding = 16 * torch.finfo(features_BD.dtype).eps * features_BD.detach().norm()
    differ = (centred_BD.detach().norm() > rounding).to(features_BD.dtype)
    return unit((centred_BD * differ).flatten(), 0).view_as(features_BD)


def layer_similarities(layers: Sequence[Tensor]) -> Tensor:
    """Linear CKA between the layers of one model, (L, L), from features (B, D) whose widths may differ."""
    layers = [centred(layer) for layer in layers]
    with without_autocast(layers[0]):
        products_LL = _products(layers)
    norms_L = safe_sqrt(products_LL.diagonal())
    inverse_L = torch.where(norms_L > 0, norms_L.clamp_min(1e-12).reciprocal(), torch.zeros_like(norms_L))
    return products_LL * inverse_L[:, None] * inverse_L


def _products(layers: Sequence[Tensor]) -> Tensor:
    """‖X_iᵀ X_j‖²_F of all pairs of layers, (L, L): through products of examples where a layer is wider than these."""
    if any(layer.shape[1] > len(layer) for layer in layers):
        grams_LN = torch.stack([(layer @ layer.T).flatten() for layer in layers])
        return grams_LN @ grams_LN.T
    rows = [torch.stack([(one.T @ other).square().sum() for other in layers]) for one in layers]
    return torch.stack(rows)


@dataclass(frozen=True)
class LayerCKA(Coupled):
    """Mean squared difference of the similarities (linear CKA) between the tapped layers of each model.

    student, teacher: equally long tuples of two or more tensors (B, ...); shapes may differ.
    scope: "global" measures over the examples of all processes, "local" over those of one.

    Raises: ValueError where these are not such tuples.
    """

    scope: Scope = "global"

    def __post_init__(self) -> None:
        check_scope("LayerCKA.scope", self.scope)

    def __call__(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """The value of the whole batch for each example, (B,)."""
        alike = _are_layers(student) and _are_layers(teacher) and len(student) == len(teacher)
        if not alike or len(student[0]) != len(teacher[0]):
            way_out = 'Tap as many layers of each, as student=("layer1", "layer2").'
            needs = "LayerCKA compares equally long tuples of two or more tensors (B, ...)"
            raise mismatch(needs, student, teacher, way_out)
        pairs = zip(student, teacher, strict=True)
        met = [meeting_rows(one.flatten(1), other.flatten(1), self.scope) for one, other in pairs]
        off_LL = layer_similarities([one for one, _, _ in met]) - layer_similarities([other for _, other, _ in met])
        return off_LL.square().mean().expand(len(student[0]))


def _are_layers(layers: object) -> bool:
    return (
        isinstance(layers, Sequence)
        and len(layers) >= 2
        and all(is_tensor(x) and x.ndim >= 2 and len(x) == len(layers[0]) for x in layers)
    )
