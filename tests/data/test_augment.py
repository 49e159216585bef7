import pytest
import torch
from torchvision.transforms import v2

from distill.data import CenterCrop, Crop, Flip, RandomResizedCrop, Resize


def image(height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("ours", "torchvision"),
    [
        (Crop(padding=4), v2.RandomCrop(32, padding=4)),
        (Flip(), v2.RandomHorizontalFlip()),
        (Flip(0.2), v2.RandomHorizontalFlip(0.2)),
        (RandomResizedCrop(24, scale=(0.3, 1.0)), v2.RandomResizedCrop(24, scale=(0.3, 1.0))),
    ],
)
def test_draws_and_pixels_are_torchvision_s(ours, torchvision):
    different = set()
    for seed in range(300):
        torch.manual_seed(seed)
        got = ours(image())
        torch.manual_seed(seed)
        expected = torchvision(image())
        assert torch.equal(got, expected)
        different.add(got.sum().item())
    assert len(different) > 1 or isinstance(ours, Flip)


def test_a_crop_reaches_every_offset_and_pads_with_black():
    # One white pixel of one: padded by 2 it is seen at one of 25 offsets, and only one of them leaves it in the crop.
    torch.manual_seed(0)
    white = torch.full((1, 1, 1), 255, dtype=torch.uint8)
    share = sum(Crop(padding=2)(white).item() == 255 for _ in range(5000)) / 5000
    # Standard error of a share of 1/25 over 5,000 draws: 0.0028.
    assert abs(share - 1 / 25) < 4 * 0.0028


def test_a_flip_happens_as_often_as_its_probability():
    torch.manual_seed(0)
    ramp = torch.arange(2, dtype=torch.uint8).view(1, 1, 2)
    share = sum(Flip(0.25)(ramp)[0, 0, 0].item() for _ in range(5000)) / 5000
    # Standard error of a share of 1/4 over 5,000 draws: 0.0061.
    assert abs(share - 0.25) < 4 * 0.0061


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
