"""Images in memory: how they are fitted to a size and channels, and turned to floats and back."""

import pytest
import torch
from helpers import random_images

from datasets.images import Images, Origin, fit, quantise, to_float


def test_the_hash_that_an_earlier_version_kept_is_of_the_same_images():
    pixels, classes, origin = random_images(4, 1, 8, 8), ("1", "2", "10"), Origin("of the file", {}, {}, ())
    images = Images(pixels, torch.tensor([0, 1, 2, 2]), classes, origin)
    for labels in ([0, 2, 1, 1], [-1] * 4):  # 1, 10, 2; and none
        assert images.is_of(Images(pixels, torch.tensor(labels), ()).sha256())
    assert images.is_of("of the file") and not images.is_of(None)
    assert not images.is_of(Images(pixels, torch.tensor([1, 0, 2, 2]), ()).sha256())
    assert not images.is_of(Images(pixels + 1, torch.tensor([-1] * 4), ()).sha256())


# ---- fit() ---------------------------------------------------------------------------------------------------------


def test_28_pixels_are_padded_to_32_with_zeros():
    images = random_images(3, 1, 28, 28)
    fitted = fit(images, 32, 1)
    assert torch.equal(fitted[:, :, 2:30, 2:30], images)
    fitted[:, :, 2:30, 2:30] = 0
    assert fitted.shape == (3, 1, 32, 32) and fitted.sum() == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_images_that_fit_already_stay_as_they_are(channels):
    images = random_images(3, channels, 16, 16)
    assert torch.equal(fit(images, 16, channels), images)


@pytest.mark.parametrize(("side", "image_size"), [(28, 64), (8, 32), (96, 48), (32, 8), (20, 128)])
def test_a_resized_constant_image_stays_constant(side, image_size):
    shades = torch.tensor([0, 1, 127, 255], dtype=torch.uint8).view(-1, 1, 1, 1)
    fitted = fit(shades.expand(-1, 3, side, side), image_size, 3)
    assert torch.equal(fitted, shades.expand(-1, 3, image_size, image_size))


def test_the_centre_of_an_image_that_is_not_square_is_kept():
    images = random_images(2, 3, 8, 16)
    assert torch.equal(fit(images, 8, 3), images[..., 4:12])
    assert torch.equal(fit(images.mT, 8, 3), images[..., 4:12].mT)


def test_the_shorter_side_is_resized_before_the_crop():
    bands = torch.zeros(1, 1, 32, 64, dtype=torch.uint8)
    bands[..., 16:48], bands[..., 48:] = 100, 200
    fitted = fit(bands, 16, 1)  # of 16 x 32, the middle
    assert fitted.shape == (1, 1, 16, 16)
    assert (fitted[..., 1:-1] == 100).all()


def test_grey_from_colour_is_itu_r_601_luma():
    images = random_images(5, 3, 8, 8)
    red, green, blue = images.double().unbind(1)
    luma = red * 0.299 + green * 0.587 + blue * 0.114
    assert (fit(images, 8, 1)[:, 0] - luma).abs().max() <= 0.5 + 255 / 2**16
    assert (fit(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8), 8, 1) == 255).all()


def test_colour_from_grey_is_three_equal_planes():
    images = random_images(5, 1, 8, 8)
    fitted = fit(images, 8, 3)
    assert fitted.shape == (5, 3, 8, 8)
    assert all(torch.equal(fitted[:, i], images[:, 0]) for i in range(3))


def test_more_images_than_are_resized_at_once_keep_their_order(monkeypatch):
    monkeypatch.setattr("datasets.images.RESIZE_CHUNK", 3)
    shades = torch.arange(10, dtype=torch.uint8).view(-1, 1, 1, 1)
    assert torch.equal(fit(shades.expand(-1, 1, 16, 16), 8, 1)[:, 0, 0, 0], shades.flatten())


# ---- Conversions ---------------------------------------------------------------------------------------------------

LEVELS = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1)


@pytest.mark.parametrize(("noise", "highest"), [(0.0, 255 / 128 - 1), (1 - 2**-24, 1 - 2**-24)])
def test_every_level_becomes_a_float_from_minus_1_to_below_1_whatever_the_noise(monkeypatch, noise, highest):
    monkeypatch.setattr(torch, "rand", lambda shape, **kwargs: torch.full(shape, noise))
    floats = to_float(LEVELS, None)
    assert floats.dtype == torch.float32
    assert floats.min() >= -1 and floats.max() < 1
    assert floats.max() == highest
    assert torch.allclose(floats.flatten(), (torch.arange(256.0) + noise) / 128 - 1, rtol=0, atol=2**-23)


def test_the_noise_fills_the_step_between_two_levels_evenly():
    generator = torch.Generator().manual_seed(0)
    images = torch.full((10, 1, 100, 100), 100, dtype=torch.uint8)
    noise = (to_float(images, generator).double() + 1) * 128 - 100
    assert -1e-4 <= noise.min() < 0.001 and 0.999 < noise.max() <= 1 + 1e-4
    assert noise.mean().item() == pytest.approx(0.5, abs=0.003)
    assert noise.var().item() == pytest.approx(1 / 12, abs=0.001)


def test_the_noise_comes_from_the_generator():
    first, second, other = (to_float(LEVELS, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("value", "level"),
    [(-1.0, 0), (1.0, 255), (0.0, 128), (0.5, 191), (-0.5, 64), (1 / 127.5 - 1, 1), (0.49 / 127.5 - 1, 0)],
)
def test_quantise_rounds_to_the_nearest_of_256_levels(value, level):
    assert quantise(torch.tensor([value])).tolist() == [level]  # 0 is 127.5, which rounds to the even 128


def test_quantise_clamps_what_lies_outside_instead_of_wrapping_it_around():
    levels = quantise(torch.tensor([-3.0, -1.01, 1.01, 3.0]))
    assert levels.dtype == torch.uint8
    assert levels.tolist() == [0, 0, 255, 255]


def test_quantise_undoes_to_float_within_one_level():
    images = LEVELS.expand(-1, 1, 16, 16)
    back = quantise(to_float(images, torch.Generator().manual_seed(0)))
    assert (back.int() - images.int()).abs().max() <= 1


def test_mirrored_images_are_flipped_from_left_to_right_half_the_time():
    images = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4).expand(400, 1, 1, 4) * 60
    seen = (to_float(images, torch.Generator().manual_seed(0), mirror=True) + 1) * 128
    flipped = (seen[:, 0, 0, 0] > seen[:, 0, 0, 3]).float().mean()
    assert 0.4 < flipped < 0.6
    plain = to_float(images, torch.Generator().manual_seed(0))
    assert torch.equal(plain.argsort(3), images.argsort(3).expand_as(plain))
