"""Grids of images: where each pixel of one goes."""

import numpy as np
import pytest
import torch
from helpers import constant_images

from utils.plots import GAP, grid, pyplot, read_grid, scaled


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


@pytest.mark.parametrize(
    ("names", "cells"),
    [
        (["0", "1"], 1),
        (["automobile", "cat"], 2),
        (["T-shirt/top", "Ankle boot"], 2),
        (["golden retriever puppies of 2019", "WWWWWWWWWWWW"], 3),
        ([" ", "_"], 1),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_names_of_rows_are_large_and_whole_and_the_images_are_read_back(tmp_path, names, cells, channels):
    images = torch.randint(0, 256, (20, channels, 16, 16)).to(torch.uint8)
    image = grid(images, 10, names=names)
    assert image.size == ((10 + cells) * 66 + 2, 2 * 66 + 2)
    image.save(tmp_path / "grid.png")
    expected = images.permute(0, 2, 3, 1).numpy().repeat(4, 1).repeat(4, 2)
    found = read_grid(tmp_path / "grid.png", named=True)
    assert np.array_equal(found, expected[..., 0] if channels == 1 else expected)
    front = np.asarray(image.convert("L"))[:, : cells * 66]
    for row in range(2 if names[0].strip() else 0):
        black = np.argwhere(front[row * 66 + GAP : (row + 1) * 66] < 128)
        assert black[:, 1].min() >= GAP and black[:, 1].max() < cells * 66 - GAP  # no letter is cut off
        assert np.ptp(black[:, 0]) > 9  # a digit of 14 pixels; the smallest was 8


# ---- Axes of matplotlib --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "scale", "expected", "texts"),
    [
        ([0, 0, 0], "log", "linear", None),  # on a logarithmic axis it would be empty
        ([0, 1, 500], "log", "log", None),
        ([-0.02, 0.3, 0.37], "symlog", "linear", None),
        ([-5, 3, 40], "symlog", "symlog", None),
        ([0.589, 0.6, 0.62], "log", "log", ["0.59", "0.6", "0.61", "0.62"]),
        ([340, 412], "log", "log", ["340", "360", "380", "400"]),
        ([1.5, 9], "log", "log", ["2", "5"]),
        ([2, 400], "log", "log", ["3", "10", "30", "100", "300"]),
    ],
)
def test_a_scale_shows_what_is_drawn_and_its_ticks_are_plain(figures, values, scale, expected, texts):
    _, axis = pyplot().subplots()
    axis.plot(values)
    scaled(axis, scale)
    assert axis.get_yscale() == expected
    low, high = axis.get_ylim()
    shown = [label.get_text() for label, at in zip(axis.get_yticklabels(), axis.get_yticks()) if low <= at <= high]
    assert texts is None or shown == texts
