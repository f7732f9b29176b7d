"""Stacked digits: each channel is a digit of its split, the label says which three, and the same ones every time."""

import dataclasses

import pytest
import torch

from datasets import load_split
from datasets.images import Images
from datasets.stacked import of_digits, stack
from settings.config import Config
from settings.rules import check_combinations
from utils.errors import UserError

CONFIG = Config(dataset="stacked_digits", image_size=8)


def shades(count=10):
    """One image of each digit, of the shade 10 times the digit."""
    images = torch.arange(count, dtype=torch.uint8).mul(10).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return Images(images, torch.arange(count), tuple("0123456789"[:count]))


def test_red_green_and_blue_are_the_digits_of_the_label():
    found = stack(shades(), "train")
    assert found.images.shape == (128_000, 3, 2, 2) and found.images.dtype == torch.uint8
    red, green, blue = (found.images[:, :, 0, 0].long() // 10).unbind(1)
    assert torch.equal(found.labels, 100 * red + 10 * green + blue)
    assert found.classes[7] == "007" and found.classes[123] == "123" and len(found.classes) == 1000
    counts = found.labels.bincount(minlength=1000)
    assert counts.min() > 70 and counts.max() < 190  # 128 each, within chance
    assert torch.equal(stack(shades(), "train").labels, found.labels)


def test_stacks_to_test_are_other_ones_of_the_test_digits():
    train, test = load_split(CONFIG), load_split(CONFIG, "test")
    assert (len(train.images), len(test.images)) == (128_000, 26_000)
    assert not torch.equal(train.labels[:26_000], test.labels)
    digits = load_split(of_digits(CONFIG), "test")
    known = {image.numpy().tobytes(): label for image, label in zip(digits.images, digits.labels.tolist())}
    for image, label in zip(test.images[:200], test.labels[:200].tolist()):
        assert [known[channel.numpy().tobytes()] for channel in image] == [int(sign) for sign in f"{label:03}"]


def test_other_sizes_are_those_of_the_digits():
    config = dataclasses.replace(CONFIG, image_size=16)
    digits, found = load_split(of_digits(config), "test"), load_split(config, "test")
    assert found.images.shape == (26_000, 3, 16, 16)
    assert any(torch.equal(found.images[0, 1], image[0]) for image in digits.images)


def test_grey_stacks_are_refused_with_the_reason():
    with pytest.raises(UserError, match="channels 1 makes no sense with dataset stacked_digits: its three digits are"):
        check_combinations(Config(dataset="stacked_digits", channels=1))
