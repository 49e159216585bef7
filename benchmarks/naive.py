"""The form in which everyone writes a heavy loss, to time ours against."""

import torch
from torch import Tensor
from torch.nn import functional as F


def naive_rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """RKDAngle's value from all unit differences (B, B, D) and all cosines (B, B, B) at once."""

    def cosines(x: Tensor) -> Tensor:
        units = F.normalize(x[None] - x[:, None], dim=2)
        return torch.bmm(units, units.mT)

    with torch.no_grad():
        of_teacher = cosines(teacher)
    return F.smooth_l1_loss(cosines(student), of_teacher)


def naive_crd_scores(v: Tensor, memory: Tensor, chosen: Tensor, *, temperature: float = 0.07) -> Tensor:
    """CRD's exp(M[k] · v / τ), (B, 1 + K), from copies of the chosen rows (B, 1 + K, D) and batched products."""
    rows = memory.index_select(0, chosen.flatten()).view(*chosen.shape, -1)
    return torch.bmm(rows, v[:, :, None])[:, :, 0].div(temperature).exp()


def naive_crd(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor, Tensor], *, temperature: float = 0.07
) -> Tensor:
    """CRD of each example, (B,), from `naive_crd_scores`, with Z = n exp(1 / (2 D τ²))."""
    memory_of_student, memory_of_teacher, chosen = teacher
    rows, width = memory_of_student.shape
    share = (chosen.shape[1] - 1) / rows
    partition = rows * torch.tensor(1 / (2 * width * temperature**2), dtype=torch.float64).exp().item()
    total = torch.zeros(len(chosen), dtype=student[0].dtype, device=student[0].device)
    for v, memory in zip(student, (memory_of_teacher, memory_of_student), strict=True):
        odds = naive_crd_scores(v, memory, chosen, temperature=temperature) / partition
        own, others = odds[:, 0], odds[:, 1:]
        total = total - (own / (own + share + 1e-7)).log() - (share / (others + share + 1e-7)).log().sum(1)
    return total
