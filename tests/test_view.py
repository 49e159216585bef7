import pytest
import torch

from distill.view import View


def test_bytes_become_fractions() -> None:
    seen = View().module()(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8))
    torch.testing.assert_close(seen, torch.tensor([[[[0.0, 0.2, 1.0]]]]))


def test_floats_stay_as_they_are_without_settings() -> None:
    crop = torch.rand(2, 3, 4, 4)
    assert torch.equal(View().module()(crop), crop)


def test_each_channel_is_normalised_with_its_own_statistics() -> None:
    # (0.5 − 0.25) / 0.5 and (0.5 − 1) / 0.25.
    seen = View(mean=(0.25, 1.0), std=(0.5, 0.25)).module()(torch.full((1, 2, 1, 1), 0.5))
    assert seen.flatten().tolist() == [0.5, -2.0]


def test_bytes_and_their_fractions_look_the_same() -> None:
    crop = torch.randint(256, (2, 3, 5, 5), dtype=torch.uint8)
    module = View(size=7, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)).module()
    torch.testing.assert_close(module(crop), module(crop.float() / 255))


def test_one_mean_fits_any_number_of_channels() -> None:
    seen = View(mean=(0.5,), std=(0.5,)).module()(torch.ones(1, 3, 2, 2))
    assert torch.equal(seen, torch.ones(1, 3, 2, 2))


def test_grey_becomes_as_many_channels_as_there_are_means() -> None:
    seen = View(mean=(0.0, 0.5, 1.0), std=(1.0, 1.0, 1.0)).module()(torch.ones(2, 1, 4, 4))
    assert seen.shape == (2, 3, 4, 4)
    assert seen[0, :, 0, 0].tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("sides", [(8, 8), (2, 2), (4, 6), (6, 4)])
def test_any_crop_is_resized_to_the_square(sides: tuple[int, int]) -> None:
    seen = View(size=4).module()(torch.rand(2, 3, *sides))
    assert seen.shape == (2, 3, 4, 4)
    assert seen.min() >= 0
    assert seen.max() <= 1


def test_making_smaller_averages_rather_than_drops_pixels() -> None:
    # Every fourth column is white. At a quarter of the size each pixel is a quarter white; without antialiasing it is
    # the mean of the two black columns in its middle. The border, where the filter is cut off, is left out.
    stripes = (torch.arange(16) % 4 == 0).float().expand(1, 1, 16, 16)
    seen = View(size=4).module()(stripes)
    torch.testing.assert_close(seen[..., 1:3], torch.full((1, 1, 4, 2), 0.25))


def test_a_crop_of_the_right_size_is_not_resampled() -> None:
    crop = torch.rand(1, 3, 4, 4)
    assert torch.equal(View(size=4).module()(crop), crop)


def test_a_view_adds_nothing_to_a_models_state() -> None:
    module = View(size=4, mean=(0.5,), std=(0.5,)).module()
    assert module.state_dict() == {}
    assert list(module.parameters()) == []


def test_channels_that_do_not_meet_the_means_are_refused() -> None:
    with pytest.raises(ValueError, match="View has 3 means for images of 2 channels"):
        View(mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0)).module()(torch.rand(1, 2, 4, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, r"^View\.size .* got 0\."),
        ({"mean": (0.5,), "std": ()}, r"^View needs as many means as deviations, got mean=\(0\.5,\) and std=\(\)\."),
        ({"mean": (0.5,), "std": (0.0,)}, r"^View\.std .* got \(0\.0,\)\."),
        ({"mean": (0.5,), "std": (float("nan"),)}, r"^View\.std .* got \(nan,\)\."),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        View(**settings)  # type: ignore[arg-type]
