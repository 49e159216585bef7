"""Where a model looks: its activation maps, and how they lie to the boxes of the findings and to the teacher's maps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.data.cases import Box
from distill.data.draws import generator
from distill.data.examples import Examples
from distill.measure import evaluating
from distill.taps import Tapped, tappable

# Left, top, right and bottom in shares of the image's width and height, as the last four values of a `Box`.
Shares = tuple[float, float, float, float]


@dataclass(frozen=True)
class Average:
    """A mean over boxes and its standard error, which is None where all boxes are of one patient."""

    mean: float
    standard_error: float | None


@dataclass(frozen=True)
class Looks:
    """How one model's maps lie to the boxes of the findings that they are for.

    count: number of boxes. blank: how many of the maps are zero everywhere; they count as looking past the box.
    area: mean share of the image in a box, which is the `inside` of a map that looks everywhere alike.
    inside, hits, overlap: see the functions of these names. likeness: to the teacher's maps; None for the teacher.
    """

    count: int
    blank: int
    area: float
    inside: Average
    hits: Average
    overlap: Average
    likeness: Average | None


def last_map(model: nn.Module, view_inputs: Tensor) -> str:
    """The tap of a model's last feature map (B, C, H, W) with more than one position, on the way to its logits.

    view_inputs: what the model sees (B, C, H, W), behind its view; one example is enough.

    Raises:
        ValueError: the model has no such map, or goes on after it in tokens or with the channels last,
            as vision transformers do.
    """
    kind = type(model).__name__
    with evaluating(model), torch.no_grad():
        # Those two names mean the model's own answer and embedding, whatever modules it has.
        taps = [name for name in tappable(model, view_inputs) if name not in ("logits", "embedding")]
        tapped = Tapped(model, taps)
        try:
            shapes = {tap: tensor.shape for tap, tensor in tapped(view_inputs).items()}
        finally:
            tapped.close()
    maps = [tap for tap in taps if _is_map(shapes[tap], view_inputs.shape)]
    if not maps:
        raise ValueError(
            f"{kind} has no feature map (B, C, H, W) of more than one position, so nobody can say where it looks. "
            "Take a convolutional network."
        )
    after = taps[taps.index(maps[-1]) + 1 :]
    others = [tap for tap in after if _has_positions(shapes[tap])]
    if others:
        shape = ", ".join(map(str, shapes[others[-1]][1:]))
        raise ValueError(
            f"{kind} goes on in another form after its last feature map '{maps[-1]}' ('{others[-1]}' gives "
            f"(B, {shape})), so that map does not say where it looks. Take a convolutional network."
        )
    return maps[-1]


def activation_maps(
    model: nn.Module, view: nn.Module, images: Tensor, labels: Tensor, *, tap: str, size: int
) -> Tensor:
    """Where each image speaks for its label: maps (B, size, size) in [0, 1], each divided by its maximum.

    Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391, eq. 1 and 2): the channels of the tapped map, each weighted by
    the mean over positions of the logit's gradient, summed, and zero where the sum is negative. A map that is zero
    everywhere stays so. The model is evaluated, and its parameters' gradients are not touched.

    images: crops (B, C, H, W) on the model's device, which `view` turns into what the model sees.
    labels: for each image the label that is asked about, int64 (B,). tap: see `last_map`. size: side of the crops.

    Raises:
        ValueError: the tap can't be read, or the logits do not depend on it.
    """
    tapped = Tapped(model, ("logits", tap))
    try:
        with evaluating(model), torch.enable_grad():
            # Through the inputs there is a graph even where the parameters are frozen. The clone is no leaf, so that a
            # model may change its inputs in place.
            outputs = tapped(view(images).detach().requires_grad_().clone())
            chosen = outputs["logits"].gather(1, labels[:, None]).sum()
            gradient: Tensor | None = torch.autograd.grad(chosen, outputs[tap], allow_unused=True)[0]
    finally:
        tapped.close()
    if gradient is None:
        raise ValueError(
            f"The logits of {type(model).__name__} do not depend on '{tap}'. Name a tap on the way to them."
        )
    weights = gradient.float().mean((2, 3), keepdim=True)
    maps = (weights * outputs[tap].detach().float()).sum(1, keepdim=True).relu()
    maps = F.interpolate(maps, (size, size), mode="bilinear", align_corners=False).squeeze(1)
    peaks = maps.amax((1, 2), keepdim=True)
    return maps / peaks.where(peaks > 0, 1.0)


def chosen_boxes(boxes: Sequence[Box], most: int = 200, *, seed: int = 0) -> tuple[Box, ...]:
    """At most so many of the boxes, in their order, each label's share as among all of them.

    Which ones of a label depends on the seed alone.
    """
    shuffled = torch.randperm(len(boxes), generator=generator("looks", seed)).tolist()
    by_label = sorted(shuffled, key=lambda place: boxes[place].label)
    count = min(most, len(boxes))
    return tuple(boxes[place] for place in sorted(by_label[number * len(boxes) // count] for number in range(count)))


def maps_of(
    model: nn.Module,
    view: nn.Module,
    examples: Examples,
    asked: Sequence[tuple[int, int]],
    device: torch.device,
    *,
    batch_size: int = 16,
) -> Tensor:
    """A model's maps (N, S, S) of the examples and labels that are asked about, on the CPU; S is the crops' side.

    Maps of models with other views and other resolutions have the same size, and can be compared.

    asked: numbers of an example and of a label, at least one such pair.
    device: where the model and its view are.

    Raises:
        ValueError: see `last_map`.
    """
    maps, tap = list[Tensor](), ""
    for start in range(0, len(asked), batch_size):
        pairs = asked[start : start + batch_size]
        images = torch.stack([examples[0, index].image for index, _ in pairs]).to(device)
        labels = torch.tensor([label for _, label in pairs], device=device)
        tap = tap or last_map(model, view(images[:1]))
        size = max(images.shape[-2:])
        maps.append(activation_maps(model, view, images, labels, tap=tap, size=size).cpu())
    return torch.cat(maps)


def looks(
    maps: Tensor, boxes: Sequence[Box], *, teacher_maps: Tensor | None = None, patient: Tensor | None = None
) -> Looks:
    """How maps (N, H, W) lie to their boxes, N at least one, and how like they are to the teacher's maps (N, H, W).

    patient: each example's, as in `Cases`. Boxes of one patient are no independent draws, so the standard error is that
    of the mean over clusters (Liang and Zeger, 1986, doi:10.1093/biomet/73.1.13); where no patients are known, the
    boxes of one example are a cluster.
    """
    assert len(maps) == len(boxes) > 0
    owners = [box.example if patient is None else int(patient[box.example]) for box in boxes]

    def averaged(judge: Callable[[Tensor, Shares], float]) -> Average:
        return _average([judge(one, box[2:]) for one, box in zip(maps, boxes, strict=True)], owners)

    like = None
    if teacher_maps is not None:
        like = _average([likeness(*pair) for pair in zip(maps, teacher_maps, strict=True)], owners)
    return Looks(
        count=len(boxes),
        blank=int((maps.amax((1, 2)) == 0).sum()),
        area=math.fsum(chance_inside(box[2:]) for box in boxes) / len(boxes),
        inside=averaged(inside),
        hits=averaged(hits),
        overlap=averaged(overlap),
        likeness=like,
    )


def inside(map_HW: Tensor, box: Shares) -> float:
    """Share of a map's sum that lies in the box, in [0, 1]; 0 for a map of zeros. A position may lie in it in part."""
    values_HW = map_HW.double()
    total = float(values_HW.sum())
    return float((values_HW * _cover(box, map_HW)).sum()) / total if total != 0 else 0.0


