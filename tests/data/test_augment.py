import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from distill.data import CenterCrop, Crop, Flip, RandomResizedCrop, Resize
from distill.data.augment import ByBatch, Transform, transformed
from distill.data.draws import uniforms

# Draws are fixed by their keys, so a test passes always or never; one that is right passes at this level of chance.
CHANCE = 1e-3


def image(height: int = 32, width: int = 32) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def batch_of(transform: ByBatch, one: Tensor, count: int) -> Tensor:
    """The same image over and over, each with its own draw."""
    keys = [(epoch, index) for epoch in range(2) for index in range(count // 2)]
    return transform.batch(one.expand(count, *one.shape), uniforms(("test",), keys, transform.num_drawn))


def test_crops_are_torchvision_s_and_each_place_is_as_likely():
    # Torchvision's RandomCrop draws top and left uniformly from 0..2 * padding; its pixels by its own functional.
    padded = TF.pad(image(16, 12), [3])
    names = {TF.crop(padded, top, left, 16, 12).numpy().tobytes(): (top, left) for top in range(7) for left in range(7)}
    assert len(names) == 49
    crops = batch_of(Crop(padding=3), image(16, 12), 9800)
    counts = dict.fromkeys(names.values(), 0)
    for crop in crops:
        counts[names[crop.numpy().tobytes()]] += 1
    assert stats.chisquare(list(counts.values())).pvalue > CHANCE


@pytest.mark.parametrize("probability", [0.5, 0.2, 1.0])
def test_flips_are_torchvision_s_and_as_likely_as_asked(probability):
    flipped = batch_of(Flip(probability), image(), 5000)
    mirrored = (flipped == TF.horizontal_flip(image())).all(3).all(2).all(1)
    assert torch.equal(flipped[~mirrored], image().expand(int((~mirrored).sum()), 3, 32, 32))
    assert stats.binomtest(int(mirrored.sum()), 5000, probability).pvalue > CHANCE


@pytest.mark.parametrize(
    ("transform", "height", "width"),
    [
        (RandomResizedCrop(24, scale=(0.08, 1.0)), 60, 60),
        (RandomResizedCrop(24, scale=(0.3, 0.9), ratio=(1 / 3, 3.0)), 90, 120),
        (RandomResizedCrop(24, scale=(0.5, 1.0), ratio=(0.5, 2.0)), 200, 50),
    ],
)
def test_parts_are_distributed_as_torchvision_s(transform, height, width):
    count = 6000
    theirs = v2.RandomResizedCrop(24, scale=transform.scale, ratio=transform.ratio)
    torch.manual_seed(0)
    blank = torch.zeros(1, height, width)
    drawn = [theirs.make_params([blank]) for _ in range(count)]
    expected = np.array([(box["top"], box["left"], box["height"], box["width"]) for box in drawn])
    numbers = uniforms(("test",), [(0, index) for index in range(count)], transform.num_drawn).tolist()
    found = np.array([transform.part(row, height, width) for row in numbers])

    def measures(boxes: np.ndarray) -> dict[str, np.ndarray]:
        top, left, tall, wide = boxes.T
        return {
            "area": tall * wide,
            "ratio": wide / tall,
            # Where a part has no room its place is no choice, on both sides alike.
            "down": top / np.maximum(height - tall, 1),
            "across": left / np.maximum(width - wide, 1),
        }

    for name, ours in measures(found).items():
        assert stats.ks_2samp(ours, measures(expected)[name], method="asymp").pvalue > CHANCE, name


@pytest.mark.parametrize(
    ("height", "width", "part"),
    [
        # None of ten draws fits: the whole of what the ratio allows, in the middle.
        (100, 10, (43, 0, 13, 10)),  # 10 / (3/4) = 13.3 high
        (10, 100, (0, 43, 10, 13)),  # 10 * 4/3 = 13.3 wide
        (40, 40, (0, 0, 40, 40)),
    ],
)
def test_where_no_draw_fits_the_middle_is_taken(height, width, part):
    # The largest area there is, and a ratio of 3/4: in a square image too high, in the wide one too wide.
    numbers = [*[1.0, 0.0] * 10, 0.5, 0.5]
    assert RandomResizedCrop(8).part(numbers, height, width) == part


def test_parts_are_resized_to_torchvision_s_pixels():
    transform = RandomResizedCrop(24, scale=(0.3, 1.0))
    seen = set()
    for numbers in uniforms(("test",), [(0, index) for index in range(40)], transform.num_drawn).tolist():
        resized = transform.one(image(48, 64), numbers)
        expected = TF.resized_crop(image(48, 64), *transform.part(numbers, 48, 64), [24, 24], antialias=True)
        assert torch.equal(resized, expected)
        seen.add(resized.numpy().tobytes())
    assert len(seen) == 40


OURS_AND_OTHERS: list[Transform] = [
    Crop(2),
    Flip(),
    Flip(0.3),
    RandomResizedCrop(12),
    v2.RandomVerticalFlip(),
    v2.ColorJitter(brightness=0.5),
    Resize(14),
    CenterCrop(10),
]


@pytest.mark.parametrize("transforms", list(itertools.permutations(OURS_AND_OTHERS, 2)))
@pytest.mark.parametrize("unlike", [False, True])
def test_what_becomes_of_an_image_does_not_depend_on_what_stands_beside_it(transforms, unlike):
    keys = [(epoch, index) for epoch in (0, 5) for index in (3, 1, 0, 7)]
    images = [image(16 + 2 * unlike * (row % 2), 20) for row in range(8)]
    state = torch.get_rng_state()
    whole = transformed(images if unlike else torch.stack(images), transforms, keys, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for row, key in enumerate(keys):
        alone = transformed(images[row][None], transforms, [key], seed=1)
        assert torch.equal(whole[row], alone[0])
    assert all(torch.equal(one, image(one.shape[1], 20)) for one in images)


def test_two_transforms_of_one_kind_draw_on_their_own():
    keys = [(0, index) for index in range(4000)]
    ramp = torch.arange(2, dtype=torch.uint8).view(1, 1, 1, 2).expand(4000, 1, 1, 2)
    once, twice = (transformed(ramp, [Flip()] * count, keys, seed=0)[:, 0, 0, 0] for count in (1, 2))
    # Of four outcomes each is as likely: (mirrored by the first, mirrored by the second).
    counts = torch.bincount(2 * once.long() + (once ^ twice).long(), minlength=4).tolist()
    assert stats.chisquare(counts).pvalue > CHANCE


def test_evaluation_takes_the_middle():
    prepared = CenterCrop(24)(Resize(32)(image(48, 64)))
    expected = v2.Compose([v2.Resize(32, antialias=True), v2.CenterCrop(24)])(image(48, 64))
    assert prepared.shape == (3, 24, 24)
    assert prepared.dtype == torch.uint8
    assert torch.equal(prepared, expected)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Crop(padding=0), "Crop.padding"),
        (lambda: Flip(0.0), "Flip.probability"),
        (lambda: Flip(1.1), "Flip.probability"),
        (lambda: RandomResizedCrop(0), "RandomResizedCrop.size"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 0.1)), "RandomResizedCrop.scale"),
        (lambda: RandomResizedCrop(8, ratio=(0.0, 1.0)), "RandomResizedCrop.ratio"),
        (lambda: Resize(0), "Resize.size"),
        (lambda: CenterCrop(-1), "CenterCrop.size"),
    ],
)
def test_settings_without_sense_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
