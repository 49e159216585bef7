"""The heads of factor transfer: a paraphraser of the teacher's map, and a translator of the student's to its factor.

Kim, Park and Kwak, 2018, "Paraphrasing Complex Network: Network Compression via Factor Transfer", arXiv:1802.04977,
section 3. Two stages of a recipe, with terms of the same name, so that the second takes over what the first learned:

    Stage("paraphrase", {"factor": Term(Hint(), 1.0, tap, tap, head=Paraphraser())}, ...)
    Stage("transfer", {"factor": Term(FactorTransfer(), 500.0, tap, tap, head=Factors()), ...}, ...)
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.batch import Batch
from distill.heads.checks import check_maps
from distill.heads.kinds import Meeting


@dataclass(frozen=True)
class Paraphraser(Meeting):
    """The first stage: an autoencoder of the teacher's map (B, C, H, W); the student's map is not used.

    Its module gives the pair (reconstruction, teacher's map), so the loss Hint trains it. The encoder is three 3x3
    convolutions C → C → kC → kC and the decoder three transposed ones back, each with batch normalisation and a leaky
    ReLU of slope 0.1.

    rate: k, the factor's channels over the teacher's.

    Raises: ValueError where these are not maps.
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        _check_rate("Paraphraser", self.rate)

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """An encoder and a decoder of the teacher's map."""
        check_maps("Paraphraser", student, teacher)
        return _Reconstruction(_Autoencoder(teacher[1], _factor_channels(teacher[1], self.rate)))


@dataclass(frozen=True)
class Factors(Meeting):
    """The second stage: the factors of both maps (B, C, H, W), of kC channels, the larger averaged to the smaller size.

    Its module gives the pair (student's factor, teacher's factor) that the loss FactorTransfer takes. The paraphraser
    is that of the first stage's head `Paraphraser`, whose tensors have the same names here, so that
    `load_state_dict(state, strict=False)` takes them over. It stays as it is, in evaluation mode; without a first stage
    it is random. The translator is three such convolutions of the student's map, to the factor's channels.

    rate: k, the factor's channels over the teacher's, as in the first stage.

    Raises: ValueError where these are not maps.
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        _check_rate("Factors", self.rate)

    def __call__(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """A frozen encoder of the teacher's map and a translator of the student's."""
        check_maps("Factors", student, teacher)
        channels = _factor_channels(teacher[1], self.rate)
        return _Factors(
            _Autoencoder(teacher[1], channels), _three(nn.Conv2d, student[1], student[1], channels, channels)
        )


class _Autoencoder(nn.Module):
    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.encoder = _three(nn.Conv2d, channels, channels, factor, factor)
        self.decoder = _three(nn.ConvTranspose2d, factor, factor, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        reconstruction: Tensor = self.decoder(self.encoder(x))
        return reconstruction


class _Reconstruction(nn.Module):
    def __init__(self, paraphraser: _Autoencoder) -> None:
        super().__init__()
        self.paraphraser = paraphraser

    def forward(self, student: Tensor, teacher: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.paraphraser(teacher), teacher


class _Factors(nn.Module):
    def __init__(self, paraphraser: _Autoencoder, translator: nn.Module) -> None:
        super().__init__()
        self.paraphraser = paraphraser.requires_grad_(False).eval()
        self.translator = translator

    def train(self, mode: bool = True) -> "_Factors":
        super().train(mode)
        self.paraphraser.eval()  # its norms would go on learning the teacher's statistics
        return self

    def forward(self, student: Tensor, teacher: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            teacher = self.paraphraser.encoder(teacher)
        student = self.translator(student)
        size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
        return F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)


def _three(kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], *widths: int) -> nn.Sequential:
    """Three 3x3 layers over the widths, each normalised and with a leaky ReLU; height and width stay."""
    layers: list[nn.Module] = []
    for width, next_width in pairwise(widths):
        convolution = kind(width, next_width, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(next_width), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


def _factor_channels(channels: int, rate: float) -> int:
    return max(1, round(rate * channels))


def _check_rate(head: str, rate: float) -> None:
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"{head}.rate must be a finite number above zero, got {rate}.")
