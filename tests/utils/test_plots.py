"""Grids of images: where each pixel of one goes."""

import numpy as np
import pytest
import torch
from helpers import constant_images

from utils.plots import grid


@pytest.mark.parametrize(("side", "cell"), [(8, 64), (16, 64), (32, 64), (48, 96), (64, 64), (128, 128)])
def test_small_images_are_enlarged_by_a_whole_factor_to_64_pixels_or_more(side, cell):
    image = grid(constant_images([7], 1, side))
    assert image.size == (cell + 4, cell + 4)  # a gap of 2 pixels on each side


def test_images_lie_in_rows_from_the_top_left_with_white_gaps():
    array = np.asarray(grid(constant_images([10, 20, 30, 40, 50], 1, 64)))
    assert array.shape == (2 * 66 + 2, 3 * 66 + 2)  # 5 images: 3 columns, 2 rows
    expected = np.full_like(array, 255)
    for value, top, left in ((10, 2, 2), (20, 2, 68), (30, 2, 134), (40, 68, 2), (50, 68, 68)):
        expected[top : top + 64, left : left + 64] = value
    assert np.array_equal(array, expected)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (4, 2, 2), (7, 3, 3), (10, 4, 3)])
def test_the_grid_is_as_square_as_the_count_allows(count, columns, rows):
    assert grid(constant_images([0] * count, 1, 64)).size == (66 * columns + 2, 66 * rows + 2)


def test_the_columns_can_be_chosen():
    assert grid(constant_images([0] * 6, 1, 64), columns=6).size == (6 * 66 + 2, 68)


def test_each_pixel_becomes_a_square_of_its_own_colour():
    images = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    picture = grid(images)
    assert picture.mode == "RGB"
    array = np.asarray(picture)[2:-2, 2:-2]
    pixels = images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(array, pixels.repeat(8, axis=0).repeat(8, axis=1))


def test_grey_images_make_a_grey_picture():
    picture = grid(constant_images([3], 1, 8))
    assert picture.mode == "L"
    assert picture.getpixel((2, 2)) == 3