def hits(map_HW: Tensor, box: Shares) -> bool:
    """Whether a map's maximum lies in the box: the pointing game (Zhang et al., 2016, arXiv:1608.00507).

    Half of the maximum's position is enough, or half of all where several are equal. A map of zeros misses.
    """
    highest = map_HW.max()
    if not highest > 0:
        return False
    peaks_HW = map_HW == highest
    return bool((peaks_HW * _cover(box, map_HW)).sum() / peaks_HW.sum() >= 0.5)


def overlap(map_HW: Tensor, box: Shares) -> float:
    """The box, and as many of a map's highest positions as it covers: intersection over union, in [0, 1].

    Positions where the map is zero are not taken. Of equal positions of which only some are needed, each is taken in
    part, so that no order decides.
    """
    values_HW, cover_HW = map_HW.double(), _cover(box, map_HW)
    wanted = max(1, round(float(cover_HW.sum())))
    lowest = values_HW.flatten().topk(wanted).values[-1]
    above_HW, equal_HW = values_HW > lowest, (values_HW == lowest) & (values_HW > 0)
    rest = (wanted - int(above_HW.sum())) / max(1, int(equal_HW.sum()))
    taken_HW = above_HW.double() + rest * equal_HW.double()
    both = float((taken_HW * cover_HW).sum())
    either = float(taken_HW.sum() + cover_HW.sum()) - both
    return both / either if either > 0 else 0.0


def likeness(first_HW: Tensor, second_HW: Tensor) -> float:
    """Pearson's correlation of two maps over their positions, in [-1, 1]; 0 where one is the same everywhere."""
    if any(bool(one.max() == one.min()) for one in (first_HW, second_HW)):
        return 0.0
    first_N, second_N = (one.double().flatten() - one.double().mean() for one in (first_HW, second_HW))
    return float(F.cosine_similarity(first_N, second_N, dim=0, eps=0.0))


def chance_inside(box: Shares) -> float:
    """The box's share of the image: the `inside` of a map that is the same everywhere."""
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def _is_map(shape: torch.Size, seen: torch.Size) -> bool:
    """Whether a tensor's last two dimensions are positions of the image, and not tokens or channels.

    They have the image's proportions; borders that a convolution leaves out may cost a position or two.
    """
    if len(shape) != 4:
        return False
    (height, width), (seen_height, seen_width) = shape[2:], seen[2:]
    return height * width > 1 and abs(width - height * seen_width / seen_height) <= 2


def _has_positions(shape: torch.Size) -> bool:
    """Whether a tensor is of more than one token (B, T, D) or position, and not of a pooled map."""
    return (len(shape) == 3 and shape[1] > 1) or (len(shape) == 4 and shape[2] * shape[3] > 1)


def _cover(box: Shares, map_HW: Tensor) -> Tensor:
    """What share of each position of a map lies in the box, float64 (H, W)."""
    left, top, right, bottom = box
    height, width = map_HW.shape

    def line(low: float, high: float, count: int) -> Tensor:
        edges = torch.arange(count + 1, dtype=torch.float64)
        return (edges[1:].clamp(max=high * count) - edges[:-1].clamp(min=low * count)).clamp(min=0)

    return line(top, bottom, height)[:, None] * line(left, right, width)


def _average(values: Sequence[float], owners: Sequence[int]) -> Average:
    mean = math.fsum(values) / len(values)
    sums = dict.fromkeys(owners, 0.0)
    for value, owner in zip(values, owners, strict=True):
        sums[owner] += value - mean
    if len(sums) == 1:
        return Average(mean, None)
    scale = len(sums) / (len(sums) - 1)
    return Average(mean, math.sqrt(scale * math.fsum(one * one for one in sums.values())) / len(values))
