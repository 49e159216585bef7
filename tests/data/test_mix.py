import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Beta

from distill.data.mix import Blend, Mix, blended_images, blended_labels


def draws(mix: Mix, count: int = 4000, epoch: int = 0, seed: int = 0) -> list[Blend]:
    return [mix.draw(seed, epoch, index, num_examples=500, height=32, width=32) for index in range(count)]


@pytest.mark.parametrize("concentration", [0.2, 1.0, 4.0])
def test_the_share_of_mixup_follows_the_beta_distribution(concentration):
    shares = torch.tensor([blend.share for blend in draws(Mix(mixup=concentration))])
    variance = Beta(torch.tensor(concentration), torch.tensor(concentration)).variance
    # Of 4,000 draws: the mean's standard error is at most 0.5 / sqrt(4000) = 0.008, the variance's below 0.002.
    assert abs(shares.mean() - 0.5) < 0.03
    assert abs(shares.var() - variance) < 0.008


def test_partners_are_spread_over_the_split():
    partners = torch.tensor([blend.partner for blend in draws(Mix(mixup=1.0))])
    assert partners.min() >= 0
    assert partners.max() < 500
    # 4,000 draws of 500: a partner is never drawn with probability exp(-8), so about 0.2 of them.
    assert len(partners.unique()) > 490


def test_a_blend_depends_on_seed_epoch_and_index_alone():
    mix = Mix(mixup=0.8, cutmix=1.0, probability=0.7)
    first = draws(mix, 100)
    assert draws(mix, 100) == first
    assert draws(mix, 100, epoch=1) != first
    assert draws(mix, 100, seed=1) != first
    torch.manual_seed(3)
    assert mix.draw(0, 0, 7, num_examples=500, height=32, width=32) == first[7]


def test_some_are_left_alone_and_both_kinds_are_as_likely():
    blends = draws(Mix(mixup=1.0, cutmix=1.0, probability=0.6))
    alone = [blend for index, blend in enumerate(blends) if blend == Blend(index, 1.0)]
    cutmix = [blend for blend in blends if blend.box is not None]
    # Standard errors over 4,000 draws: 0.008 for either share.
    assert abs(len(alone) / 4000 - 0.4) < 0.032
    assert abs(len(cutmix) / 4000 - 0.3) < 0.032


def test_the_share_of_cutmix_is_what_the_box_leaves():
    blends = draws(Mix(cutmix=1.0), 500)
    white = torch.full((500, 1, 32, 32), 255, dtype=torch.uint8)
    mixed = blended_images(blends, white, torch.zeros_like(white))
    for image, blend in zip(mixed, blends, strict=True):
        assert image.mean().item() == pytest.approx(blend.share, abs=1e-6)


def test_cutmix_takes_half_the_area_on_the_mean_where_boxes_are_not_cut_off():
    # With cutmix=1 the share is uniform; a box cut off at the border leaves more, so the mean lies above one half.
    shares = torch.tensor([blend.share for blend in draws(Mix(cutmix=1.0))])
    assert 0.5 < shares.mean() < 0.75
    assert shares.min() >= 0
    assert shares.max() <= 1


def test_images_and_labels_are_mixed_alike():
    own, other = torch.full((3, 1, 2, 2), 255, dtype=torch.uint8), torch.full((3, 1, 2, 2), 51, dtype=torch.uint8)
    blends = [Blend(1, 0.75), Blend(1, 0.5, box=(0, 0, 2, 1)), Blend(2, 1.0)]
    images = blended_images(blends, own, other)
    # 51 / 255 = 0.2, and 0.75 * 1 + 0.25 * 0.2 = 0.8.
    assert torch.allclose(images[0], torch.tensor(0.8))
    assert torch.allclose(images[1], torch.tensor([[[0.2, 1.0], [0.2, 1.0]]]))
    assert torch.equal(images[2], torch.ones(1, 2, 2))
    labels = blended_labels(blends, torch.tensor([2, 2, 1]), torch.tensor([0, 2, 1]), 3)
    assert torch.equal(labels, torch.tensor([[0.25, 0.0, 0.75], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    assert own.unique().tolist() == [255]
    assert other.unique().tolist() == [51]


def test_a_label_that_one_of_two_does_not_know_is_unknown():
    unknown = float("nan")
    own, other = torch.tensor([[1.0, 0.0, unknown]] * 2), torch.tensor([[0.0, unknown, 1.0]] * 2)
    labels = blended_labels([Blend(1, 0.75), Blend(1, 1.0)], own, other, 3)
    expected = torch.tensor([[0.75, unknown, unknown], [1.0, 0.0, unknown]])
    torch.testing.assert_close(labels, expected, equal_nan=True, rtol=0, atol=0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=9),
    st.integers(1, 7),
    st.integers(0, 2**31),
)
def test_a_mixture_stays_within_its_two_images_and_does_not_depend_on_the_others(kinds, side, seed):
    draw = torch.Generator().manual_seed(seed)
    own, other = torch.randint(0, 256, (2, len(kinds), 3, side, side), dtype=torch.uint8, generator=draw)
    blends = [Blend(0, share, box=(0, 0, side // 2, side) if boxed else None) for share, boxed in kinds]
    mixed = blended_images(blends, own, other)
    assert bool((mixed <= torch.maximum(own, other) / 255).all() and (mixed >= torch.minimum(own, other) / 255).all())
    labels = blended_labels(blends, torch.arange(len(kinds)), torch.zeros(len(kinds), dtype=torch.int64), 10)
    assert torch.allclose(labels.sum(1), torch.ones(len(kinds)))
    for row, blend in enumerate(blends):
        assert torch.equal(mixed[row], blended_images([blend], own[row, None], other[row, None])[0])
        assert torch.equal(labels[row], blended_labels([blend], torch.tensor([row]), torch.tensor([0]), 10)[0])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "no effect"),
        ({"mixup": -0.1}, "mixup=-0.1"),
        ({"cutmix": float("nan")}, "cutmix=nan"),
        ({"mixup": 0.2, "probability": 0.0}, "probability"),
        ({"mixup": 0.2, "probability": 1.5}, "probability"),
    ],
)
def test_settings_without_sense_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        Mix(**values)
