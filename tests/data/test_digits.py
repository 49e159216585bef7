import pytest
import torch
from sklearn.datasets import load_digits

from distill.data import Digits
from distill.data.arrays import statistics


def test_the_real_digits_come_in_three_stratified_splits():
    splits = Digits().load(0, None)
    assert splits.classes == tuple("0123456789")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1079, 359, 359)
    whole = torch.bincount(torch.from_numpy(load_digits().target))
    for examples, share in ((splits.train, 0.6), (splits.validation, 0.2), (splits.test, 0.2)):
        assert torch.all((torch.bincount(examples.labels) - whole * share).abs() <= 2)
    example = splits.train[0, 0]
    assert example.image.shape == (1, 8, 8)
    assert example.image.dtype == torch.uint8


def test_grey_is_spread_over_all_of_a_byte_and_no_image_is_lost():
    splits = Digits().load(0, None)
    images = torch.cat([splits.train.images, splits.validation.images, splits.test.images])
    assert len(images.unique()) == 17
    assert (images.min(), images.max()) == (0, 255)
    original = torch.from_numpy(load_digits().images).flatten(1).sum(1).sort().values
    assert torch.allclose(images.flatten(1).double().sum(1).sort().values * 16 / 255, original, atol=2)
    own = statistics(images)
    assert own.mean == pytest.approx(splits.view.mean, abs=1e-4)
    assert own.std == pytest.approx(splits.view.std, abs=1e-4)


def test_augmenting_moves_digits_by_at_most_one_pixel():
    plain, moved = Digits().load(0, None).train, Digits(augment=True).load(0, None).train
    assert torch.equal(plain.images, moved.images)
    offsets = set()
    for epoch in range(40):
        padded = torch.nn.functional.pad(plain.images[0], (1, 1, 1, 1))
        offsets.add(
            next(
                (y, x)
                for y in range(3)
                for x in range(3)
                if torch.equal(padded[:, y : y + 8, x : x + 8], moved[epoch, 0].image)
            )
        )
    assert len(offsets) > 5


@pytest.mark.parametrize(
    "settings", [{"validation": 0.0}, {"test": 1.0}, {"validation": -0.1}, {"validation": 0.6, "test": 0.4}]
)
def test_shares_without_sense_are_refused(settings):
    with pytest.raises(ValueError, match=r"Digits\."):
        Digits(**settings)
