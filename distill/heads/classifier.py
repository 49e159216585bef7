"""A classifier on an inner layer: from features of any form to logits."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.heads.checks import got
from distill.heads.kinds import ReadsMask


class _OfTokens(ReadsMask):
    """The mean over each text's own tokens, normalised, and what classifies it."""

    def __init__(self, width: int, classifier: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.classifier = classifier

    def forward(self, tokens_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        if mask_BT is None:
            mean_BD = tokens_BTD.mean(1)
        elif mask_BT.shape != tokens_BTD.shape[:2]:
            raise ValueError(
                f"StageClassifier takes a mask (B, T) of the tokens, {tuple(tokens_BTD.shape[:2])}, got "
                f"{tuple(mask_BT.shape)}. Tap a layer that keeps the input's positions, or give the batch no mask."
            )
        else:
            own_BT1 = mask_BT[:, :, None]
            mean_BD = tokens_BTD.masked_fill(~own_BT1, 0).sum(1) / own_BT1.sum(1).clamp_min(1)
        logits: Tensor = self.classifier(self.norm(mean_BD))
        return logits


@dataclass(frozen=True)
class StageClassifier:
    """Logits (B, K) from a map (B, C, H, W), tokens (B, T, D) or an embedding (B, D) of the student.

    The exit of Hao, Guo, Han, Tang, Hu, Wang and Xu, 2023, "One-for-All: Bridge the Gap Between Heterogeneous
    Architectures in Knowledge Distillation", arXiv:2310.19444, section 3.2, in one small block: a map passes a
    depthwise separable 3x3 convolution (stride 2 along sides of at least 4), batch normalisation and ReLU, then the
    mean over positions; tokens are averaged, those of a text over its own and not the padding, and normalised. The
    authors' code has one such block for each stage that is left and the maximum over positions, and merges tokens and
    passes them through transformer blocks.

    hidden: width before the last layer; None keeps the student's, and gives tokens and embeddings no hidden layer.

    Raises: ValueError where the teacher's tensor is not logits (B, K), or the student's none of the three forms.
    """

    hidden: int | None = None

    def __post_init__(self) -> None:
        if self.hidden is not None and self.hidden < 1:
            raise ValueError(
                f"StageClassifier.hidden must be a width of at least 1, or None for the student's, got {self.hidden}."
            )

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """A classifier of the student's features with the teacher's classes."""
        if len(student) not in (2, 3, 4) or len(teacher) != 2:
            raise ValueError(
                f"StageClassifier maps (B, C, H, W), (B, T, D) or (B, D) to logits (B, K), {got(student, teacher)}. "
                "Tap the teacher's logits."
            )
        if len(student) == 4:
            return self._of_maps(student, teacher[1])
        width = student[-1]
        classifier: nn.Module = nn.Linear(width, teacher[1])
        if self.hidden is not None:
            classifier = nn.Sequential(nn.Linear(width, self.hidden), nn.ReLU(), nn.Linear(self.hidden, teacher[1]))
        return _OfTokens(width, classifier) if len(student) == 3 else classifier

    def _of_maps(self, student: torch.Size, classes: int) -> nn.Module:
        channels, height, width = student[1:]
        hidden = self.hidden or channels
        stride = (2 if height >= 4 else 1, 2 if width >= 4 else 1)
        return nn.Sequential(
            nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(hidden, classes),
        )
