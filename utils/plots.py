"""Pictures: grids of images, and matplotlib. Images are (N, C, H, W) uint8."""

import math
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MIN_CELL = 64  # pixels: smaller images are enlarged by a whole factor to at least this, so that a person can see them
GAP = 2  # pixels between images


def grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Lay images out in rows, small ones enlarged without smoothing. Returns a PIL image; square by default."""
    columns = columns or math.isqrt(len(images) - 1) + 1
    factor = max(1, -(-MIN_CELL // images.size(-1)))
    images = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    canvas = torch.full((channels, rows * (height + GAP) + GAP, columns * (width + GAP) + GAP), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        top, left = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        canvas[:, top : top + height, left : left + width] = image
    return picture(canvas)


def picture(image: Tensor) -> Image.Image:
    """An image (C, H, W) uint8 as a PIL image, each of its pixels one."""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if image.size(0) == 1 else array)


def read_grid(path: str | Path, columns: int = 10) -> np.ndarray:
    """The images of a picture that grid() made with so many columns, as enlarged there: (n, H, W) or (n, H, W, 3)."""
    array = np.asarray(Image.open(path))
    side = (array.shape[1] - GAP) // columns
    starts = (
        (GAP + row, GAP + column)
        for row in range(0, len(array) - GAP, side)
        for column in range(0, columns * side, side)
    )
    return np.stack([array[top : top + side - GAP, left : left + side - GAP] for top, left in starts])


def pyplot() -> ModuleType:
    """matplotlib.pyplot, imported late and drawing into files alone."""
    os.environ["MPLBACKEND"] = "Agg"  # whatever is inherited: a notebook's backend does not exist elsewhere
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
